"""Independent oracle: the numeric null space of gradients over many random parameters and batches.

Σ_j m_j θ_j g_j = 0 for all θ and batches  ⇔  m is a diagonal symmetry;  Σ_j a_j g_j = 0  ⇔  a is a translation.
It knows nothing of graphs, operations or layers.
"""

import copy

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from nets import TINY
from neuralmech.symmetry.discover import find_symmetries

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class UnclearError(Exception):
    """Float64 cannot tell: the spectrum has no gap, or hardly any batch keeps every channel alive."""


def gradients(model: nn.Module, inputs, samples: int, loss: str, seed: int = 0):
    """θ and ∇L, flattened, at random parameters on random batches: two arrays (samples, parameters)."""
    generator = torch.Generator().manual_seed(seed)
    names = [name for name, _ in model.named_parameters()]
    thetas, grads = [], []
    silent = []
    for module in model.modules():
        if isinstance(module, NORMS):
            module.register_forward_pre_hook(lambda norm, x: silent.append(_says_nothing(norm, x[0].detach())))
    for _ in range(20 * samples):
        if len(grads) == samples:
            break
        silent.clear()
        theta = {
            n: torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.7 for n, p in model.named_parameters()
        }
        for n, p in model.named_parameters():
            theta[n] = theta[n].requires_grad_(p.requires_grad)
        out = functional_call(model, theta, (inputs(generator),))
        if loss == "cross_entropy":
            logits = out.flatten(0, 1) if out.dim() == 3 else out
            target = torch.randint(logits.shape[1], (len(logits),), generator=generator)
            value = F.cross_entropy(logits, target)
        else:
            value = F.mse_loss(out, torch.randn(out.shape, generator=generator, dtype=torch.float64))
        if any(silent):
            continue
        wanted = [n for n in names if theta[n].requires_grad]
        found = torch.autograd.grad(value, [theta[n] for n in wanted], allow_unused=True)
        by_name = dict(zip(wanted, found, strict=True))
        flat = [by_name.get(n) for n in names]
        grads.append(
            torch.cat(
                [torch.zeros(theta[n].numel()) if g is None else g.ravel() for n, g in zip(names, flat, strict=True)]
            )
        )
        thetas.append(torch.cat([theta[n].detach().ravel() for n in names]))
    if len(grads) < samples:
        raise UnclearError
    return torch.stack(thetas).numpy(), torch.stack(grads).numpy()


def _says_nothing(norm: nn.Module, x: torch.Tensor) -> bool:
    """Whether eps or rounding, relative to what a norm divides by, would show in its output.

    A channel that ReLUs silence over a batch has the variance of rounding noise; powers of small numbers have
    one that is no larger than eps (x⁹ of x = 0.05: 1e-24). Zeros everywhere in a sample are no trouble: nothing
    before them gets a gradient.
    """
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        units = x.transpose(0, 1).flatten(1)
    elif isinstance(norm, nn.GroupNorm):
        units = x.reshape(len(x) * norm.num_groups, -1)
    else:
        units = x.flatten(-len(norm.normalized_shape)).flatten(0, -2)
    square = units.square().mean(dim=1)
    size = square if isinstance(norm, nn.RMSNorm) else units.var(dim=1, unbiased=False)
    small = size < 1e-8 * square + 1e11 * TINY  # so that eps is below 1e-11 of it
    return bool((small if isinstance(norm, nn.modules.batchnorm._BatchNorm) else small & (square > 0)).any())


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


def check(
    model: nn.Module, inputs, loss: str = "cross_entropy", seed: int = 0, *, complete: bool = True, missed: int = 0
):
    """Assert that discovery claims nothing false and, if `complete`, all; returns the two dimensions.

    `missed` is the number of translations that are known not to be seen.
    """
    model = model.double().train()
    parameters = sum(p.numel() for p in model.parameters())
    if isinstance(inputs, tuple):
        shape = inputs
        inputs = lambda g: torch.randn(shape, generator=g, dtype=torch.float64)  # noqa: E731
    # A copy: functional_call leaves tied parameters as plain tensors behind.
    theta, grad = gradients(copy.deepcopy(model), inputs, parameters + parameters // 4 + 40, loss, seed)
    # A channel that ReLUs silence on a whole batch is normalised rounding noise: such batches say nothing.
    size = np.linalg.norm(grad, axis=1)
    sound = size < 1e3 * np.median(size)
    theta, grad = theta[sound], grad[sound] / size[sound, None]
    found = find_symmetries(model, inputs(torch.Generator().manual_seed(seed)), loss=loss)
    claimed = {name: g.toarray() for name, g in found.generators().items()}
    translation = claimed.get("translation", np.zeros((0, parameters)))
    diagonal = np.concatenate([claimed.get(k, np.zeros((0, parameters))) for k in ("scale", "rescale")])

    moving = np.abs(grad).max(axis=0) > 1e-9 * np.abs(grad).max()  # the others belong to translation alone
    named = list(model.named_parameters())
    unread = {name for name, reason in found.uncovered.items() if reason.startswith("no gradient")}
    frozen = np.concatenate([np.full(p.numel(), not p.requires_grad or n in unread) for n, p in named])
    assert np.abs(grad @ translation.T).max(initial=0) <= 1e-9
    assert np.abs((theta * grad) @ diagonal.T).max(initial=0) <= 1e-9
    assert rank(translation) == len(translation)
    assert rank(diagonal) == len(diagonal)
    if not complete:
        return len(diagonal), len(translation)
    true_shift = null_space(grad[:, ~frozen])
    true_diagonal = null_space((theta * grad)[:, moving])
    assert not diagonal[:, ~moving].any()
    assert not translation[:, frozen].any()
    assert len(translation) + missed == len(true_shift)
    assert len(diagonal) == len(true_diagonal)
    return len(diagonal), len(translation)
