"""Fixtures: short runs with the real training loop."""

import os

for library in ("OMP", "OPENBLAS", "MKL"):  # the nets here are too small for more than one thread
    os.environ[f"{library}_NUM_THREADS"] = "1"
os.environ["COLUMNS"] = "120"  # tables as on a wide terminal

import gc
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

gc.disable()  # while tests are collected: it would go through torch's objects again and again, and find nothing
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell runs us in the background; what we start must hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # so must it what nohup keeps from us
    signal.signal(signal.SIGHUP, lambda *_: None)


os.fsync = lambda _: None  # what outlives a power cut no test can see; it is half the time of a run with checkpoints


def pytest_collection_finish():
    gc.freeze()  # torch's two million objects stay: a full collection takes 0.2 s, and tracing asks for many
    gc.enable()
    quicken_export()


def quicken_export():
    """Take half off each export, most of the time of discovery's tests: what it repeats, it need not.

    It makes the type ``Callable[P, T]`` anew for each of a thousand operations, looks up those that are implicit, which
    are other ones only where a library has brought its own since, and gives each of them some twenty kernels, the same
    ones every time.
    """
    import typing

    import torch._ops
    from torch.export import exported_program

    torch._ops.Callable = typing.Callable  # remembers what it was subscripted with, unlike that of collections.abc
    collect, known = exported_program._collect_all_valid_cia_ops, {}

    def collect_once():
        count = len(torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd"))
        if count not in known:
            known[count] = collect()
        return known[count]

    exported_program._collect_all_valid_cia_ops = collect_once
    exported_program._override_composite_implicit_decomp = _overridden(
        exported_program._override_composite_implicit_decomp
    )


def _overridden(override):
    """PyTorch's context in which operations decompose otherwise, with the kernels that it made the first time."""
    from torch._subclasses import fake_impls

    made = {}

    @contextmanager
    def overridden(decompositions):
        key, before = frozenset(decompositions.items()), {op: dict(op.py_kernels) for op in decompositions}
        if key not in made or made[key][0] != before:
            with override(decompositions):
                pass  # the first time it leaves fewer rules for fake tensors than it found
            with override(decompositions):
                rules = fake_impls.op_implementations_dict
                made[key] = before, {op: (dict(op.py_kernels), rules[op]) for op in decompositions}
        try:
            for op, (kernels, rule) in made[key][1].items():
                _replace(op, kernels)
                if op not in fake_impls.op_implementations_dict:
                    fake_impls.register_op_impl(op)(rule)
            yield
        finally:
            for op, kernels in before.items():
                _replace(op, kernels)
                fake_impls._deregister_op_impl(op)

    return overridden


def _replace(op, kernels):
    op.py_kernels.clear()
    op.py_kernels.update(kernels)
    op._dispatch_cache.clear()


def pytest_unconfigure():
    gc.unfreeze()


def config(**parts):
    from neuralmech.config import resolve

    base = {
        "model": {"name": "mlp", "width": 6, "depth": 2},
        "data": {"name": "synthetic", "shape": [5], "classes": 3, "size": 64, "batch_size": 8},
        "optim": {"lr": 0.1},
        "track": {},
        "train": {"steps": 40, "eval_every": 0},
        "device": "cpu",
    }
    for key, values in parts.items():
        extends = isinstance(values, dict) and "name" not in values
        base[key] = {**base[key], **values} if extends else values
    return resolve(base)


def record(folder, value, signals=None, given=None, **columns):
    """A hand-made record of scale charges at sites "a" (all but the last) and "b", opened for reading."""
    import numpy as np

    from neuralmech.record import RecordWriter, open_record
    from neuralmech.record.schema import SIGNALS, STEP_COLUMNS, FamilyLayout

    signals = signals or SIGNALS
    rows = len(value)
    steps = {n: np.zeros(rows, dtype=d) for n, d in STEP_COLUMNS.items()}
    steps["step"], steps["lr"] = np.arange(rows), np.full(rows, 0.1)
    steps["time"] = 0.1 * np.arange(rows)
    steps["batch_size"][:] = 8
    steps |= {k: np.full(rows, v).astype(STEP_COLUMNS[k]) for k, v in columns.items()}
    sites = ["a"] * (value.shape[1] - 1) + ["b"]
    layout = {"scale": FamilyLayout(sites, range(len(sites)), signals, translation=False)}
    with RecordWriter(folder, {"config": "{}"}, layout) as writer:
        writer.append(steps, {"scale": dict.fromkeys(signals, 0 * value) | {"value": value, **(given or {})}})
    return open_record(folder)


@pytest.fixture
def flip():
    """Damage the chunk of a record's dataset that has a row."""
    import h5py

    def damage(record: Path, dataset: str, row: int = 0) -> None:
        with h5py.File(record) as file:
            place = (row, *[0] * (file[dataset].ndim - 1))
            where = file[dataset].id.get_chunk_info_by_coord(place).byte_offset
        content = bytearray(record.read_bytes())
        content[where + 8] ^= 1
        record.write_bytes(content)

    return damage


FOUND = {}


@pytest.fixture
def found_once(monkeypatch):
    """Find the symmetries of each of our models once in a process: for tests of what comes after."""
    from neuralmech.training import setup

    build, find = setup.build_model, setup.find_symmetries

    def build_named(options, *data, **more):
        model = build(options, *data, **more)
        if options.name != "_target_":
            model.made_of = repr((options, data, more))
        return model

    def find_anew(model, inputs, loss, *rest, **more):
        shapes = [(name, p.dtype, p.device, p.requires_grad) for name, p in model.named_parameters()]
        key = repr((getattr(model, "made_of", "at 0x"), shapes, inputs.dtype, inputs.shape, loss))
        if "at 0x" in key:  # code of a test's own may change behind the same name
            return find(model, inputs, loss, *rest, **more)
        if key not in FOUND:
            FOUND[key] = find(model, inputs, loss, *rest, **more)
        return FOUND[key]

    monkeypatch.setattr(setup, "build_model", build_named)
    monkeypatch.setattr(setup, "find_symmetries", find_anew)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Train with some options changed, once for all tests of a module that only read the run; returns its folder."""
    from neuralmech.training.loop import train

    folders = {}

    def start(**parts) -> Path:
        if repr(parts) not in folders:
            folder = tmp_path_factory.mktemp("finished")
            train(config(**parts), folder)
            folders[repr(parts)] = folder
        return folders[repr(parts)]

    return start


@pytest.fixture
def run(tmp_path):
    """Train with some options changed; returns the run folder."""
    from neuralmech.training.loop import train

    count = iter(range(1000))

    def start(**parts) -> Path:
        folder = tmp_path / f"run{next(count)}"
        folder.mkdir()
        train(config(**parts), folder)
        return folder

    return start
