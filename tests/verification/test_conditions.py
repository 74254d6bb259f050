"""What breaks a symmetry, and by how much: against closed forms and models in which the cause is taken away."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets_more import Net
from neuralmech.errors import UserError
from neuralmech.verification.conditions import condition
from neuralmech.verification.probe import Probe
from neuralmech.verification.verify import verify

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.arange(16) % 3
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def normalised(eps=1e-5, momentum=0.1):
    """One filter before BatchNorm, so that its charge is the site's worst."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.Tanh(), nn.Linear(1, 3))
    return nn.Sequential(nn.Linear(4, 1), nn.BatchNorm1d(1, eps=eps, momentum=momentum), head).double()


def filter_row(model, **options):
    table = verify(model, X, Y, **options).table
    return table[(table["family"] == "scale") & (table["site"] == "0")].iloc[0]


def slopes(model, z):
    """By hand, at the filter's outputs z = Wx + b: all gradients, with whatever the norm does to its input."""
    model.zero_grad()
    out = model[1](z)
    out.retain_grad()
    F.cross_entropy(model[2](out), Y).backward()
    return out.grad, torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])


def test_the_effect_of_eps_is_its_share_of_the_variance():
    r"""⟨g, w⟩ = γ g_γ ε/(v + ε): growing w by dα changes the normalised output by ε/(v + ε) dα of itself."""
    model = normalised(eps=1e-3).train()
    norm = model[1]
    F.cross_entropy(model(X), Y).backward()
    whole = torch.cat([p.grad.ravel() for p in model.parameters()])
    share = 1e-3 / (float(model[0](X).detach().var(unbiased=False)) + 1e-3)
    felt = float((norm.weight * norm.weight.grad).detach())
    expected = abs(felt) * share / float((whole.norm() * model[0].weight.norm()).detach())
    row = filter_row(normalised(eps=1e-3))
    assert np.isclose(row["float64_gradient"], expected, rtol=1e-9)
    assert row["exact_gradient"] < 1e-14
    assert row["float64_cause"] == "a norm's eps"


@pytest.mark.parametrize("seen", [0, 3])
def test_in_eval_mode_the_filter_feels_its_scale(seen):
    r"""BatchNorm is y = γ(z − μ)/σ + β with constants μ, σ there: ⟨g, w⟩ = Σ_n δ_n γ (w·x_n)/σ, nothing cancels."""
    model = normalised()
    with torch.no_grad():
        model.train()
        for k in range(seen):
            model(X + k)
    given = copy.deepcopy(model[1].state_dict())
    row = filter_row(model)
    assert all(torch.equal(v, given[k]) for k, v in model[1].state_dict().items())

    twin = copy.deepcopy(model).eval()
    z = twin[0](X).detach()
    if not seen:  # a fresh model: the batch's own statistics
        twin[1].running_mean, twin[1].running_var = z.mean(0), z.var(0, unbiased=True)
    delta, rest = slopes(twin, z)
    sigma = (twin[1].running_var + 1e-5).sqrt()
    slope = twin[1].weight.detach() / sigma * delta
    w = twin[0].weight.detach()
    grad_w, grad_b = (slope * X).sum(0), slope.sum()
    size = torch.cat([rest, grad_w, grad_b[None]]).norm()
    expected = float((grad_w * w).sum().abs() / (size * w.norm()))
    assert np.isclose(row["eval_gradient"], expected, rtol=1e-9)
    assert row["eval_gradient"] > 1e-3
    assert row["eval_cause"] == "running statistics"
    assert row["holds"]


def test_in_eval_mode_a_bias_before_batch_norm_has_a_gradient():
    table = verify(normalised(), X, Y).table.set_index("site")
    assert table.loc["0.bias", "exact_gradient"] < 1e-14
    assert table.loc["0.bias", "eval_gradient"] > 1e-3


def test_eval_mode_breaks_nothing_without_running_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6, eps=1e-24), nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.5))
    table = verify(model.append(nn.Linear(6, 3)).double(), X, Y).table
    assert table["holds"].all()
    assert table["eval_gradient"].max() < 1e-14
    assert set(table["cause"]) == {""}


HAND_WRITTEN = {
    "layer norm": lambda s, x: F.layer_norm(s.a(x), (6,), eps=1e-3),
    "layer norm by position": lambda s, x: torch.layer_norm(s.a(x), [6], None, None, 1e-3),
    "batch norm": lambda s, x: F.batch_norm(s.a(x), None, None, training=True, eps=1e-3),
    "group norm": lambda s, x: F.group_norm(s.a(x), 2, eps=1e-3),
    "rms norm": lambda s, x: F.rms_norm(s.a(x), (6,), eps=1e-3),
    "root of a variance": lambda s, x: s.a(x) / (s.a(x).var(1, keepdim=True) + 1e-3).sqrt(),
    "power of a mean square": lambda s, x: s.a(x) * (1e-3 + s.a(x).square().mean(1, keepdim=True)) ** -0.5,
    "in place": lambda s, x: s.a(x) * s.a(x).var(1, keepdim=True).add_(1e-3).rsqrt_(),
    "norm as divisor": lambda s, x: s.a(x) / (s.a(x).norm(dim=1, keepdim=True) + 1e-3),
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_an_eps_in_the_code_is_no_false_claim(name):
    torch.manual_seed(0)
    model = Net(lambda s, x: s.head(torch.tanh(HAND_WRITTEN[name](s, x))), a=nn.Linear(4, 6), head=nn.Linear(6, 3))
    table = verify(model.float(), X, Y).table.set_index("family")
    row = table.loc["scale"].iloc[0] if table.loc["scale"].ndim > 1 else table.loc["scale"]
    assert row["holds"], row
    assert max(row["exact_finite"], row["exact_gradient"], row["exact_hessian"]) < 1e-12
    assert row["float64_gradient"] > 1e-7
    assert row["float64_cause"] == "a norm's eps"


def test_a_floor_is_an_eps_too():
    torch.manual_seed(0)
    model = Net(
        lambda s, x: s.head(torch.tanh(s.a(x) / s.a(x).norm(dim=1, keepdim=True).clamp_min(1e-3))),
        a=nn.Linear(4, 6, bias=False),
        head=nn.Linear(6, 3),
    ).double()
    with torch.no_grad():
        model.a.weight.mul_(1e-4)  # every norm is below the floor
    row = verify(model, X, Y).table.set_index("family").loc["scale"]
    assert row["holds"]
    assert row["float64_gradient"] > 1e-3


def test_a_sum_changed_in_place_is_no_eps_any_more():
    def squared(s, x):
        v = s.a(x).square() + 1e-3
        v.add_(1.0)
        return s.head(v.sqrt())

    torch.manual_seed(0)
    model = Net(squared, a=nn.Linear(4, 6), head=nn.Linear(6, 3)).double()
    exact = condition("exact", model, (X,))
    with exact.forward():
        assert torch.allclose(exact.model(X), model(X), rtol=1e-14)


BAD_ROOTS = {  # a small number that is no eps: the claim that the ReLU's scale passes would be false
    "numerator": lambda s, x: s.head((torch.relu(s.a(x)) + 1e-3) / 2.0),
    "square": lambda s, x: s.head((torch.relu(s.a(x)) + 1e-3) ** 2),
    "subtracted": lambda s, x: s.head((torch.relu(s.a(x)).square() - 1e-3).abs().sqrt()),
}


@pytest.mark.parametrize("name", BAD_ROOTS)
def test_a_small_number_elsewhere_is_a_number(name):
    torch.manual_seed(0)
    model = Net(BAD_ROOTS[name], a=nn.Linear(4, 6), head=nn.Linear(6, 3)).double()
    table = verify(model, X, Y).table
    assert set(table["family"]) == {"translation"}
    assert table["holds"].all()


def test_an_eps_is_told_from_a_condition_that_breaks_no_more():
    """The eps is known where ``float64`` is not among the conditions, and named there."""
    shown = filter_row(normalised(eps=1e-3), conditions=("float64", "own", "fp16"))
    alone = filter_row(normalised(eps=1e-3), conditions=("own", "fp16"))
    assert (shown["float64_cause"], shown["own_cause"]) == ("a norm's eps", "")
    assert alone["own_cause"] == "a norm's eps"
    assert shown["own_gradient"] == alone["own_gradient"]
    assert "float64_gradient" not in alone
    assert filter_row(normalised(eps=1e-24), conditions=("own",))["own_cause"] == ""


def test_autocast_is_measured_and_named():
    table = verify(normalised().float(), X, Y, precision="bf16", conditions=("float64", "own", "fp32")).table
    row = table[table["family"] == "scale"].iloc[0]
    assert row["own_cause"] == "bfloat16 autocast"
    assert row["fp32_cause"] in ("", "float32 rounding")
    assert row["fp32_gradient"] < 1e-4 < row["own_gradient"] < 0.1  # bfloat16 rounds at 2⁻⁸
    assert row["holds"]
    assert "own: bfloat16 autocast" in row["cause"]


def test_autocast_rounds_what_goes_into_products():
    """A linear layer under autocast is the product of rounded operands: the loss is that of the rounded layer."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 3, bias=False)
    x = X.float()
    rounded = (x.bfloat16() @ layer.weight.bfloat16().T).float()
    probe = Probe(condition("own", layer, (x,), "bf16"), Y, "cross_entropy", 0)
    with probe._condition.arithmetic():
        assert torch.equal(probe.loss(probe.theta.detach()), F.cross_entropy(rounded, Y).detach())


@pytest.mark.parametrize("scale", [2.0**16, 2.0**40])
def test_a_scaled_loss_saves_gradients_from_underflow_and_steps_back_from_overflow(scale):
    """The CPU rounds to float16 too, which holds no slope of 1e-6 well; 2⁴⁰ times one overflows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    many, y = X.repeat(8192, 1), Y.repeat(8192)
    exact = Probe(condition("float64", model, (many,)), y, "cross_entropy", 0).gradient
    half = condition("fp16", model, (many,))
    errors = []
    for loss_scale in (1.0, scale):
        probe = Probe(replace(half, precision=replace(half.precision, loss_scale=loss_scale)), y, "cross_entropy", 0)
        errors.append(float((probe.gradient - exact).norm() / exact.norm()))
        assert probe.stiffness > 0
    assert errors[1] < errors[0] / 5


def test_float16_is_measured_wherever_autocast_has_it():
    table = verify(normalised().float(), X, Y, conditions=("fp32", "bf16", "fp16")).table
    row = table[table["family"] == "scale"].iloc[0]
    assert row["fp32_gradient"] < 1e-5 < row["fp16_gradient"] < row["bf16_gradient"]  # 2⁻¹¹ and 2⁻⁸
    assert row["fp16_cause"] == "float16 autocast"
    assert row["fp16_hessian"] > 0


class InHalf(nn.Module):
    """An operation that fails on what autocast gives it."""

    def __init__(self, message):
        super().__init__()
        self.message = message

    def forward(self, x):
        if x.dtype in (torch.float16, torch.bfloat16):
            raise RuntimeError(self.message)
        return x


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.RReLU(), "\"rrelu_with_noise_out_cpu\" not implemented for 'Half'"),
        (InHalf("expected scalar type Float but found Half\nand more"), "expected scalar type Float but found Half"),
    ],
)
def test_what_a_type_cannot_do_is_not_measured_and_named(layer, reason):
    torch.manual_seed(0)
    table = verify(nn.Sequential(nn.Linear(4, 6), layer, nn.Linear(6, 3)), X, Y, conditions=("fp32", "fp16")).table
    assert table[["fp16_finite", "fp16_gradient", "fp16_hessian"]].isna().all(axis=None)
    assert set(table["fp16_cause"]) == {f"not measured on cpu: {reason}"}
    assert table["fp32_gradient"].notna().all()
    assert table["holds"].all()
    assert not table["cause"].str.contains("fp16").any()


def test_any_other_failure_is_one():
    model = nn.Sequential(nn.Linear(4, 6), InHalf("out of memory"), nn.Linear(6, 3))
    with pytest.raises(RuntimeError, match="out of memory"):
        verify(model, X, Y, conditions=("bf16",))


@CUDA
@pytest.mark.parametrize(("name", "cause"), [("tf32", "TF32 products"), ("fp16", "float16 autocast")])
def test_what_a_gpu_rounds_is_measured(name, cause):
    settings = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 3)).cuda()
    x, y = torch.randn(64, 256, device="cuda"), torch.arange(64, device="cuda") % 3
    table = verify(model, x, y, conditions=("fp32", name)).table
    row = table[table["family"] == "scale"].iloc[0]
    assert row["fp32_gradient"] < row[f"{name}_gradient"] < 0.1
    assert row[f"{name}_cause"] == cause
    assert settings == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"conditions": ("eval", "fp8")}, "conditions=fp8 is unknown"), ({"precision": "half"}, "precision=half is")],
)
def test_an_unknown_condition_is_named(options, message):
    with pytest.raises(UserError, match=message):
        verify(normalised(), X, Y, **options)
