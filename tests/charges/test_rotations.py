"""Angular momenta of rotations: by generators written out, along real steps, and in the tables of a run."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from nets_more import Attention
from nets_tracked import NETS
from neuralmech.charges.rotations import SIGNALS, Rotations
from neuralmech.charges.step import Step
from neuralmech.compare.measure.rotations import CUT, rotation_table
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from neuralmech.losses import loss_of
from neuralmech.record import open_record
from neuralmech.symmetry.layout import Layout
from neuralmech.symmetry.matrix import matrix_families

CPU = torch.device("cpu")


def layout_of(model):
    return Layout.by_shape({n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad})


def flat(layout, named):
    return torch.cat([named[n].detach().reshape(-1) for n in layout.offsets])


def turned(layout, site, i, j, theta):
    """Aθ, channel by channel."""
    out = np.zeros_like(theta)
    for block in site.blocks:
        entries = layout.offsets[block.parameter] + block.entries(layout.shapes)
        out[entries[i]], out[entries[j]] = theta[entries[j]], -theta[entries[i]]
    return out


def linear_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)).double()


@pytest.mark.parametrize("full", [16, 2])
@pytest.mark.parametrize("name", ["linear", "transformer"])
def test_signals_are_their_definitions(name, full):
    """The gradient is orthogonal to every generator; pairs of small sites, neighbours of large ones."""
    build, inputs = NETS[name][:2] if name in NETS else (linear_net, lambda: torch.randn(8, 3))
    torch.manual_seed(0)
    model, x = build().double().train(), inputs()
    x = x.double() if x.is_floating_point() else x
    (family,) = matrix_families(find_symmetries(model, x).families.values())
    layout = layout_of(model)
    theta, after, gradient, buffer = torch.randn(4, layout.size, dtype=torch.float64)
    rotations = Rotations(family, layout, CPU, full)
    out = torch.full((len(SIGNALS), len(rotations)), torch.nan, dtype=torch.float64)
    rotations.evaluate(Step(theta, after, gradient, 10.0, buffer), out)
    t, g, b = (v.numpy() for v in (theta, gradient, buffer))
    u = 10 * (t - after.numpy())
    sites = {site.name: site for site in family.matrices}
    for k, (site, i, j) in enumerate(zip(rotations.sites, rotations.rows, rotations.columns, strict=True)):
        a_theta, a_u = (turned(layout, sites[site], i, j, v) for v in (t, u))
        of = a_theta != 0
        wanted = [b @ a_theta, g @ a_theta, b @ a_u, np.linalg.norm(b[of]) * np.linalg.norm(t[of])]
        np.testing.assert_allclose(out[:, k].numpy(), wanted, rtol=1e-12)
    counts = {site: rotations.sites.count(site) for site in sites}
    assert counts == {n: s.size * (s.size - 1) // 2 if s.size <= full else s.size - 1 for n, s in sites.items()}


def stepped(model, x, y, loss, *, turning=True, steps=20, **options):
    """Learning rate and signals of each of PyTorch's own steps, from a random buffer if `turning`, and the sites."""
    (family,) = matrix_families(find_symmetries(model, x, loss).families.values())
    layout = layout_of(model)
    rotations = Rotations(family, layout, CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **options)
    for p in model.parameters():
        if turning:
            optimizer.state[p]["momentum_buffer"] = torch.randn_like(p)
    rows = []
    for k in range(steps):
        lr = optimizer.param_groups[0]["lr"] = 0.02 / (k + 1)
        before = flat(layout, dict(model.named_parameters()))
        optimizer.zero_grad()
        loss_of(model(x), y, loss).backward()
        gradient = flat(layout, {n: p.grad for n, p in model.named_parameters()})
        optimizer.step()
        after = flat(layout, dict(model.named_parameters()))
        buffer = flat(layout, {n: optimizer.state[p]["momentum_buffer"] for n, p in model.named_parameters()})
        out = torch.zeros(len(SIGNALS), len(rotations), dtype=torch.float64)
        rotations.evaluate(Step(before, after, gradient, 1 / lr, buffer), out)
        rows.append((lr, out.numpy()))
    return rows, rotations.sites


@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"dampening": 0.5}, {"weight_decay": 0.1}])
def test_a_buffer_that_turns_obeys_the_law(options):
    """Against PyTorch's own steps from a random buffer: J ← βJ whatever η, and with W under Nesterov, to rounding."""
    model = linear_net()
    x, y = torch.randn(8, 3).double(), torch.randn(8, 2).double()
    rows, _ = stepped(model, x, y, "mse", **options)
    scale = np.abs(rows[0][1][3]).max()
    assert np.abs(rows[0][1][0]).max() > 0.01 * scale
    assert max(np.abs(out[1]).max() for _, out in rows) < 1e-13 * scale
    for (lr, (value, _, work, _)), (_, (following, *_)) in pairwise(rows):
        predicted = 0.9 * (value - lr * work * bool(options.get("nesterov")))
        np.testing.assert_allclose(following, predicted, rtol=0, atol=1e-13 * scale)


HEADS = {"q -> k [0]": 6, "q -> k [1]": 6, "v -> o [0]": 6, "v -> o [1]": 6}  # four channels each: pairs i < j


class TwoHeads(nn.Module):
    """A residual stream between norms, so that all that turns is within a head."""

    def __init__(self):
        super().__init__()
        self.attend = Attention(width=8, heads=2)
        self.first, self.last, self.head = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.last(x + self.attend(self.first(x))).mean(1))


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}])
@pytest.mark.parametrize("turning", [True, False])
def test_heads_of_attention_turn_no_more_than_their_buffer(turning, options):
    """Queries with keys and values with the output, each head for itself: J ← βJ relative to |b||θ|, zero from rest."""
    torch.manual_seed(0)
    model, x, y = TwoHeads().double(), torch.randn(6, 5, 8).double(), torch.randint(3, (6,))
    rows, sites = stepped(model, x, y, "cross_entropy", turning=turning, steps=60, **options)
    assert {name.replace("attend.", ""): sites.count(name) for name in sites} == HEADS
    for _, (value, along, _, extent) in rows:
        assert (np.abs(along) < 1e-12 * extent).all()
        assert turning or (np.abs(value) < 1e-12 * extent).all()
    for (_, (value, _, _, extent)), (_, (following, *_)) in pairwise(rows):
        assert (np.abs(following - 0.9 * value) < 1e-12 * extent).all()
    assert not turning or (np.abs(rows[0][1][0]) > 1e-4 * rows[0][1][3]).all()


def table(run, optim=(), track=(), steps=60):
    net = {"name": "mlp", "width": 6, "depth": 3, "activation": "none"}
    given = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, **dict(optim)}
    how = {"precision": "fp64", "steps": steps, "verify": False}
    with open_record(run(model=net, optim=given, train=how, track={"rotations": True, **dict(track)})) as record:
        assert "rotation" not in record.families
        return rotation_table(record)


@pytest.mark.parametrize(
    "optim",
    [
        {}, {"momentum": 0.0}, {"dampening": 0.3}, {"name": "sgdw"}, {"clip_norm": 0.1},
        {"groups": [{"match": "bias", "lr": 0.5, "weight_decay": 0.0}]}, {"schedule": {"name": "cosine"}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("track", [{}, {"every": 3}, {"steps": [[10, 30], [40, 60]]}])
def test_angular_momenta_stay_zero_under_sgd(run, optim, track):
    found = table(run, optim, track)
    assert (found["pairs"] == 15).all()
    assert (found["largest"] < 1e-13).all()
    assert (found["error"] < 1e-13).all()


def test_nesterovs_do_not_and_obey_the_law_with_what_is_measured(run):
    found = table(run, {"nesterov": True})
    assert (found["largest"] > 1e-6).all()
    assert (found["error"] < 1e-13).all()
    assert (table(run, {"nesterov": True}, {"every": 2})["reason"] != "").all()


@pytest.mark.parametrize("optim", [{"name": "adamw", "momentum": 0.0}, {"clip_value": 1e-3}, {"sam_rho": 0.05}])
def test_rules_that_turn_have_no_law(run, optim):
    found = table(run, optim)
    assert (found["largest"] > 1e-4).all()  # ascent over a distance of 0.05 leans least
    assert found["error"].isna().all()
    assert (found["reason"] != "").all()
    assert (found["reason"] == CUT).all() == ("clip_value" in optim)


def test_a_model_without_linear_maps_is_told(run):
    with pytest.raises(UserError, match=r"track\.rotations=true: this model has no consecutive linear maps"):
        run(track={"rotations": True})
