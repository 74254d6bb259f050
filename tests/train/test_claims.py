"""No false claim reaches a record: a fresh model's claims are checked on its first batch."""

import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from conftest import config
from neuralmech.errors import UserError
from neuralmech.losses import CrossEntropy
from neuralmech.training import claims, loop, setup
from neuralmech.training.begin import begin
from neuralmech.verification import quick
from neuralmech.verification.claims import SymmetryGroup, _assemble
from train_twins import contents, parameters, stopped

OWN = {"name": "_target_", "arguments": {}}


class Drawing(nn.Module):
    """Draws from every generator in its forward pass, and counts its passes where no copy shares the count."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))
        self.passes = 0

    def forward(self, x):
        if not torch.compiler.is_compiling():
            self.passes += 1
            x = x + 0.01 * random.random() + 0.01 * np.random.rand() + self.passes  # noqa: NPY002
        return self.net(x)


class Noisy(Drawing):
    """What it draws and counts is in the loss, which no norm takes out."""

    def __init__(self, counting=False):
        super().__init__()
        self.net, self.counting = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), counting

    def forward(self, x):
        before = self.passes
        out = super().forward(x)
        self.passes *= self.counting
        return out if before >= 0 else x


class Half(nn.Module):
    """Asks for what float64 does not have."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("\"shiny_kernel\" not implemented for 'Double'")
        return self.net(x)


class Uncopied(Half):
    """Computes in the precision that it was made in, and cannot be asked for another."""

    def double(self):
        raise TypeError("there is one of me")


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_claims", sys.modules[__name__])
    return lambda name, **parts: config(model={**OWN, "target": f"own_claims.{name}"}, **parts)


@pytest.fixture
def lie(monkeypatch):
    """Make discovery claim of the first layer's weight what is not so, besides what it finds."""
    real = setup.find_symmetries

    def wrong(model, *rest, **options):
        found = real(model, *rest, **options)
        name = next(n for n, p in model.named_parameters() if p.dim() == 2)
        rows = found.shapes[name][0]
        false = SymmetryGroup("scale", "a lie", {name: torch.eye(rows)[:, :, None]})
        families = {**found.families, **_assemble(model, [false]).families}
        return type(found)(families, found.shapes, found.uncovered, found.barriers)

    monkeypatch.setattr(setup, "find_symmetries", wrong)


def test_a_false_claim_is_refused_before_anything_is_written(lie, tmp_path):
    message = (
        r"1 claims of symmetry do not hold .* scale 'a lie'; track.families=\[translation,rescale\] leaves them out"
    )
    for train in (loop.train, lambda options, folder: loop.train_in(folder, options)):
        with pytest.raises(UserError, match=message) as error:
            train(config(), tmp_path)
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []


def test_what_is_not_recorded_is_no_claim_and_a_user_may_insist(lie, tmp_path, capsys):
    for name, options in (
        ("without", {"track": {"families": ["translation", "rescale"]}}),
        ("insists", {"train": {"verify": False}}),
    ):
        (tmp_path / name).mkdir()
        assert loop.train(config(**options), tmp_path / name).rows == 40
    out = capsys.readouterr().out
    assert out.count("claims of symmetry on the first batch, which hold") == 1


def test_only_a_fresh_model_is_checked(lie, tmp_path, monkeypatch, capsys):
    folder = stopped(tmp_path, monkeypatch, 20, {"train": {"verify": False, "checkpoint": {"every": 5}}})
    assert loop.resume(folder, {"train.verify": True}).rows == 40
    assert "claims of symmetry" not in capsys.readouterr().out


@pytest.mark.parametrize("model", ["Drawing", None])
def test_a_run_is_the_same_with_and_without(model, own, tmp_path):
    for name, verify in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        options = {"train": {"verify": verify}, "optim": {"lr": 1e-3}}
        loop.train(own(model, **options) if model else config(**options), tmp_path / name)
    a, b = (contents(tmp_path / name) for name in ("with", "without"))
    assert [key for key in a if not np.array_equal(a[key], b[key], equal_nan=key != "status")] == []
    p, q = (parameters(tmp_path / name, 40) for name in ("with", "without"))
    assert [key for key in p if not torch.equal(p[key], q[key])] == []


def test_what_has_no_float64_is_checked_in_float32(own, lie, capsys):
    claims.check_claims(begin(own("Half", track={"families": ["rescale"]})))
    out = capsys.readouterr().out
    assert "which hold (" in out
    assert "in float32, because float64 cannot be had" in out
    assert "shiny_kernel" in out
    with pytest.raises(UserError, match="do not hold for this model"):
        claims.check_claims(begin(own("Half")))


def test_what_cannot_be_checked_is_said(own, tmp_path, capsys, monkeypatch):
    loop.train(own("Uncopied"), tmp_path)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "Claims of symmetry are not checked: there is one of me; neuralmech verify checks those of a run"
    run = begin(config())
    monkeypatch.setattr(quick, "LARGE", 10)
    claims.check_claims(run)
    monkeypatch.setattr(quick, "LARGE", 1e9)
    monkeypatch.setattr(quick, "SLOW_SECONDS", 0.0)
    claims.check_claims(run)
    large, slow = capsys.readouterr().out.splitlines()
    assert "not checked: the model has " in large
    assert "not checked: a gradient takes " in slow


def test_a_loss_that_is_drawn_is_still_one_loss_and_one_that_changes_is_none(own, capsys):
    """Seeded alike before each pass; what a model counts by itself cannot be."""
    claims.check_claims(begin(own("Noisy")))
    assert "which hold" in capsys.readouterr().out
    counting = config(model={**OWN, "target": "own_claims.Noisy", "arguments": {"counting": True}})
    claims.check_claims(begin(counting))
    assert "not checked: the model's loss changes from call to call" in capsys.readouterr().out


def test_a_batch_whose_first_samples_do_not_count_is_taken_whole():
    x, y = torch.randn(20, 3), torch.where(torch.arange(20) < 8, -100, 1)
    assert len(claims._some(x, y, CrossEntropy())[0]) == 20
    assert len(claims._some(x, y.flip(0), CrossEntropy())[0]) == 8
    assert len(claims._some(x, y.flip(0), CrossEntropy(ignore_index=1))[0]) == 20
