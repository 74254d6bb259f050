from importlib.metadata import version
from time import sleep

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import config
from neuralmech.compare.measure.errors import compare_family
from neuralmech.data import TokensOptions, load_data
from neuralmech.errors import RunError, UserError
from neuralmech.record import RecordWriter, open_record
from neuralmech.training import loop
from neuralmech.training.kernels import choose_kernels
from neuralmech.training.loop import Interrupted, train
from neuralmech.training.rule import LearningRule


def contents(folder):
    with open_record(folder) as r:
        out = dict(r.steps())
        for family in r.families:
            out |= {f"{family}/{s}": getattr(r.charges(family), s)[:] for s in r.charges(family).signals}
        return out | {k: v.to_numpy() for k, v in r.evaluation().items()}


def test_same_seed_same_record_bit_for_bit(run):
    first, second, other = run(), run(), run(seed=1)
    a, b, c = contents(first), contents(second), contents(other)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not np.array_equal(a["rescale/value"], c["rescale/value"])


def test_a_run_says_once_that_it_waits_for_the_disk(run, monkeypatch, capsys):
    """Every block's writing waits until the next ones stand in line for it."""
    monkeypatch.setattr(loop, "SLOW_SECONDS", 0.0)
    append, lines = RecordWriter.append, []

    def slow(self, steps, charges):
        sleep(0.2)
        lines.append(len(steps["step"]))
        append(self, steps, charges)

    monkeypatch.setattr(RecordWriter, "append", slow)
    folder = run(track={"block": 4})
    err = capsys.readouterr().err
    assert err.count("the disk is slower than training") == 1
    assert sum(lines) == 40
    with open_record(folder) as r:
        assert r.rows == 40


def test_the_block_size_does_not_change_the_record(run):
    a, b = contents(run(track={"block": 7})), contents(run(track={"block": 256}))
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_a_record_says_what_ran(run):
    with open_record(run(optim={"lr": 0.05, "weight_decay": 0.01})) as r:
        assert r.config["optim"]["lr"] == 0.05
        assert r.provenance["versions"]["torch"] == version("torch")
        assert r.provenance["device"].startswith("cpu")
        steps = r.steps()
        np.testing.assert_allclose(steps["time"], 0.05 * np.arange(40), rtol=1e-12)
        assert set(steps["weight_decay"]) == {0.01}


def test_evaluation_follows_its_schedule(run):
    with open_record(run(train={"steps": 25, "eval_every": 10})) as r:
        assert r.evaluation()["step"].tolist() == [0, 10, 20, 25]


def test_every_and_families_choose_what_is_recorded(run):
    with open_record(run(track={"every": 3, "families": ["rescale"]})) as r:
        assert r.families == ("rescale",)
        assert r.steps()["step"].tolist() == list(range(0, 40, 3))


class Unordered(nn.Linear):
    """Writes to an entry twice, in no order that anybody says."""

    def forward(self, x):
        out = super().forward(x)
        return out + torch.zeros_like(out).put_(torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=x.dtype))


def test_a_deterministic_run_refuses_kernels_that_are_not(run, monkeypatch):
    monkeypatch.setattr("neuralmech.training.setup.build_model", lambda *_, **__: Unordered(5, 3))
    run()
    with pytest.raises(RunError, match=r"^put_ at .*test_loop.py:\d+ has no deterministic kernel; use train.determ"):
        run(train={"deterministic": True})
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("before", ["default", "warn", "error"])
def test_a_run_has_the_kernels_it_asks_for_whatever_was_chosen_before(before):
    try:
        for deterministic, mode in ((True, 2), (False, 0)):
            torch.set_deterministic_debug_mode(before)
            choose_kernels(deterministic=deterministic)
            assert torch.get_deterministic_debug_mode() == mode
    finally:
        torch.use_deterministic_algorithms(False)


def test_epochs_count_batches(run):
    with open_record(run(train={"steps": None, "epochs": 2})) as r:
        assert r.rows == 2 * (51 // 8)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_step_named(tmp_path):
    with pytest.raises(RunError, match=r"not finite at step \d+; .* holds the \d+ rows before it"):
        train(config(optim={"lr": 1e8}, train={"steps": 200}), tmp_path)
    with open_record(tmp_path) as r:
        assert 0 < r.rows < 200
        assert r.status == f"not finite at step {r.rows}"
        assert np.isfinite(r.steps()["loss"]).all()
        compare_family(r, "rescale")


def test_ctrl_c_leaves_a_readable_record(tmp_path, monkeypatch):
    real = LearningRule.row

    def press(optim, step, *rest):
        if step == 17:
            raise KeyboardInterrupt
        return real(optim, step, *rest)

    monkeypatch.setattr(LearningRule, "row", press)
    with pytest.raises(Interrupted) as caught:
        train(config(), tmp_path)
    assert (caught.value.rows, caught.value.resumable) == (17, True)
    with open_record(tmp_path) as r:
        assert (r.rows, r.status) == (17, "interrupted at step 17")


def test_a_second_run_in_one_folder_is_refused(run):
    folder = run()
    with pytest.raises(ValueError, match="exists already"):
        train(config(), folder)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data.batch_size=100 is larger than the training data"):
        train(config(data={"batch_size": 100}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_rows_apart_are_exact_for_a_charge_without_a_drive(run):
    """Translation needs no drive; the first step of a run takes no dampening."""
    optim = {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01}
    with open_record(run(optim=optim, track={"every": 5}, train={"precision": "fp64"})) as r:
        table = compare_family(r, "translation").table
        assert table.loc[table["law"] == "discrete", "error"].max() <= 1e-13


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.02},
        {"momentum": 0.5, "weight_decay": 0.01, "schedule": {"name": "cosine", "warmup": 10}},
    ],
)
def test_the_discrete_law_is_exact_on_real_runs(run, options):
    """float64, so that nothing but the law itself is tested."""
    folder = run(optim=options, train={"precision": "fp64", "steps": 100})
    with open_record(folder) as r:
        for family in r.families:
            table = compare_family(r, family).table
            assert table.loc[table["law"] == "discrete", "error"].max() <= 1e-12


def test_evaluation_counts_the_targets_that_count():
    """Of modular addition only the answer: a model that always answers 0 is right where the sum is 0."""

    class Zero(nn.Module):
        def forward(self, x):
            return 10 * F.one_hot(torch.zeros_like(x), 9).double()

    data = load_data(TokensOptions(modulus=7, batch_size=8))
    loss, accuracy = loop.evaluate(Zero(), data)
    assert accuracy == pytest.approx(float((data.test.y[:, -1] == 0).double().mean()))
    assert loss == pytest.approx(np.log(np.exp(10) + 8) - 10 * accuracy)


def test_the_progress_bar_shows_the_loss_or_nothing(tmp_path, monkeypatch):
    """Before the first block is written there is no loss to show."""
    shown, real = [], loop.tqdm.set_postfix

    def seen(bar, refresh=True, **values):
        shown.append(values["loss"])
        real(bar, refresh=refresh, **values)

    monkeypatch.setattr(loop.tqdm, "set_postfix", seen)
    train(config(train={"steps": 40}, track={"block": 16}), tmp_path)
    assert shown
    assert all(np.isfinite(float(loss)) for loss in shown)
