"""Recording less of the time and fewer signals: laws start again in every window, and say what they lack."""

import numpy as np
import pytest

from conftest import config
from neuralmech.compare.measure.accounts import budget_table
from neuralmech.compare.measure.errors import compare_family
from neuralmech.compare.measure.inputs import circumstances, hyperparameters, stretches
from neuralmech.errors import UserError
from neuralmech.laws.discrete import DiscreteBroken
from neuralmech.laws.integration import Integration
from neuralmech.record import open_record
from neuralmech.training.loop import train

pytestmark = pytest.mark.usefixtures("found_once")

EXACT = DiscreteBroken()

MODEL = {"name": "mlp", "width": 6, "depth": 3, "norm": "batch"}
OPTIMIZERS = {
    "sgd": {"momentum": 0.9},
    "plain": {},
    "dampened": {"momentum": 0.8, "dampening": 0.3},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "sgdw": {"name": "sgdw", "momentum": 0.9},
}
WINDOWS = [[0, 6], [9, 10], [14, 30]]
STEPS = [*range(6), 9, *range(14, 30)]


@pytest.fixture(scope="module", params=OPTIMIZERS)
def records(request, tmp_path_factory):
    """The same run recorded whole and in windows."""
    optim = {"lr": 0.05, "weight_decay": 1e-2, **OPTIMIZERS[request.param]}
    folders = [tmp_path_factory.mktemp(name) for name in ("whole", "windows")]
    for folder, track in zip(folders, ({}, {"steps": WINDOWS}), strict=True):
        options = {"model": MODEL, "optim": optim, "track": track, "train": {"precision": "fp64", "steps": 40}}
        train(config(**options), folder)
    return [open_record(folder) for folder in folders]


def test_windows_are_rows_of_the_whole_and_the_exact_law_starts_again_in_each(records):
    whole, part = records
    assert part.column("step").tolist() == STEPS
    assert [(w.start, w.stop) for w in part.windows] == [(0, 6), (6, 7), (7, 23)]
    for family in whole.families:
        assert np.array_equal(whole.charges(family).value[:][STEPS], part.charges(family).value[:])
        for block in (1, 4, 1000):
            table = compare_family(part, family, block=block).table.set_index("law")
            assert table.loc[["discrete_broken"], "error"].max() < 1e-12
            # a law that restarts from measured charges and their velocity follows them for as long as before
            assert table.loc[["modified_flow"], "error"].max() < 2e-2


def test_the_buffer_at_a_window_is_the_one_that_the_run_had(records):
    """P = θᵀSb, from the window's first two rows, against the law integrated from the first step on."""
    whole, part = records
    if not whole.column("momentum").any():
        pytest.skip("no buffer")
    for family in whole.families:
        states = [_states(record, family) for record in (whole, part)]
        momentum = np.concatenate([s[:, 1] for s in states[0]])[14]
        assert np.allclose(states[1][-1][0, 1], momentum, rtol=1e-9, atol=1e-11)


def _states(record, family):
    charges = record.charges(family)
    signals = EXACT.signals(circumstances(record, charges))
    exact, out = Integration(EXACT, translation=charges.is_translation, signals=signals), []
    for stretch in stretches(record, 1000):
        inputs = np.stack([getattr(charges, s)[stretch.rows] for s in signals], axis=1)
        h, value = hyperparameters(record, stretch), charges.value[stretch.rows.start]
        out.append(exact.states(h, value, inputs, stretch.following(charges)).copy())
    return out


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
def test_a_first_window_in_the_middle_of_the_run_has_a_buffer_too(run, optimizer):
    optim = {"lr": 0.05, "weight_decay": 1e-2, **OPTIMIZERS[optimizer]}
    folder = run(model=MODEL, optim=optim, train={"precision": "fp64"}, track={"steps": [[9, 30]]})
    with open_record(folder) as record:
        for family in record.families:
            assert compare_family(record, family).table.set_index("law").loc[["discrete_broken"], "error"].max() < 1e-12
            table = budget_table(record, family)
            assert (table["closure_error"][table["moved"] > 1e-12] < 1e-10).all()
            assert table["memory_before"].any()


def test_the_budget_of_windows_closes(records):
    whole, part = records
    momentum = bool(whole.column("momentum").any())
    for family in whole.families:
        table, full = budget_table(part, family), budget_table(whole, family)
        moved = table["moved"] > 1e-12
        assert (table["closure_error"][moved] < 1e-10).all()
        if family != "translation":  # decoupled decay leaves its buffer empty
            assert (table["memory_before"].abs() > 1e-9 * table["moved"]).any() == momentum
        assert (full["memory_before"] == 0).all()


def test_a_signal_that_was_left_out_is_named(run):
    with open_record(run(model=MODEL, track={"signals": ["drive_update"]})) as record:
        for family in record.families:
            charges = record.charges(family)
            assert set(charges.signals) == {"value", "drive_update"}
            table = compare_family(record, family).table.set_index("law")
            assert (table.loc["discrete_broken", "reason"] == "the record lacks residual").all()
            assert np.isfinite(table.loc[["discrete"], "error"]).all()


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ({"steps": []}, "must be windows"),
        ({"steps": [[3, 3]]}, "must be windows"),
        ({"steps": [[0, 5], [5, 9]]}, "must be windows"),
        ({"steps": [[0, 5, 6]]}, "must be windows"),
        ({"steps": 5}, "track.steps"),
        ({"signals": ["drive"]}, "track.signals=drive is unknown"),
        ({"signals": "value"}, "must be a list"),
    ],
)
def test_impossible_choices_are_refused(track, message):
    with pytest.raises(UserError, match=message):
        config(track=track)


def test_windows_after_the_end_are_refused(run):
    with pytest.raises(UserError, match=r"track\.steps leaves nothing to record of 40 steps"):
        run(track={"steps": [[100, 200]]})
