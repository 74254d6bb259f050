"""Verification of models that cast inside, and of models that return more than logits."""

import torch
from torch import nn

from neuralmech.verification.precision import float64_throughout
from neuralmech.verification.verify import verify


class CastingNorm(nn.Module):
    """RMSNorm as T5 and Llama have it: computed in float32 whatever comes in."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.rand(width) + 0.5), eps

    def forward(self, x):
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(x.dtype)


def casting(eps):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6, bias=False), CastingNorm(6, eps), nn.Linear(6, 3)).double()


BATCH = torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 3


def test_a_cast_inside_the_model_is_named_and_hides_nothing():
    table = verify(casting(eps=1e-30), *BATCH).table.set_index("family")
    row = table.loc["scale"]
    assert row["holds"]
    assert row["cause"] == "own: a cast to less than float64 inside the model"
    assert max(row["exact_gradient"], row["float64_gradient"]) < 1e-15 < 1e-11 < row["own_gradient"]
    assert max(row["exact_finite"], row["float64_finite"]) < 1e-14 < 1e-10 < row["own_finite"]
    assert max(row["exact_hessian"], row["float64_hessian"]) < 1e-13 < 1e-10 < row["own_hessian"]


def test_an_eps_is_told_from_a_cast():
    row = verify(casting(eps=1e-3), *BATCH).table.set_index("family").loc["scale"]
    assert row["cause"] == "float64: a norm's eps"
    assert row["exact_gradient"] < 1e-15 < 1e-6 < row["float64_gradient"]


def test_float64_throughout_reaches_casts_factories_and_backward():
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    with float64_throughout():
        made = [x.float(), x.to(torch.bfloat16), x.half(), torch.arange(3).float(), torch.zeros(3)]
        made += [torch.ones(3, dtype=torch.float32), x.sum(dtype=torch.float32), x.softmax(0, dtype=torch.float32)]
        assert {t.dtype for t in made} == {torch.float64}
        (slope,) = torch.autograd.grad(x.float().pow(3).sum(), x)
    assert torch.equal(slope, 3 * x.detach() ** 2)
    assert torch.zeros(1).dtype == x.float().dtype == torch.float32


class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.main, self.side = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x):
        hidden = torch.relu(self.trunk(x))
        return {"logits": self.main(hidden), "auxiliary": self.side(hidden)}


def test_the_logits_of_several_outputs_are_what_the_loss_reads():
    torch.manual_seed(0)
    report = verify(Auxiliary(), *BATCH)
    assert report.passed
    assert set(report.table["site"]) == {"main.weight", "main.bias", "trunk -> main"}
