"""Are two runs the same, bit for bit? And: runs in processes of their own that can be killed."""

import multiprocessing
import os
import sys

import numpy as np
import pytest
import torch

from conftest import config
from neuralmech.record import open_record
from neuralmech.training import loop
from neuralmech.training.checkpoint import path_of, read_checkpoint
from neuralmech.training.process import Interrupted
from neuralmech.training.rule import LearningRule


def contents(folder):
    with open_record(folder) as r:
        out = {f"steps/{k}": v for k, v in r.steps().items()}
        for family in r.families:
            charges = r.charges(family)
            out |= {f"{family}/{s}": getattr(charges, s)[:] for s in charges.signals}
            if charges.norm_sites:
                out[f"{family}/frobenius"] = charges.frobenius[:]
        if (norms := r.norms()) is not None:
            out |= {f"norms/{of}": getattr(norms, of)[:] for of in norms.of}
        return out | {f"evaluation/{k}": v.to_numpy() for k, v in r.evaluation().items()} | {"status": r.status}


def parameters(folder, step):
    return read_checkpoint(path_of(folder / "checkpoints", step))["model"]


def stop_at(monkeypatch, step, error=SystemExit):
    """Make the loop die at the start of a step, like a process that ends without a word."""
    real = LearningRule.row

    def die(rule, k, *rest):
        if k == step:
            raise error
        return real(rule, k, *rest)

    monkeypatch.setattr(LearningRule, "row", die)


def stopped(tmp_path, monkeypatch, step, options, error=SystemExit):
    folder = tmp_path / "stopped"
    folder.mkdir()
    with monkeypatch.context() as patch:
        stop_at(patch, step, error)
        with pytest.raises((error, Interrupted)):
            loop.train(config(**options), folder)
    return folder


def assert_twins(first, second, step, nearly=()):
    """The same parameters and the same record; signals that are `nearly` the same may differ in the last bits."""
    a, b = contents(first), contents(second)
    assert a.keys() == b.keys()
    for name in a:
        if name.rpartition("/")[2] in nearly:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-14, atol=1e-16, err_msg=name)
        else:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)  # NaN where a norm was not measured
    p, q = parameters(first, step), parameters(second, step)
    assert [k for k in p if not torch.equal(p[k], q[k])] == []


def assert_alike(first, second, bound):
    """Records that agree up to so much of each dataset's RMS: what is summed in another order rounds differently.

    Of what a symmetry makes zero, rounding is all that there is; it is small beside the charges.
    """
    a, b = contents(first), contents(second)
    assert a.keys() == b.keys()
    for name in a.keys() - {"status"}:
        family, _, signal = name.rpartition("/")
        sizes = [_size(a[name])]
        if signal == "residual" or family == "translation":
            sizes.append(_size(a[f"{family}/value"]))
        np.testing.assert_allclose(b[name], a[name], rtol=0, atol=bound * max(sizes), err_msg=name)


def _size(values):
    return np.sqrt(np.nanmean(np.square(np.asarray(values, dtype=float))))


def train_there(options, folder):
    _exit_as_the_command_line(lambda: loop.train(config(**options), folder))


def resume_there(folder):
    _exit_as_the_command_line(lambda: loop.resume(folder, {}))


def _exit_as_the_command_line(task):
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    try:
        task()
    except KeyboardInterrupt as error:
        os._exit(128 + error.signal)


def in_process(task, *arguments):
    """Start a task in a process that a server with torch in memory forks: many can be killed in little time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neuralmech.training.loop", "torch.export"])
    process = context.Process(target=task, args=arguments)
    process.start()
    return process
