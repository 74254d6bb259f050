"""The budget closes, and each part is what a plain sum over the recorded steps gives."""

import numpy as np
import pytest

from neuralmech.compare.budget import ORIGINS, PARTS, budget_table, motion
from neuralmech.record import open_record

OPTIM = [
    {"lr": 0.1, "weight_decay": 5e-3, "momentum": 0.9},
    {"lr": 0.1, "weight_decay": 1e-2},
    {"lr": 0.05, "weight_decay": 5e-3, "momentum": 0.8, "dampening": 0.3},
    {"lr": 0.05, "weight_decay": 5e-3, "momentum": 0.8, "nesterov": True},
    {"lr": 0.1, "weight_decay": 5e-3, "momentum": 0.9, "schedule": {"name": "cosine", "warmup": 5}},
]


@pytest.mark.parametrize("optim", OPTIM, ids=str)
@pytest.mark.parametrize(("precision", "bound"), [("fp64", 1e-6), ("fp32", 1e-4)])
def test_the_budget_closes(run, optim, precision, bound):
    steps = 60 if precision == "fp64" else 400  # the motion must be well above the rounding of one step
    folder = run(
        optim=optim, train={"steps": steps, "precision": precision}, model={"name": "mlp", "width": 6, "norm": "batch"}
    )
    with open_record(folder) as record:
        for family in record.families:
            table = budget_table(record, family, block=17)
            assert (table["closure_error"] <= bound).all()
            parts = table[list(PARTS)].sum(axis=1) + table["closure"]
            np.testing.assert_allclose(parts, table["motion"], atol=1e-12 * table["moved"].max())
            np.testing.assert_allclose(table[list(ORIGINS)].sum(axis=1), table["momentum_memory"], atol=1e-12)


@pytest.mark.parametrize("block", [7, 1000])
def test_parts_are_sums_over_the_recorded_steps(run, block):
    """Against the measured charges at every step, and the buffer rebuilt from them; nothing integrated."""
    lr, wd, beta = 0.1, 1e-2, 0.9
    folder = run(optim={"lr": lr, "weight_decay": wd, "momentum": beta}, train={"steps": 50, "precision": "fp64"})
    with open_record(folder) as record:
        charges = record.charges("rescale")
        q, d, r = (getattr(charges, s)[:] for s in ("value", "drive_update", "residual"))
        found = motion(record, "rescale", block)
    buffers = dict.fromkeys(ORIGINS, np.zeros(q.shape[1]))
    memory = dict.fromkeys(ORIGINS, np.zeros(q.shape[1]))
    for k in range(len(q) - 1):
        for origin, forced in zip(ORIGINS, (wd * q[k], r[k], 0 * r[k], 0 * r[k]), strict=True):
            memory[origin] = memory[origin] - 2 * lr * beta * buffers[origin]
            buffers[origin] = beta * buffers[origin] + forced
        buffers["memory_discretisation"] = buffers["memory_discretisation"] - lr * d[k]
    expected = {
        "weight_decay": -2 * lr * wd * q[:-1].sum(axis=0),
        "discretisation": lr**2 * d[:-1].sum(axis=0),
        "symmetry_breaking": -2 * lr * r[:-1].sum(axis=0),
        **memory,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found.parts[name], value, rtol=1e-8, atol=1e-13, err_msg=name)
    assert np.abs(found.parts["momentum_memory"]).max() > 1e-3  # the test tests something
    np.testing.assert_allclose(found.measured, q[-1] - q[0])


def test_without_momentum_nothing_is_remembered(run):
    with open_record(run(optim={"lr": 0.1, "weight_decay": 1e-2})) as record:
        for family in record.families:
            assert (budget_table(record, family)["momentum_memory"] == 0).all()


def test_of_a_matrix_the_trace_is_accounted(run):
    folder = run(model={"name": "mlp", "width": 4, "depth": 2, "activation": "none"}, train={"precision": "fp64"})
    with open_record(folder) as record:
        charges = record.charges("linear")
        diagonal = (charges.index["channel"] == charges.index["partner"]).to_numpy()
        assert not diagonal.all()
        table = budget_table(record, "linear")
        trace = (charges.value[record.rows - 1] - charges.value[0])[diagonal].sum()
        assert table["motion"].sum() == pytest.approx(trace)
        assert (table["closure_error"] <= 1e-6).all()
