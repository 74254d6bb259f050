"""A run folder from somewhere else: it runs no code, fills no memory, writes nowhere but into analysis/."""

import random
import re
import resource
from importlib import import_module
from importlib.util import find_spec

import h5py
import numpy as np
import pytest

from neuralmech.compare.folder import analyze_folder
from neuralmech.compare.gather.options import Options
from neuralmech.errors import UserError
from neuralmech.record import RecordError, RecordWriter, open_record
from neuralmech.record.layout import index as table
from neuralmech.record.schema import EVALUATION_COLUMNS, SIGNALS, STEP_COLUMNS, FamilyLayout

HUGE = 10**12
LAYOUT = {"scale": FamilyLayout(["a", "a", "b -> c"], [0, 1, 0], SIGNALS, translation=False)}


@pytest.fixture
def folder(tmp_path):
    rng, run = np.random.default_rng(0), tmp_path / "run"
    run.mkdir()
    with RecordWriter(run, {"config": "optim:\n  lr: 0.1\n"}, LAYOUT, 5) as record:
        steps = {name: np.arange(20).astype(dtype) for name, dtype in STEP_COLUMNS.items()}
        steps |= {name: np.zeros(20) for name in ("momentum", "dampening", "weight_decay", "nesterov")}
        steps |= {"lr": np.full(20, 0.01), "time": 0.01 * np.arange(20)}
        record.append(steps, {"scale": {s: rng.normal(size=(20, 3)) for s in SIGNALS}})
        record.append_evaluation(20, 0.5, 0.5)
    return run


@pytest.fixture
def little_memory():
    """One gigabyte more than now, of which Arrow, where pandas keeps text if it is there, must not reserve all."""
    if find_spec("pyarrow"):
        pyarrow = import_module("pyarrow")
        pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    with open("/proc/self/statm") as file:  # noqa: PTH123
        now = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def claim_rows(f):
    for name in STEP_COLUMNS:
        f["steps"][name].resize(HUGE, axis=0)
    for dataset in f["charges/scale"].values():
        if dataset.name.endswith("index"):
            continue
        dataset.resize(HUGE, axis=0)
    f["committed"][()] = HUGE


def claim_columns(f):
    for signal in SIGNALS:
        del f["charges/scale"][signal]
        f["charges/scale"].create_dataset(signal, (20, 10**9), "f8", chunks=(20, 1000))
    del f["charges/scale/index"]
    f["charges/scale"].create_dataset("index", (10**9,), [("site", "S8"), ("channel", "i8")])


def claim_evaluations(f):
    for name in EVALUATION_COLUMNS:
        f["evaluation"][name].resize(HUGE, axis=0)
    f["evaluation/committed"][()] = HUGE


def replace(f, name, make):
    del f[name]
    make(f)


def compressed_bomb(f):
    del f["steps/loss"]
    f["steps"].create_dataset("loss", (1 << 29,), "f8", chunks=(1 << 28,), compression="lzf")


def deflated(f):
    """Zeros that take a thousandth of their room."""
    del f["charges/scale/value"]
    f["charges/scale"].create_dataset("value", data=np.zeros((20, 3)), chunks=(20, 3), compression="gzip")


def shared_bytes(f):
    """One chunk under many names."""
    for i in range(400):
        f["charges/scale"][f"copy{i}"] = f["charges/scale/value"]


HOSTILE = {
    "rows that are not there": claim_rows,
    "columns that are not there": claim_columns,
    "evaluations that are not there": claim_evaluations,
    "committed is huge": lambda f: replace(f, "committed", lambda f: f.create_dataset("committed", (HUGE,), "i8")),
    "committed is text": lambda f: replace(f, "committed", lambda f: f.create_dataset("committed", data="5")),
    "a giant chunk": compressed_bomb,
    "numbers that are deflated": deflated,
    "bytes that many claim": shared_bytes,
    "a seed that is an array": lambda f: f.attrs.__setitem__("seed", np.zeros(10)),
    "options that are a list": lambda f: f.attrs.__setitem__("config", "optim: [1]"),
    "options that are a number": lambda f: f.attrs.__setitem__("config", "track: 5"),
    "options that are a word": lambda f: f.attrs.__setitem__("config", "train: foo"),
    "options that are nothing": lambda f: f.attrs.__setitem__("config", "model: null"),
    "config with a date that is none": lambda f: f.attrs.__setitem__("config", "a: !!timestamp x"),
    "text for numbers": lambda f: replace(f, "steps/lr", lambda f: f.create_dataset("steps/lr", data=[b"x"] * 20)),
    "an external link": lambda f: replace(f, "steps", lambda f: f.__setitem__("steps", h5py.ExternalLink("x.h5", "/"))),
    "a soft link": lambda f: replace(f, "charges", lambda f: f.__setitem__("charges", h5py.SoftLink("/"))),
    "external storage": lambda f: replace(
        f, "steps/loss", lambda f: f.create_dataset("steps/loss", (20,), "f8", external=[("/etc/passwd", 0, 160)])
    ),
    "a family that is a path": lambda f: (
        f.create_group("charges").move("scale", "..") if "charges" not in f else f["charges"].move("scale", ".. ..")
    ),
    "a group for a dataset": lambda f: replace(f, "steps/lr", lambda f: f.create_group("steps/lr")),
    "an index without sites": lambda f: replace(
        f, "charges/scale/index", lambda f: f.create_dataset("charges/scale/index", data=np.zeros(3))
    ),
    "config with a tag": lambda f: f.attrs.__setitem__("config", "a: !!python/object/apply:os.system ['touch ran']"),
    "config of aliases": lambda f: f.attrs.__setitem__(
        "config", "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(40))
    ),
    "config without an end": lambda f: f.attrs.__setitem__("config", "[" * 30_000),
    "a form that is an array": lambda f: f["charges/scale"].attrs.__setitem__("form", np.arange(3)),
    "a version that is text": lambda f: f.attrs.__setitem__("schema_version", "1"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_record_is_refused_in_one_line(folder, tmp_path, monkeypatch, little_memory, kind):
    monkeypatch.chdir(tmp_path)
    with h5py.File(folder / "record.h5", "a") as f:
        HOSTILE[kind](f)
    with pytest.raises(RecordError) as caught:
        analyze_folder(folder, Options(figures=False))
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["record.h5", "run"]


def test_names_are_text_and_nothing_else(folder, tmp_path):
    """HTML, paths, markup and terminal codes in site names and values."""
    names = ["../../etc/x", "<script>alert(1)</script>", "\x1b[2J[bold]|$\\frac$"]
    with h5py.File(folder / "record.h5", "a") as f:
        index = table({"site": names, "channel": [0, 1, 0]})
        del f["charges/scale/index"]
        f["charges/scale"].create_dataset("index", data=index)
        f.attrs["status"] = "<img src=x>\x1b[2J"
    found = analyze_folder(folder, Options())
    assert {p.name for p in folder.iterdir()} == {"record.h5", "analysis"}
    made = {p.name for p in (folder / "analysis").iterdir()} - {".made"}
    assert all(re.fullmatch(r"[a-z_]+\.(csv|md|tex|png|pdf|svg|html)", name) for name in made)
    for name in ("comparison.md", "budget.md", "comparison.tex", "report.html"):
        text = (folder / "analysis" / name).read_text()
        assert "\x1b" not in text
        if not name.endswith("tex"):  # in LaTeX < is a sign like others
            assert "<script>alert" not in text
            assert "<img src=x" not in text
            assert "&lt;script" in text
    assert set(found.comparison["site"]) == {names[0], names[1], names[2].replace("\x1b", "?")}


def test_an_analysis_folder_that_is_a_link_is_refused(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "analysis").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="analysis is a link to another place"):
        analyze_folder(folder, Options(figures=False))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_any_flipped_bit_of_the_file_is_named_or_harmless(folder):
    """Everything that can be read of 300 damaged files: a `RecordError` with the file's name, or a record."""
    path, random_bits = folder / "record.h5", random.Random(0)
    whole = path.read_bytes()
    errors = named = 0
    for _ in range(300):
        bit = random_bits.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            with open_record(folder) as r:
                for read in (r.readable_rows, r.evaluation, lambda r=r: (r.config, r.provenance, r.status)):
                    read()
                for charges in map(r.charges, r.families):
                    assert charges.index is not None
                    assert all(len(getattr(charges, s)[:]) == r.rows for s in charges.signals)
        except RecordError as error:
            errors += 1
            named += str(path) in str(error)
    assert 100 < errors < 300
    assert named == errors


def test_any_flipped_bit_of_a_chunk_is_named(folder):
    def chunks(file):
        for dataset in [*file["steps"].values(), *(file["charges/scale"][s] for s in SIGNALS)]:
            for i in range(dataset.id.get_num_chunks()):
                found = dataset.id.get_chunk_info(i)
                yield found.byte_offset, found.size

    def read():
        with open_record(folder) as r:
            return [*r.steps().values(), *(getattr(r.charges("scale"), s)[:] for s in SIGNALS)]

    path, rng = folder / "record.h5", random.Random(0)
    with h5py.File(path) as f:
        places = list(chunks(f))
    whole = path.read_bytes()
    read()
    for start, size in places:
        at, bit = start + rng.randrange(size), rng.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        with pytest.raises(RecordError, match=r"record.h5 is damaged in /"):
            read()


def test_zeros_that_lzf_made_small_are_read(tmp_path):
    """A network that does not move: its record is a hundredth of what it holds, and no bomb."""
    layout = {"scale": FamilyLayout(["a"] * 2000, range(2000), SIGNALS, translation=False)}
    with RecordWriter(tmp_path, {}, layout, 1000, compress=True) as record:
        steps = {name: np.zeros(2000, dtype) for name, dtype in STEP_COLUMNS.items()}
        record.append(steps, {"scale": {s: np.zeros((2000, 2000)) for s in SIGNALS}})
    with open_record(tmp_path) as r:
        assert 60 * r.path.stat().st_size < 4 * 8 * 2000**2
        assert not r.charges("scale").value[:].any()
