import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from neuralmech.record import SCHEMA_VERSION, RecordError, RecordWriter, open_record
from neuralmech.record.schema import SIGNALS, STEP_COLUMNS, FamilyLayout

LAYOUT = {"scale": FamilyLayout(["a", "a", "b -> c"], [0, 1, 0], SIGNALS, translation=False)}


def block(start, rows, seed=0):
    rng = np.random.default_rng(seed + start)
    steps = {name: np.arange(start, start + rows).astype(dtype) for name, dtype in STEP_COLUMNS.items()}
    return steps, {"scale": {s: rng.normal(size=(rows, 3)) for s in SIGNALS}}


def write(folder, blocks=2, rows=5, close=True):
    record = RecordWriter(folder, {"config": "optim:\n  lr: 0.1\n", "seed": 3, "versions": {"torch": "x"}}, LAYOUT, 5)
    for i in range(blocks):
        record.append(*block(i * rows, rows))
    record.append_evaluation(10, 0.5, 0.75)
    if close:
        record.close()
    return record


def test_what_is_written_is_read(tmp_path):
    write(tmp_path)
    with open_record(tmp_path) as r:
        assert (r.rows, r.status, r.families) == (10, "complete", ("scale",))
        assert r.config == {"optim": {"lr": 0.1}}
        assert r.provenance["versions"] == {"torch": "x"}
        charges = r.charges("scale")
        assert len(charges) == 3
        expected = np.concatenate([block(k, 5)[1]["scale"]["residual"] for k in (0, 5)])
        np.testing.assert_array_equal(charges.residual[:], expected)
        np.testing.assert_array_equal(charges.residual[-1], expected[-1])
        np.testing.assert_array_equal(charges.residual[2:9:3, 1], expected[2:9:3, 1])
        assert charges.index.to_dict("list") == {"site": ["a", "a", "b -> c"], "channel": [0, 1, 0]}
        assert list(charges.to_pandas().columns) == [("a", 0), ("a", 1), ("b -> c", 0)]
        assert r.evaluation().to_dict("list") == {"step": [10], "loss": [0.5], "accuracy": [0.75]}
        assert r.steps_frame()["step"].tolist() == list(range(10))


def test_what_was_raised_is_the_status_cut_between_two_characters(tmp_path):
    """Its place in the file is 256 bytes, so that it can be written over."""
    with pytest.raises(ValueError, match="é"), RecordWriter(tmp_path, {}, {}):
        raise ValueError("é" * 300)
    with open_record(tmp_path) as r:
        assert r.status == "stopped: ValueError: " + "é" * ((256 - len("stopped: ValueError: ")) // 2)


def test_rows_behind_committed_do_not_exist(tmp_path):
    write(tmp_path)
    with h5py.File(tmp_path / "record.h5", "a") as f:
        f["committed"][()] = 7
    with open_record(tmp_path) as r:
        assert r.charges("scale").value.shape == (7, 3)
        assert r.charges("scale").value[:].shape == (7, 3)
        assert r.charges("scale").value[5:100].shape == (2, 3)
        assert len(r.steps()["step"]) == 7
        with pytest.raises(IndexError, match="7 committed rows"):
            r.charges("scale").value[8]


def test_what_is_known_of_all_rows_follows_a_cut(tmp_path):
    record = RecordWriter(tmp_path, {"config": "{}"}, LAYOUT, 5)
    for start in (0, 20):  # a gap of 15 steps, and momentum behind it only
        steps, charges = block(start, 5)
        record.append(
            {
                **steps,
                "momentum": np.full(5, float(start)),
                "nesterov": np.zeros(5, "int8"),
                "segment": np.zeros(5, "int64"),
            },
            charges,
        )
    record.close()
    with open_record(tmp_path) as r:
        assert r.windows == (slice(0, 5), slice(5, 10))
        assert r.in_use == {"momentum", "dampening"}
        r.cut(7)
        assert r.windows == (slice(0, 5), slice(5, 7))
        r.cut(5)
        assert r.windows == (slice(0, 5),)
        assert r.in_use == {"dampening"}


def test_readable_while_it_is_written(tmp_path):
    """From another process, as it would be."""
    record = write(tmp_path, close=False)
    code = "import sys; from neuralmech.record import open_record as o; r = o(sys.argv[1]); print(r.rows, r.status)"
    reader = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(reader, capture_output=True, text=True, check=True).stdout == "10 running\n"
    record.close()


def test_an_existing_record_is_not_overwritten(tmp_path):
    write(tmp_path)
    with pytest.raises(RecordError, match=r"exists already; choose another run folder"):
        write(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.unlink(), "does not exist"),
        (lambda p: p.write_bytes(b"hello"), "not a readable HDF5 file"),
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "not a readable HDF5 file"),
        (lambda p: p.write_bytes(b""), "not a readable HDF5 file"),
    ],
)
def test_a_spoilt_file_is_named(tmp_path, spoil, message):
    write(tmp_path)
    spoil(tmp_path / "record.h5")
    with pytest.raises(RecordError, match=message):
        open_record(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.attrs.modify("schema_version", SCHEMA_VERSION + 1), "upgrade neuralmech"),
        (lambda f: f.attrs.modify("format", "something"), "no neuralmech record"),
        (lambda f: f["charges/scale/value"].resize(3, axis=0), "damaged"),
        (lambda f: f.__delitem__("steps/lr"), "damaged"),
        (lambda f: f["committed"].__setitem__((), -1), "damaged"),
    ],
)
def test_a_foreign_or_damaged_record_is_named(tmp_path, change, message):
    write(tmp_path)
    with h5py.File(tmp_path / "record.h5", "a") as f:
        change(f)
    with pytest.raises(RecordError, match=message):
        open_record(tmp_path)


WRITE_FOREVER = """
import sys; sys.path.insert(0, sys.argv[2])
from record_blocks import LAYOUT, block
from neuralmech.record import RecordWriter
record = RecordWriter(sys.argv[1], {"config": ""}, LAYOUT, 5)
k = 0
while True:
    record.append(*block(5 * k, 5)); k += 1
    if k == 3: print("go", flush=True)
"""


def test_a_kill_loses_nothing_committed(tmp_path):
    """kill -9 in the middle of writing, six times: every committed row is whole and right."""
    (tmp_path / "record_blocks.py").write_text(Path(__file__).read_text().partition("def write(")[0])
    for i in range(6):
        folder = tmp_path / str(i)
        folder.mkdir()
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOREVER, str(folder), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "go\n"
        time.sleep(0.01 * (i + 1))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with open_record(folder) as r:
            assert r.rows >= 15
            assert r.rows % 5 == 0
            for start in range(0, r.rows, 5):
                steps, charges = block(start, 5)
                np.testing.assert_array_equal(r.steps(start, start + 5)["step"], steps["step"])
                for name, values in charges["scale"].items():
                    np.testing.assert_array_equal(getattr(r.charges("scale"), name)[start : start + 5], values)


def test_reading_while_a_process_writes_gives_whole_rows(tmp_path):
    """Blocks as fast as a quick run makes them; every value that is read is the one that was written."""
    (tmp_path / "record_blocks.py").write_text(Path(__file__).read_text().partition("def write(")[0])
    folder = tmp_path / "run"
    folder.mkdir()
    pace = WRITE_FOREVER.replace("k += 1", "k += 1; time.sleep(0.1)").replace("import sys;", "import sys, time;")
    child = subprocess.Popen(
        [sys.executable, "-c", pace, str(folder), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "go\n"
        seen = set()
        end = time.monotonic() + 20
        while len(seen) < 6 and time.monotonic() < end:
            with open_record(folder) as r:
                assert r.status == "running"
                seen.add(r.rows)
                last = r.rows - 5
                for name, values in block(last, 5)[1]["scale"].items():
                    np.testing.assert_array_equal(getattr(r.charges("scale"), name)[last:], values)
        assert len(seen) == 6
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.parametrize("size", [500, 4096, 9000])
def test_a_disk_that_is_full_from_the_start_is_named(tmp_path, size):
    """HDF5 would crash; nothing is left of the file."""
    from image_files import limited_files  # not above, which children run too

    with limited_files(size), pytest.raises(OSError, match="File too large") as caught:
        write(tmp_path)
    assert caught.value.filename == str(tmp_path / "record.h5")
    assert not list(tmp_path.iterdir())
