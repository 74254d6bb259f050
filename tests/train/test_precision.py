"""Less precise numbers: what is skipped is recorded as such, and the laws stand still over it."""

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import config
from neuralmech.compare.measure.errors import compare_family
from neuralmech.compare.measure.inputs import hyperparameters, stretches
from neuralmech.errors import UserError
from neuralmech.laws import LAWS
from neuralmech.laws.system import Hyperparameters
from neuralmech.record import RecordError, open_record
from neuralmech.training import loop
from neuralmech.training.begin import begin
from neuralmech.training.loop import resume, train
from train_twins import assert_twins, stopped

OVERFLOW = {"precision": "fp16", "loss_scale": 2.0**40}  # some 25 steps pass before gradients fit into fp16
SGD = {"momentum": 0.9, "weight_decay": 0.01}
OPTIMIZERS = {
    "sgd": SGD,
    "nesterov": {**SGD, "nesterov": True},
    "sgdw": {**SGD, "name": "sgdw"},
}


@pytest.mark.parametrize("optim", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_laws_stand_still_over_skipped_steps(run, optim):
    """fp16 breaks the symmetries by about 1e-3, so the law that takes the residual as an input is the exact one."""
    with open_record(run(optim=optim, train={**OVERFLOW, "steps": 200})) as r:
        skipped = np.flatnonzero(np.diff(r.column("skipped")))
        assert 20 < len(skipped) < 40
        assert np.isfinite(r.column("loss")).all()
        for family in r.families:
            charges = r.charges(family)
            for signal in set(charges.signals) - {"value", "drive_buffer"}:
                assert (getattr(charges, signal)[:][skipped] == 0).all()
            assert np.array_equal(charges.value[:][skipped], charges.value[:][skipped + 1])
            table = compare_family(r, family).table
            assert table.loc[table["law"] == "discrete_broken", "error"].max() <= 2e-5


def test_skipped_steps_between_rows_count(run):
    """Rows seven steps apart span as many updates as were taken between them."""
    options = {"weight_decay": 0.05}, {**OVERFLOW, "steps": 200}
    with open_record(run(optim=options[0], train=options[1], track={"every": 7})) as r:
        rows, skipped = r.column("step"), r.column("skipped")
        assert 20 < skipped[-1] < 40
        [stretch] = stretches(r, r.rows)
        assert hyperparameters(r, stretch).span[:-1].tolist() == (np.diff(rows) - np.diff(skipped)).tolist()
    with open_record(run(optim=options[0], train=options[1])) as every:
        assert np.array_equal(every.column("skipped")[::7], skipped)


def test_it_is_the_loop_that_people_write(run, tmp_path):
    """PyTorch's own GradScaler with one plain SGD over separate parameters, which waits to learn what to skip."""
    options = config(optim=SGD, train={**OVERFLOW, "steps": 60})
    made = begin(options)
    twin = begin(options).setup.model
    for p in twin.parameters():
        p.data, p.grad = p.data.clone(), None
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, **SGD)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    skipped = 0
    for step in range(60):
        x, y = made.batches(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            out = twin(x)
        scaler.scale(F.cross_entropy(out.double(), y)).backward()
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skipped += scaler.get_scale() < before
        loop.take_step(made, x, y)
    assert float(made.update.skipped) == skipped > 20
    for p, q in zip(twin.parameters(), made.setup.model.parameters(), strict=True):
        # the order of float32 roundings in the two optimisers, amplified by fp16 activations that round up or down
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


def test_the_recorded_gradient_is_not_scaled(run):
    with open_record(run(optim=SGD, train={**OVERFLOW, "steps": 60})) as r:
        first = int(np.flatnonzero(np.diff(r.column("skipped")) == 0)[0])  # θ is still the initial one
        measured = r.charges("rescale").drive_gradient[first]
    made = begin(config(optim=SGD, train={"steps": 60}))
    model, flat = made.setup.model, made.flat
    x, y = made.batches(first)
    F.cross_entropy(model(x).double(), y).backward()
    named = dict(model.named_parameters())
    assert set(flat.layout.offsets) == set(named)
    gradient = np.concatenate([p.grad.double().numpy().ravel() for p in named.values()])
    expected = made.setup.symmetries.generators()["rescale"] @ gradient**2
    np.testing.assert_allclose(measured, expected, rtol=0.01, atol=0.005 * np.abs(expected).max())  # fp16 activations


@pytest.mark.parametrize("step", [7, 45])
def test_resumed_while_steps_are_skipped_and_after(run, tmp_path, monkeypatch, step):
    checkpoint = {"every": 5, "minutes": 0, "keep": 2}
    options = {"optim": SGD, "train": {**OVERFLOW, "steps": 60, "checkpoint": checkpoint}, "track": {"block": 7}}
    folder = stopped(tmp_path, monkeypatch, step, options)
    resume(folder, {})
    assert_twins(folder, run(**options), 60)


def test_a_record_without_the_column_has_skipped_nothing(run, tmp_path, monkeypatch):
    options = {
        "train": {"steps": 60, "eval_every": 0, "checkpoint": {"every": 10, "minutes": 0}},
        "track": {"block": 7},
    }
    folder = stopped(tmp_path, monkeypatch, 33, options)
    with h5py.File(folder / "record.h5", "r+") as file:
        del file["steps/skipped"]
    with open_record(folder) as r:
        assert (r.column("skipped") == 0).all()
        assert r.readable_rows() == r.rows > 0
    resume(folder, {})
    assert_twins(folder, run(**options), 60)


@pytest.mark.parametrize("column", [[0, 2, 2, 2], [1, 0, 0, 0]])
def test_skipped_steps_that_do_not_add_up_are_damage(run, column):
    folder = run(train={"steps": 4})
    with h5py.File(folder / "record.h5", "r+") as file:
        file["steps/skipped"][:] = column
    with open_record(folder) as r, pytest.raises(RecordError, match="skipped steps do not add up"):
        compare_family(r, "rescale")


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_skipped_step_changes_no_law(law, linear):
    """Φ = 1, Γ = 0 where the span is 0, also between steps that were taken."""
    one = np.ones(3)
    h = Hyperparameters(
        lr=0.1 * one,
        momentum=0.9 * one,
        dampening=0 * one,
        weight_decay=0.01 * one,
        nesterov=np.zeros(3, dtype=bool),
        span=np.array([1.0, 0.0, 1.0]),
        first=np.array([True, False, False]),
        decoupled=np.zeros(3, dtype=bool),
        batch_size=np.full(3, 8),
        updates=np.array([0, 1, 1]),
    )
    phi, gamma = law.matrices(h, translation=linear)
    np.testing.assert_allclose(phi[1], np.eye(len(phi[1])), rtol=0, atol=1e-15)
    assert not gamma[1].any()


@pytest.mark.parametrize(
    ("precision", "bound"),
    # eight and eleven bits of mantissa in every matrix product, over 40 steps; the charges' RMS is the unit
    [("bf16", 3e-2), ("fp16", 3e-3)],
)
def test_charges_are_those_of_fp32_to_the_precision_of_the_products(run, precision, bound):
    train = {"steps": 40, "eval_every": 0}
    with (
        open_record(run(train=train)) as plain,
        open_record(run(train={**train, "precision": precision, "loss_scale": 256.0})) as other,
    ):
        for family in plain.families:
            a, b = plain.charges(family).value[:], other.charges(family).value[:]
            assert 1e-6 < np.abs(a - b).max() / np.sqrt(np.mean(a**2)) <= bound


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"train": {"precision": "fp16"}, "optim": {"momentum": 0.9, "dampening": 0.1}}, r"optim.dampening: .*bf16"),
        ({"train": {"precision": "fp16"}, "track": {"noise": 1}}, r"track.noise measures gradients .* not scaled"),
        ({"train": {"loss_scale": 0}}, r"train.loss_scale=0.* must be a positive number"),
        ({"train": {"precision": "fp8"}}, r"train.precision=fp8"),
    ],
)
def test_what_does_not_go_together_is_refused(parts, text):
    with pytest.raises(UserError, match=text):
        config(**parts)


def test_tf32_is_refused_where_there_is_none(tmp_path):
    with pytest.raises(UserError, match=r"train.precision=tf32 is for GPUs.*use fp32"):
        train(config(train={"precision": "tf32"}), tmp_path)
    assert not list(tmp_path.iterdir())
