"""Compiled steps and CUDA graphs take the same steps as plain calls."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conftest import config
from neuralmech.charges.forms import Forms
from neuralmech.charges.reference import Reference
from neuralmech.errors import RunError, UserError
from neuralmech.record import open_record
from neuralmech.record.schema import METRIC_SIGNALS
from neuralmech.training import execute, loop
from neuralmech.training.begin import begin
from neuralmech.training.loop import resume, train
from neuralmech.training.run import Run
from train_twins import assert_twins, contents, stopped

pytestmark = pytest.mark.usefixtures("found_once")

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten.is_nonzero.default, aten.item.default,
}  # fmt: skip


class Recorder(TorchDispatchMode):
    """Keeps every operation of the device with the tensors that it read and made."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, made in self.calls:
            now = func(*args, **kwargs)
            for place, value in zip(tree_leaves(made), tree_leaves(now), strict=True):
                if isinstance(place, torch.Tensor):
                    place.copy_(value)


class Graph:
    """A CUDA graph on the CPU: operations are repeated on the same tensors, and no Python runs in between.

    Capturing takes the step, which a CUDA graph does not, so the first replay is left out.
    """

    def __init__(self, device):
        self.captured = []

    def warm_up(self, work):
        work()

    def __call__(self, work):
        recorder = Recorder()
        with recorder:
            work()
        self.captured.append(recorder)
        is_first = True

        def replay():
            nonlocal is_first
            if not is_first:
                recorder.replay()
            is_first = False

        return replay


@pytest.fixture
def graphs(monkeypatch):
    """Runs with train.cuda_graph on the CPU; charges by operations of torch, as on a GPU."""
    made = []

    def graph(device):
        made.append(Graph(device))
        return made[-1]

    real = Forms.__init__
    monkeypatch.setattr(Forms, "__init__", lambda *args, **kwargs: real(*args, **{**kwargs, "make": Reference}))
    monkeypatch.setattr("neuralmech.training.run.CudaCapture", graph)
    monkeypatch.setattr("neuralmech.training.begin.check_execution", lambda *_: None)
    return made


COSINE = {"lr": 0.125, "weight_decay": 0.01, "schedule": {"name": "cosine", "warmup": 5}}
SGD = {**COSINE, "momentum": 0.9}
FP16 = {"precision": "fp16", "loss_scale": 2.0**40}
CASES = {
    "sgd": ({"optim": SGD}, 1),
    "nesterov": ({"optim": {**SGD, "nesterov": True}}, 1),
    "sgdw": ({"optim": {**SGD, "name": "sgdw"}}, 1),
    "adamw": ({"optim": {**COSINE, "name": "adamw"}}, 1),
    "fp16": ({"optim": SGD, "train": FP16}, 1),
    "fp16 sgdw": ({"optim": {**SGD, "name": "sgdw"}, "train": FP16}, 1),
    "every third": ({"optim": SGD, "track": {"every": 3}}, 2),
    "site sums": ({"optim": SGD, "track": {"charges": "site"}}, 1),
    "batch norm": ({"optim": SGD, "model": {"name": "mlp", "width": 6, "depth": 2, "norm": "batch"}}, 1),
    "matrices": (
        {"optim": SGD, "model": {"name": "mlp", "width": 6, "depth": 2, "activation": "none"}, "track": {"norms": 3}},
        2,
    ),
}


@pytest.mark.parametrize(("options", "count"), CASES.values(), ids=CASES)
def test_replayed_steps_are_the_plain_ones(run, graphs, monkeypatch, options, count):
    """Bit for bit, once η is the float32 number that a graph reads.

    A graph takes the root of 1 − β₂^t on the device; on a CPU that is MKL's, which may be off by the last bit.
    """
    monkeypatch.setattr(execute.Plain, "rate", lambda self, lr: float(np.float32(lr)))
    plain = run(**options)
    assert not graphs
    replayed = run(**{**options, "train": {**options.get("train", {}), "cuda_graph": True}})
    [graph] = graphs
    assert len(graph.captured) == count
    assert WAITING.isdisjoint(call[0] for recorder in graph.captured for call in recorder.calls)
    assert_twins(plain, replayed, 40, nearly=(*METRIC_SIGNALS, "rule_work"))


@pytest.mark.parametrize("train", [{}, {"precision": "bf16"}, FP16], ids=str)
def test_a_plain_step_asks_for_no_number(graphs, train):
    """What would wait for a GPU: reading a number off it, or finding out how many elements a mask has."""
    made = begin(config(optim=SGD, train=train))
    with Recorder() as recorder:
        for _ in range(5):
            loop.take_step(made, *made.batches(made.step))
    assert len(recorder.calls) > 100
    assert WAITING.isdisjoint(call[0] for call in recorder.calls)
    with recorder:
        recorder.calls[0][3].sum().item()
    assert not WAITING.isdisjoint(call[0] for call in recorder.calls)


def test_a_replayed_run_can_be_resumed(run, graphs, tmp_path, monkeypatch):
    checkpoint = {"every": 10, "minutes": 0}
    options = {"optim": SGD, "train": {"cuda_graph": True, "checkpoint": checkpoint, **FP16}, "track": {"block": 7}}
    folder = stopped(tmp_path, monkeypatch, 25, options)
    resume(folder, {})
    assert_twins(folder, run(**options), 40)


def test_a_replayed_run_can_be_resumed_plainly(run, graphs, tmp_path, monkeypatch):
    options = {"optim": SGD, "train": {"cuda_graph": True, "checkpoint": {"every": 10, "minutes": 0}}}
    folder = stopped(tmp_path, monkeypatch, 25, options)
    count = len(graphs)
    resume(folder, {"train.cuda_graph": False})
    assert len(graphs) == count
    a, b = contents(folder), contents(run(**options))
    # from step 20 on η is not rounded to float32
    np.testing.assert_allclose(a["rescale/value"], b["rescale/value"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"train": {"cuda_graph": True}}, r"train.cuda_graph=true needs a GPU"),
        ({"train": {"cuda_graph": True}, "track": {"noise": 1}}, r"track.noise measures more than a CUDA graph holds"),
        (
            {"train": {"cuda_graph": True}, "optim": {"weight_decay_schedule": {"name": "cosine"}}},
            r"optim.weight_decay_schedule changes what a CUDA graph has fixed",
        ),
    ],
)
def test_what_a_graph_cannot_do_is_refused(parts, text, tmp_path):
    with pytest.raises(UserError, match=text):
        train(config(**parts), tmp_path)
    assert not list(tmp_path.iterdir())


def test_compiling_without_a_compiler_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"train.compile=true needs a C\+\+ compiler and no-such-compiler is not there"):
        train(config(train={"compile": True}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_compiled_says_so(monkeypatch):
    from torch._dynamo.exc import InternalTorchDynamoError

    def broken(*_):
        raise InternalTorchDynamoError("no rule for this\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda function: broken)
    with pytest.raises(RunError, match=r"cannot compile this model \(no rule for this\); use compile=false$"):
        execute.compiled(lambda *_: torch.zeros(()))(torch.nn.Identity(), torch.zeros(1), torch.zeros(1))


@pytest.mark.slow  # compiling takes 5 to 25 s on two cores
@pytest.mark.parametrize(
    ("precision", "bound"),
    [("fp64", 1e-13), ("fp32", 2e-6), ("bf16", 3e-2)],  # sums in another order; roundings of products in bf16 flip
)
def test_compiled_steps_give_the_same_charges(run, precision, bound):
    options = {"optim": {**SGD, "lr": 0.1}, "train": {"precision": precision}}
    plain, made = run(**options), run(**{**options, "train": {"precision": precision, "compile": True}})
    with open_record(plain) as a, open_record(made) as b:
        for family in a.families:
            x, y = a.charges(family).value[:], b.charges(family).value[:]
            assert np.abs(x - y).max() <= bound * np.sqrt(np.mean(x**2))


def gpu(options):
    return {**options, "device": "cuda"}


@cuda
@pytest.mark.parametrize("options", [c for c, _ in CASES.values()], ids=CASES)
def test_graphs_on_a_gpu_give_the_same_charges(run, options):
    """The same kernels in the same order: the bound leaves room for a library that chooses another one."""
    plain = run(**gpu(options))
    replayed = run(**gpu({**options, "train": {**options.get("train", {}), "cuda_graph": True}}))
    with open_record(plain) as a, open_record(replayed) as b:
        assert np.array_equal(a.column("skipped"), b.column("skipped"))
        for family in a.families:
            x, y = a.charges(family).value[:], b.charges(family).value[:]
            assert np.abs(x - y).max() <= 1e-5 * np.sqrt(np.mean(x**2))


@cuda
@pytest.mark.parametrize("train", [{}, {"precision": "bf16"}, FP16, {"cuda_graph": True}], ids=str)
def test_a_step_never_waits_for_the_gpu(train):
    """After the first steps, which allocate and capture, and within an epoch."""
    made: Run = begin(config(**gpu({"optim": SGD, "train": train, "data": {"size": 640}})))
    for _ in range(5):
        loop.take_step(made, *made.batches(made.step))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            loop.take_step(made, *made.batches(made.step))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@cuda
def test_tf32_is_close_to_float32(run):
    a, b = (contents(run(**gpu({"optim": SGD, "train": {"precision": p}}))) for p in ("fp32", "tf32"))
    scale = np.sqrt(np.mean(a["rescale/value"] ** 2))
    assert np.abs(a["rescale/value"] - b["rescale/value"]).max() <= 3e-3 * scale  # eleven bits in every product


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])
def test_a_loss_in_a_replayed_step_that_is_not_recorded_ends_the_run(tmp_path, request, device):
    """The same step as call by call, after the first few, which are not replayed."""
    if device == "cpu":
        request.getfixturevalue("graphs")
    options = {
        "model": {"name": "mlp", "width": 6, "depth": 2, "activation": "squared"},
        "optim": {"name": "sgdw", "lr": 0.1, "schedule": {"name": "step", "step_size": 10, "gamma": 100.0}},
        "track": {"steps": [[0, 1]]},
        "device": device,
    }
    said = []
    for graph in (False, True):
        folder = tmp_path / str(graph)
        folder.mkdir()
        with pytest.raises(RunError, match=r"is not finite at step \d+; .* holds the 1 rows before it") as caught:
            train(config(**options, train={"cuda_graph": graph, "eval_every": 30}), folder)
        said.append(int(str(caught.value).partition("step ")[2].partition(";")[0]))
    assert said[0] == said[1] > 6
