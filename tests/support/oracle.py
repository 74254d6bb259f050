"""Independent oracle: the numeric null space of gradients over many random parameters and batches.

Σ_j m_j θ_j g_j = 0 for all θ and batches  ⇔  m is a diagonal symmetry;  Σ_j a_j g_j = 0  ⇔  a is a translation.
It knows nothing of graphs, operations or layers.
"""

import copy
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from definitions import assert_tracked
from neuralmech.discovery.discover import find_symmetries

LIMIT = 1e-2  # of a gradient in float32: what float64 rounds is 2⁻²⁹ of what float32 rounds
MORE_EPSILON = 1e9  # factor that shows whether a norm's eps is felt
NUDGES = (0.0, 1e-6, -1e-6)  # relative, of single parameters at random: is a small gradient luck of rounding?
FALSE = 1e-9  # of a gradient: what no claim may miss
SATURATED = 1e-6  # a cross-entropy whose gradient, 1 − p in the logits, has lost so many of its 16 digits
NEARLY = 1e-13  # relative, of single parameters in float64


class UnclearError(Exception):
    """Float64 cannot tell: the spectrum has no gap, or hardly any batch gives a gradient that is no noise."""


def gradients(model: nn.Module, inputs, samples: int, loss: str, seed: int = 0):
    """θ and ∇L, flattened, at random parameters on random batches: two arrays (samples, parameters).

    A batch counts only if float64 can say its gradient: float32, with 10⁹ times the norms' eps, must come within 1e-2
    of its length, so that rounding and eps move it by no more than some 1e-11. That leaves out channels that ReLUs
    silence on a whole batch or a LayerNorm saturates, where BatchNorm magnifies rounding noise, and powers of small
    numbers, where eps is no longer small (x⁹ of x = 0.05 has the variance 1e-24). The mean of a constant may be exact
    in float32 by luck and not in float64, so parameters that differ in the sixth digit have to agree too.

    Single samples of a batch may be noise and weigh less than 1e-2. So float64 has to agree with itself, too: ten times
    the eps and parameters that differ in the 13th digit may move the gradient by no more than 1e-9 of its length.
    """
    generator = torch.Generator().manual_seed(seed)
    exact = copy.deepcopy(model)  # these move; the model stays
    rough, near = _with_more_epsilon(model, MORE_EPSILON).float(), _with_more_epsilon(model, 10)
    thetas, grads = [], []
    for attempt in range(20 * samples):
        if len(grads) == samples:
            break
        parts = [torch.randn(p.numel(), generator=generator, dtype=torch.float64) for p in model.parameters()]
        theta = 0.7 * torch.cat(parts)
        x = inputs(generator)
        value, grad = _gradient(exact, theta, x, loss, attempt)
        narrow = x.float() if x.is_floating_point() else x
        is_clear = all(
            (g - grad).norm() < LIMIT * grad.norm() for g in _nearby(rough, theta, narrow, loss, attempt, NUDGES)
        )
        nearly = _nearby(near, theta, x, loss, attempt, (NEARLY, -NEARLY))
        is_clear &= loss == "mse" or value > SATURATED
        if is_clear and all((g - grad).norm() < FALSE * grad.norm() for g in nearly):
            thetas.append(theta)
            grads.append(grad)
    if len(grads) < samples:
        raise UnclearError
    return torch.stack(thetas).numpy(), torch.stack(grads).numpy()


def _with_more_epsilon(model: nn.Module, factor: float) -> nn.Module:
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(getattr(module, "eps", None), float):
            module.eps *= factor
    return model


def _nearby(
    model: nn.Module, theta: torch.Tensor, x: torch.Tensor, loss: str, seed: int, nudges: tuple[float, ...]
) -> Iterator[torch.Tensor]:
    """∇L in the model's precision near θ; its buffers (spectral norm's vectors) move on by one step."""
    before = [b.clone() for b in model.buffers()]
    generator = torch.Generator().manual_seed(seed)
    for by in nudges:
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
        near = theta * (1 + by * torch.rand(theta.shape, generator=generator)) if by else theta
        yield _gradient(model, near, x, loss, seed)[1].double()


def _gradient(
    model: nn.Module, theta: torch.Tensor, x: torch.Tensor, loss: str, seed: int
) -> tuple[float, torch.Tensor]:
    """Move the model to θ and return the loss and ∇L, flattened; noise and random targets are those of `seed`."""
    value = loss_at(model, theta, x, loss, seed)
    parameters = list(model.parameters())
    found = iter(torch.autograd.grad(value, [p for p in parameters if p.requires_grad], allow_unused=True))
    grads = [next(found) if p.requires_grad else None for p in parameters]
    flat = [torch.zeros(p.numel()) if g is None else g.ravel() for p, g in zip(parameters, grads, strict=True)]
    return value.item(), torch.cat(flat)


def loss_at(model: nn.Module, theta: torch.Tensor, x: torch.Tensor, loss: str, seed: int) -> torch.Tensor:
    """Move the model to θ and return the loss; noise in it and the random targets are those of `seed`."""
    parameters = list(model.parameters())
    with torch.no_grad():
        for p, part in zip(parameters, theta.split([p.numel() for p in parameters]), strict=True):
            p.copy_(part.view_as(p))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (what a forward() may draw from)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack trace for each absent device
        out = model(x)
        if loss == "mse":
            return F.mse_loss(out, torch.randn(out.shape, dtype=torch.float64).to(out))
        logits = out.flatten(0, 1) if out.dim() == 3 else out
        return F.cross_entropy(logits, torch.randint(logits.shape[1], (len(logits), *logits.shape[2:])))


def null_space(rows: np.ndarray) -> np.ndarray:
    """Orthonormal basis (dimension, columns) of the null space, each row first scaled to length 1."""
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    _, singular, right = np.linalg.svd(rows, full_matrices=True)
    singular = np.pad(singular, (0, right.shape[0] - singular.size)) / singular[0]
    if ((singular > 1e-12) & (singular < 1e-7)).any():
        raise UnclearError
    return right[singular < 1e-9]


def rank(matrix: np.ndarray) -> int:
    return int(np.linalg.matrix_rank(matrix)) if matrix.size else 0


def check(model: nn.Module, inputs, loss: str = "cross_entropy", seed: int = 0, *, complete: bool = True, found=None):
    """Assert that no claim is false, that they are all if `complete`, and that tracked charges are those claimed.

    The claims are those `found`, by default what discovery finds. Returns the two dimensions.
    """
    diagonal, translation, _ = check_sites(model, inputs, loss, seed, complete=complete, found=found)
    return diagonal, translation


def check_sites(
    model: nn.Module,
    inputs,
    loss: str = "cross_entropy",
    seed: int = 0,
    *,
    complete: bool = True,
    times: int = 1,
    found=None,
):
    """The same, and the charges of each family by site.

    Where the samples leave more than is claimed, `times` as many decide: a third of them may say nothing of most
    parameters (relu and LayerNorm behind a BatchNorm that one sample of the batch saturates).
    """
    model = model.double().train()
    parameters = sum(p.numel() for p in model.parameters())
    if isinstance(inputs, tuple):
        shape = inputs
        inputs = lambda g: torch.randn(shape, generator=g, dtype=torch.float64)  # noqa: E731
    found = found or find_symmetries(model, inputs(torch.Generator().manual_seed(seed)), loss=loss)
    assert_tracked(found, model)
    claimed = {name: g.toarray() for name, g in found.generators().items()}
    translation = claimed.get("translation", np.zeros((0, parameters)))
    diagonal = np.concatenate([claimed.get(k, np.zeros((0, parameters))) for k in ("scale", "rescale")])
    rest = parameters - min(len(translation), len(diagonal))  # as many samples can deny that there is more
    samples = times * (rest + rest // 8 + 20) if complete else rest // 2 + 40
    theta, grad = gradients(model, inputs, samples, loss, seed)
    grad = grad / np.linalg.norm(grad, axis=1, keepdims=True)

    moving = np.abs(grad).max(axis=0) > 1e-9 * np.abs(grad).max()
    named = list(model.named_parameters())
    unread = {name for name, reason in found.uncovered.items() if reason.startswith("no gradient")}
    frozen = np.concatenate([np.full(p.numel(), not p.requires_grad or n in unread) for n, p in named])
    assert np.abs(grad @ translation.T).max(initial=0) <= FALSE
    assert np.abs((theta * grad) @ diagonal.T).max(initial=0) <= FALSE
    assert rank(translation) == len(translation)
    assert rank(diagonal) == len(diagonal)
    if not complete:
        return len(diagonal), len(translation), found.sites
    true_shift = null_space(grad[:, ~frozen])
    true_diagonal = null_space((theta * grad)[:, moving])
    idle = ~diagonal[:, moving].any(axis=1)  # what has no gradient is in both null spaces: one of them claims it
    shifts, scales = len(translation) + idle.sum(), len(diagonal) - idle.sum()
    if times == 1 and (len(true_shift) > shifts or len(true_diagonal) > scales):
        return check_sites(model, inputs, loss, seed, times=4, found=found)
    assert not translation[:, frozen].any()
    assert shifts == len(true_shift)
    assert scales == len(true_diagonal)
    return len(diagonal), len(translation), found.sites
