"""A machine divided: threads, GPUs, and the numbers that are none."""

import pytest

from neuralmech.errors import UserError
from neuralmech.sweeps.shares import Shares, gpus, shares


def test_each_worker_has_a_gpu_in_turn_and_its_threads():
    parts = shares(3, None, 10, ("4", "7"), 12, {})
    assert parts == Shares(3, 4, ("4", "7"))
    assert [parts.environment(k)["CUDA_VISIBLE_DEVICES"] for k in range(3)] == ["4", "7", "4"]
    assert parts.environment(0)["OMP_NUM_THREADS"] == "4"
    assert "CUDA_VISIBLE_DEVICES" not in shares(3, None, 10, (), 12, {}).environment(0)


def test_what_the_user_says_counts():
    assert shares(2, None, 10, (), 8, {"OMP_NUM_THREADS": "3"}).threads == 3
    assert shares(2, 1, 10, (), 8, {"OMP_NUM_THREADS": "3"}).threads == 1
    assert shares(100, None, 10, (), 8, {}) == Shares(10, 1)
    assert gpus("auto", {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}) == ("GPU-a", "GPU-b")
    assert gpus("cpu", {"CUDA_VISIBLE_DEVICES": "0"}) == gpus("cuda", {"CUDA_VISIBLE_DEVICES": ""}) == ()


def test_gpus_are_those_that_the_driver_lists(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g'\necho 'GPU 1: B (UUID: GPU-2)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpus("auto", {}) == ("0", "1")
    with pytest.raises(UserError, match="device=cuda:1 does not go with hydra/launcher=pool"):
        gpus("cuda:1", {})


@pytest.mark.parametrize("options", [(0, None), (True, None), ("two", None), (None, 0), (None, 1.5)])
def test_numbers_that_are_none(options):
    with pytest.raises(UserError, match=r"^hydra\.launcher\.\w+=.* must be a whole number, 1 or more"):
        shares(*options, 10, (), 8, {})
