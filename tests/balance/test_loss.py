"""Balance of the loss along real full-batch runs, by convergence slopes, and the tangent kernel's identity."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from neuralmech.balance import gradient_norm, loss_balance, tangent_kernel
from neuralmech.errors import UserError
from neuralmech.losses import loss_of


def net(activation=nn.Softplus, norm=False, seed=0):
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(6)] if norm else []
    return nn.Sequential(nn.Linear(4, 6), *middle, activation(), nn.Linear(6, 3)).double()


def data(loss, samples=12):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    if loss == "mse":
        return x, torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (samples,), generator=generator)


def run(lr, loss, duration=1.0, samples=12, **options):
    """Full-batch SGD over a fixed time: the balance of every step."""
    model = net(options.pop("activation", nn.Softplus), options.pop("norm", False))
    x, y = data(loss, samples)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, **options)
    balances = []
    for _ in range(round(duration / lr)):
        before = copy.deepcopy(model)
        optimizer.zero_grad()
        loss_of(model(x), y, loss).backward()
        optimizer.step()
        balances.append(loss_balance(before, x, y, model.state_dict(), loss))
    return balances


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"momentum": 0.8, "nesterov": True}, {"norm": True}],
    ids=str,
)
def test_errors_of_the_balance_over_a_run_shrink_at_their_order(loss, options):
    """Σ_k |predicted − measured| over a fixed time: first order in η without curvature, second order with it."""
    rates = 2.0 ** -np.arange(6, 9)
    errors = {"first": [], "second": [], "trapezoid": []}
    for lr in rates:
        balances = run(float(lr), loss, **options)
        for form, found in errors.items():
            found.append(sum(abs(getattr(b, form) - b.measured) for b in balances))
    slope = {form: np.polyfit(np.log(rates), np.log(found), 1)[0] for form, found in errors.items()}
    assert slope["first"] == pytest.approx(1, abs=0.2)
    assert slope["second"] == pytest.approx(2, abs=0.25)
    assert slope["trapezoid"] == pytest.approx(2, abs=0.25)
    assert errors["trapezoid"][-1] < errors["second"][-1] < 0.2 * errors["first"][-1]


def test_friction_alone_takes_the_energy_of_descent_with_momentum():
    """E = L + λ|θ|²/2 + η(1+β)|θ'|²/4 loses (1−β)|θ'|² per unit of time, to second order in η."""
    beta, decay, rates, errors = 0.5, 0.1, 2.0 ** -np.arange(6, 10), []
    x, y = data("mse")
    for lr in rates:
        model = net()
        parameters = list(model.parameters())
        optimizer = torch.optim.SGD(parameters, lr=float(lr), momentum=beta, weight_decay=decay)
        losses, steps = [], []
        for _ in range(round(1 / lr) + 1):
            before = nn.utils.parameters_to_vector(parameters).detach()
            optimizer.zero_grad()
            loss = loss_of(model(x), y, "mse")
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach() + 0.5 * decay * before @ before))
            steps.append((nn.utils.parameters_to_vector(parameters).detach() - before) / lr)
        half = round(0.5 / lr)  # the empty buffer of the start is forgotten
        energies = [
            losses[k] + 0.25 * lr * (1 + beta) * float(((steps[k - 1] + steps[k]) / 2).square().sum())
            for k in (half, len(steps) - 1)
        ]
        friction = (1 - beta) * lr * sum(float(v @ v) for v in steps[half:-1])
        errors.append(abs(energies[1] - energies[0] + friction))
    assert np.polyfit(np.log(rates), np.log(errors), 1)[0] == pytest.approx(2, abs=0.2), errors


def test_kinks_cost_the_curvature_term_its_order():
    """With ReLU the Hessian misses what samples that cross a kink contribute: first order, whatever η."""
    rates = 2.0 ** -np.arange(6, 9)
    errors = []
    for lr in rates:
        balances = run(float(lr), "mse", samples=200, activation=nn.ReLU)
        errors.append(sum(abs(b.second - b.measured) for b in balances))
    assert np.polyfit(np.log(rates), np.log(errors), 1)[0] < 1.5, errors


def test_gradient_flow_loses_the_squared_gradient():
    """−η⟨g, u⟩ of plain SGD is −η|g|²."""
    (balance, *_), (x, y) = run(1e-3, "mse", duration=1e-3), data("mse")
    assert balance.first == pytest.approx(-1e-3 * gradient_norm(net(), x, y, "mse").squared, rel=1e-9)


def test_curvature_is_the_hessians():
    """Against the full Hessian of torch.autograd.functional."""
    layer = nn.Linear(2, 2).double()
    x, y = torch.randn(5, 2, dtype=torch.float64), torch.randint(2, (5,))
    weight, bias = layer.weight.detach(), layer.bias.detach()
    step = torch.randn(2, 2, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda w: loss_of(x @ w.T + bias, y), weight)
    expected = 0.5 * torch.einsum("ij,ijkl,kl->", step, hessian, step)
    balance = loss_balance(layer, x, y, {"weight": weight + step, "bias": bias})
    assert balance.curvature == pytest.approx(float(expected), rel=1e-12)


def test_balance_leaves_the_model_alone_and_names_what_is_missing():
    model, (x, y) = net(norm=True), data("mse")
    before = copy.deepcopy(model.state_dict())
    loss_balance(model, x, y, before, "mse")
    gradient_norm(model, x, y, "mse")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(UserError, match=r"after: .* 3\.bias"):
        loss_balance(model, x, y, {k: v for k, v in before.items() if k != "3.bias"}, "mse")


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("trained", [0, 50])
def test_squared_gradient_is_the_kernels_quadratic_form(loss, norm, activation, trained):
    """|∇L|² = rᵀKr to rounding, at initialisation and after training, with and without a norm over the batch."""
    model, (x, y) = net(activation, norm), data(loss)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(trained):
        optimizer.zero_grad()
        loss_of(model(x), y, loss).backward()
        optimizer.step()
    found = gradient_norm(model, x, y, loss)
    assert found.kernel == pytest.approx(found.squared, rel=1e-12)
    assert found.squared > 0


def test_kernel_is_that_of_torch_func():
    model, (x, _) = net(), data("mse", samples=5)
    parameters = dict(model.named_parameters())
    jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(parameters)
    flat = torch.cat([j.flatten(2) for j in jacobian.values()], dim=2).flatten(0, 1)
    torch.testing.assert_close(tangent_kernel(model, x), flat @ flat.T, rtol=1e-12, atol=1e-12)


def test_kernel_identity_holds_at_checkpoints_of_a_run(run_on_digits):
    """Float32 parameters out of a recorded run, evaluated in float64."""
    model, checkpoints, x, y = run_on_digits
    from neuralmech.training.checkpoint import load_checkpoint

    for step in (0, 30):
        load_checkpoint(checkpoints, model, step)
        found = gradient_norm(model, x, y)
        assert found.kernel == pytest.approx(found.squared, rel=1e-10)


@pytest.fixture
def run_on_digits(run):
    from conftest import config
    from neuralmech.training.setup import prepare

    options = {
        "model": {"name": "convnet", "width": 2, "depth": 2},
        "data": {"name": "digits"},
        "train": {"steps": 30},
    }
    folder = run(**options)
    setup = prepare(config(**options))
    return setup.model.double(), folder / "checkpoints", setup.data.train.x[:8].double(), setup.data.train.y[:8]
