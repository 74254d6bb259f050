"""Folders and machines of other people, through the command line."""

import fcntl
import os
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from command_line import QUICK, refused
from neuralmech import jit
from neuralmech.compare.gather.runs import find_runs
from neuralmech.record import RecordError, open_record

pytestmark = pytest.mark.usefixtures("found_once")


def test_printed_commands_work_whatever_the_folder_is_called(command, tmp_path):
    for name in ("lr=0.1,m=0", "a b", "it's"):
        code, out, err = command("train", *QUICK, f"hydra.run.dir={hydra_quoted(name)}", "hydra.job.chdir=true")
        assert (code, err) == (0, "")
        words = shlex.split(out.splitlines()[-1].removeprefix("Next: neuralmech "))
        assert command(*words, "figures=false", "report=false")[0] == 0
        assert (tmp_path / name / "analysis/runs.csv").is_file()
        _, _, err = command("train", *QUICK, f"hydra.run.dir={hydra_quoted(name)}")
        resume = shlex.split(err.partition("continue it with ")[2])
        assert command("train", *resume, "train.steps=6")[0] == 0
        assert command("train", f"resume={name}", "train.steps=8")[0] == 0
        with open_record(tmp_path / name) as record:
            assert record.rows == 8
    refused(command("train", "hydra.run.dir=lr=1"), "for this text as it stands write 'hydra.run.dir=.*lr=1")


def hydra_quoted(text):
    return '"' + text + '"'


def test_jobs_in_nested_folders_are_found_and_a_sweeper_gets_the_loss(command, tmp_path, monkeypatch):
    from hydra.core.plugins import Plugins

    Plugins.instance()  # the first look for plugins imports each again
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    real, returned = BasicLauncher.launch, []

    def launch(*arguments, **options):
        returned.extend(real(*arguments, **options))
        return returned

    monkeypatch.setattr(BasicLauncher, "launch", launch)
    words = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=a/lr_${optim.lr}/b"]
    assert command("train", *QUICK, "-m", "optim.lr=0.1,-1,0.2", *words)[0] == 2
    names = [job.name for job in find_runs(tmp_path / "sweep").jobs]
    assert names == ["a/lr_-1/b", "a/lr_0.1/b", "a/lr_0.2/b"]
    values = [job.return_value for job in returned]
    for value, name in ((values[0], "a/lr_0.1/b"), (values[2], "a/lr_0.2/b")):
        with open_record(tmp_path / "sweep" / name) as record:
            assert value == record.evaluation()["loss"].iloc[-1]
    assert values[1] != values[1]


def test_a_record_that_another_program_has_open_is_named(command):
    command("train", *QUICK, "hydra.run.dir=run")
    with h5py.File("run/record.h5", "r"), pytest.raises(RecordError, match="is open in this program already"):
        open_record("run")
    with open("run/record.h5", "rb") as held:  # noqa: PTH123
        fcntl.flock(held, fcntl.LOCK_SH)  # as HDF5 does where a program reads
        code, _, err = command("train", "resume=run", "train.steps=6")
        assert (code, err.splitlines(keepends=True)[-1]) == (
            2, "neuralmech: run/record.h5 is open in another program; close it there (a notebook, a viewer)\n"
        )  # fmt: skip
    code = "import h5py; f = h5py.File('run/record.h5', 'r+', libver='latest'); print(1, flush=True); input()"
    before = Path("run/record.h5").read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "1\n"
        held = Path("run/record.h5").read_bytes()
        refused(command("train", "resume=run", "train.steps=6"), "run/record.h5 is open in another program; close it")
        assert Path("run/record.h5").read_bytes() == held != before  # what marks it as open is no damage to be mended
        other.communicate("\n")
    assert command("train", "resume=run", "train.steps=6")[0] == 0


def test_a_job_that_the_system_does_not_let_us_read_keeps_nobody_from_the_others(command, tmp_path, monkeypatch):
    command("train", *QUICK, "-m", "seed=0,1", "hydra.sweep.dir=sweep")
    real = os.listdir, os.scandir

    def denied(path, which):
        if str(path).endswith("sweep/0"):
            raise PermissionError(13, "Permission denied", str(path))
        return real[which](path)

    monkeypatch.setattr(os, "listdir", lambda path=".": denied(path, 0))
    monkeypatch.setattr(os, "scandir", lambda path=".": denied(path, 1))
    found = {job.name: job for job in find_runs(tmp_path / "sweep").jobs}
    assert "sweep/0 cannot be read (Permission denied)" in found["0"].reason
    assert [job.name for job in find_runs(tmp_path / "sweep").readable] == ["1"]


def test_without_git_and_flock_a_run_is_trained(command, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setenv("PATH", "")
    code, _, err = command("train", *QUICK, "hydra.run.dir=run")
    assert code == 0
    assert err == (
        f"neuralmech: {os.path.abspath('run')} is on a file system without locks: "  # noqa: PTH100
        "see to it that no second process trains there\n"
    )


def test_runs_of_one_second_have_a_folder_each(command, tmp_path, monkeypatch):
    words = ["train", *QUICK, "hydra.run.dir=out/${now:%Y}", "hydra.sweep.dir=out/${now:%Y}"]
    for _ in range(2):
        assert command(*words)[0] == 0
    assert command(*words, "-m", "seed=0,1")[0] == 0
    year = min(p.name for p in (tmp_path / "out").iterdir())
    assert {p.name for p in (tmp_path / "out").iterdir()} == {year, f"{year}-2", f"{year}-3"}
    assert {p.name for p in (tmp_path / f"out/{year}-3").iterdir()} == {"0", "1", "multirun.yaml", "sweep.json"}
    refused(command(*words, "optim.lr=-1"), "must be a positive number")
    assert not (tmp_path / f"out/{year}-4").exists()


def test_a_library_does_not_import_what_lies_in_the_working_directory(command, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # processes that later tests start get it as it was
    (tmp_path / "z3").mkdir()
    (tmp_path / "own_helper.py").write_text("COUNT = 400\n")
    (tmp_path / "beside_z3.py").write_text(
        "import torch\n\ndef make():\n    from own_helper import COUNT\n    x = torch.randn(COUNT, 5)\n"
        "    y = torch.arange(COUNT) % 3\n    return x, y, x, y\n"
    )
    words = ["model=mlp", "data=custom", "data._target_=beside_z3.make"]
    assert command("symmetries", *words)[::2] == (0, "")
    (tmp_path / "colorsys.py").write_text("def make():\n    pass\n")
    refused(command("symmetries", *words[:2], "data._target_=colorsys.make"), "colorsys.py has the name of a module")


def test_a_compiler_cache_that_cannot_be_used_is_done_without(monkeypatch):
    made = jit.jit(jit.EXACT)(lambda x: x + 1)

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    for name in ("load_overload", "save_overload"):
        monkeypatch.setattr(made._cache._kept, name, denied)
    assert made(1) == 2


def test_a_terminal_without_the_letters_is_no_traceback():
    code = "import sys; from neuralmech.cli.entry import main\ntry: main(['--help'])\nfinally: print('η–θ')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert done.stdout.endswith(b"lr-theta\n")


def test_an_inductor_cache_that_cannot_be_used_is_no_fault_of_the_model(tmp_path):
    words = ["symmetries", "model=mlp", "device=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "neuralmech", *words], env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": "/dev/null/x"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 2)
    assert done.returncode == 0 or done.stderr.startswith("neuralmech: /dev/null/x cannot be used (Not a directory): ")
