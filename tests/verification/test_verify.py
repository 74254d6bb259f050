import numpy as np
import pytest
import torch
from torch import nn

from nets import NETS
from nets_more import MORE
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from neuralmech.losses import IGNORED
from neuralmech.verification.claims import SymmetryGroup, believe
from neuralmech.verification.verify import verify


def batch(inputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(inputs, generator=generator) if isinstance(inputs, tuple) else inputs(generator)


@pytest.mark.parametrize(
    "name",
    [
        "conv_bn",
        "residual",
        "grouped",
        "squared",
        "attention_rotary",
        "stochastic",
        "powers",
        "spectral_norm_convolutions",
    ],
)
def test_what_is_found_holds_to_second_order(name):
    build, inputs = (NETS.get(name) or MORE[name])[:2]
    torch.manual_seed(0)
    model, x = build().double(), batch(inputs).double()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = verify(model, x, torch.randint(3, (len(x),)))
    assert report.passed, report.table
    assert report.worst < 1e-12
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_language_model_is_verified_per_token():
    build, inputs = MORE["language_model"]
    torch.manual_seed(0)
    x = batch(inputs)
    targets = torch.randint(5, x.shape)
    assert verify(build(), x, targets).passed
    targets[:, 0] = IGNORED
    assert verify(build(), x, targets).passed


def test_an_eps_is_named_and_is_no_false_claim():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, eps=1e-3), nn.Tanh(), nn.Linear(5, 3))
    table = verify(model, torch.randn(32, 4), torch.randint(3, (32,))).table.set_index("family")
    assert table.loc["scale", "holds"]
    assert "eps" in table.loc["scale", "cause"]
    assert table.loc["scale", "float64_gradient"] > 1e-6 > 1e-12 > table.loc["scale", "exact_gradient"]
    assert table.loc["scale", "own_gradient"] > 0


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def by_hand(sign=-1.0):
    rows = torch.eye(5)
    return [
        SymmetryGroup("translation", "classes", {"2.weight": torch.eye(5)[:, None, :]}),
        SymmetryGroup(
            "rescale", "hidden", {"0.weight": rows[:, :, None], "0.bias": rows, "2.weight": sign * rows[:, None, :]}
        ),
    ]


def test_hand_written_groups_are_the_discovered_ones():
    model, x, y = net(), torch.randn(16, 4), torch.randint(3, (16,))
    mine = believe(model, by_hand(), x, y)
    found = find_symmetries(model, x).generators()
    assert (mine.generators()["rescale"] != found["rescale"]).nnz == 0
    assert (mine.generators()["translation"] != found["translation"][:5]).nnz == 0
    assert mine.uncovered == {"2.bias": "no hand-written group contains it"}


def test_a_false_claim_is_refused_and_reported():
    model, x, y = net(), torch.randn(16, 4), torch.randint(3, (16,))
    with pytest.raises(UserError, match="SymmetryGroup 'hidden' does not hold"):
        believe(model, by_hand(sign=1.0), x, y)
    from neuralmech.verification.claims import _assemble

    table = verify(model, x, y, _assemble(model, by_hand(sign=1.0))).table.set_index("site")
    assert not table.loc["hidden", "holds"]
    assert table.loc["hidden", "cause"] == "the claim is false"
    assert min(table.loc["hidden", f"exact_{test}"] for test in ("finite", "gradient", "hessian")) > 1e-6
    assert table.loc["classes", "holds"]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (SymmetryGroup("translation", "s", {"3.weight": np.ones(1)}), "no parameter '3.weight'"),
        (
            SymmetryGroup("translation", "s", {"2.weight": np.ones((2, 7))}),
            r"shape .2, 7. does not fit 2.weight .3, 5.",
        ),
        (SymmetryGroup("rotation", "s", {"2.weight": np.ones(1)}), "family 'rotation' is unknown"),  # type: ignore[arg-type]
    ],
)
def test_a_malformed_group_is_named(group, message):
    with pytest.raises(UserError, match=message):
        believe(net(), [group], torch.randn(4, 4), torch.randint(3, (4,)))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "no group is given"),
        ([SymmetryGroup("rescale", "s", {})], "'s': there is no generator"),
        ([SymmetryGroup("rescale", "s", {"0.weight": np.zeros(1)})], "'s': generator 0 is zero"),
        ([*by_hand(), SymmetryGroup("translation", "t", {"2.bias": np.eye(4, 3)})], "'t': generator 3 is zero"),
    ],
)
def test_what_moves_nothing_is_not_believed(groups, message):
    with pytest.raises(UserError, match=message):
        believe(net(), groups, torch.randn(4, 4), torch.randint(3, (4,)))


@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
def test_a_layer_that_writes_to_its_weight_is_named(layer):
    flat = nn.Flatten() if layer is nn.Embedding else nn.Identity()
    model = nn.Sequential(layer(7, 4, max_norm=1.0), flat, nn.LazyLinear(3))
    x = torch.randint(7, (5, 2))
    model(x)
    with pytest.raises(UserError, match="verify: 0 has max_norm=1, which rewrites its weight"):
        verify(model, x, torch.randint(3, (5,)))


def test_claims_about_another_model_are_refused():
    found = find_symmetries(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4))
    with pytest.raises(UserError, match="other parameters"):
        verify(net(), torch.randn(4, 4), torch.randint(3, (4,)), found)


def test_a_batch_without_a_gradient_verifies_nothing():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(torch.full_like(x, torch.nan))

    table = verify(Broken(), torch.randn(2, 3), torch.tensor([0, 1])).table
    assert len(table)
    assert not table["holds"].any()
    assert set(table["exact_cause"]) == {"the gradient is not finite on this batch"}


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_weight_norm_holds_to_second_order(dim):
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4), dim=None if dim == -1 else dim)
    model = nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 3))
    table = verify(model, torch.randn(8, 3), torch.arange(8) % 3).table
    assert table["holds"].all()
    assert (table["family"] == "scale").any()


class Cancelling(nn.Module):
    """x − BN(|γ|x) where x is normalised: nothing is left but rounding and eps, which the next norm makes large."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.gains = nn.Parameter(-torch.ones(6))
        self.norms = nn.ModuleList(nn.BatchNorm1d(6) for _ in range(3))

    def forward(self, x):
        x = self.norms[0](self.first(x))
        x = x + self.norms[1](self.gains * x)
        return self.head(torch.relu(self.norms[2](x)))


class NoFloat64(nn.Linear):
    """A layer without a kernel for float64."""

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("expected scalar type Float but found Double")
        return super().forward(x)


FALSE_SCALE = SymmetryGroup("scale", "head", {"head.weight": np.ones((3, 6))})


def test_where_rounding_decides_on_the_loss_claims_are_checked_at_other_parameters():
    torch.manual_seed(0)
    model = Cancelling()
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    before = {k: v.clone() for k, v in model.state_dict().items()}
    table = verify(model, x, y, conditions=("exact",)).table
    assert table["holds"].all()
    assert table["exact_finite"].max() < 1e-12
    assert table["exact_cause"].str.contains("rounding alone changes the loss by").all()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(UserError, match="'head' does not hold"):
        believe(model, [FALSE_SCALE], x, y)


def test_what_float64_cannot_compute_is_checked_in_float32():
    torch.manual_seed(0)
    model = nn.Sequential(NoFloat64(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    table = verify(model, x, y).table
    assert table["holds"].all()
    assert table["exact_cause"].str.startswith("in float32, because float64 cannot be had (expected scalar").all()
    assert (table["float64_cause"] == "not measured on cpu: expected scalar type Float but found Double").all()
    assert 1e-12 < table["exact_gradient"].max() < 1e-5
    with pytest.raises(UserError, match="'3' does not hold"):
        believe(model, [SymmetryGroup("scale", "3", {"3.weight": np.ones((3, 6))})], x, y)
