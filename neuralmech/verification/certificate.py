"""How many conservation laws there are: those of gradient flow, on any data, counted near a point.

A function C(θ) is conserved by ∇L of every batch if ∇C is orthogonal to all of them, hence also to the brackets
[f, h] = (Dh)f − (Df)h of such fields, brackets of brackets, and so on: to the Lie algebra that they generate. Where its
rank r is constant there are, by Frobenius' theorem, D − r independent such functions near each of D parameters' points,
and no more (Marcotte, Gribonval, Peyré 2023, "Abide by the Law and Follow the Flow"). The gradients of the charges that
discovery claims span a space whose dimension is the number of independent laws found.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuralmech.errors import UserError
from neuralmech.losses import LossLike
from neuralmech.symmetry.factored import Shapes
from neuralmech.symmetry.family import generator_matrix
from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.matrix import matrix_families
from neuralmech.verification.conditions import Condition, condition
from neuralmech.verification.probe import Probe

MOST = 1000  # parameters: the rank takes some times their number of gradients, and its cube of time
FIELDS = 12  # gradients whose brackets are taken; the algebra is that of all, which random ones generate
DEEPEST = 4
FEWER = 4  # brackets beyond those that could raise the rank
ZERO, GAP = 1e-9, 1e2  # of the largest singular value; what is below must be so many times smaller than what is above
SPREAD = 0.7  # of the parameters

Field = Callable[[Tensor], Tensor]
Matrix = Float64[NDArray, "vectors parameters"]


@dataclass(frozen=True)
class Certificate:
    """What a count found.

    Attributes
    ----------
    parameters
        D: how many are trained.
    charges
        Columns that discovery claims; entries of matrices are one each.
    found
        How many of these are independent.
    exist
        Independent conservation laws near the points.
    depth
        Of the brackets that were needed: 1 is the gradients alone.
    dead
        Parameters without a gradient at the point that others have elsewhere: units that are dead there.
    clear
        Whether the spectrum had a gap at the rank.
    """

    parameters: int
    charges: int
    found: int
    exist: int
    depth: int
    dead: int
    clear: bool

    def __str__(self) -> str:
        laws = f"{self.found} independent conservation laws found"
        laws += f" ({self.charges} charges)" if self.charges != self.found else ""
        where = f"{self.exist} exist near random parameters (of {self.parameters})"
        if not self.clear:
            return f"{laws}; how many exist is not clear: float64 shows no gap in the spectrum"
        if self.dead:
            return f"{laws}, {where}, some of them only because {self.dead} parameters get no gradient there"
        if self.exist < self.found:
            return f"{laws}, but only {where}: a claim is false; please report the model"
        return f"{laws}, {where}"


def certify(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    targets: Tensor,
    claims: Symmetries,
    loss: LossLike = "cross_entropy",
    *,
    points: int = 3,
    seed: int = 0,
) -> Certificate:
    """Count all conservation laws of gradient flow near random parameters, beside those that were found.

    Everything is done in float64, in training mode, norms without their eps. Dead units make laws of their own; of
    several points the one with the fewest laws counts.

    Parameters
    ----------
    model
        As for `find_symmetries`; it is left as it is. Up to `MOST` parameters.
    inputs, targets
        A batch; others of its shape are drawn at random.
    claims
        What `find_symmetries` returned.
    loss
        As for `find_symmetries`.
    points
        Random parameters at which to count.

    Raises
    ------
    UserError
        If the model is too large, or the loss's gradient cannot be differentiated again.

    Examples
    --------
    >>> from neuralmech.discovery.discover import find_symmetries
    >>> net = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Linear(4, 1, bias=False))
    >>> x, y = torch.randn(3, 2), torch.randn(3, 1)
    >>> print(certify(net, x, y, find_symmetries(net, x, "mse"), "mse"))
    9 independent conservation laws found (14 charges), 9 exist near random parameters (of 12)
    """
    batch = inputs if isinstance(inputs, tuple) else (inputs,)
    names = [name for name, _ in model.named_parameters()]
    trained = np.concatenate([np.full(p.numel(), p.requires_grad) for p in model.parameters()])
    if (size := int(trained.sum())) > MOST:
        raise UserError(
            f"certify=true counts laws of models of up to {MOST:,} parameters, this one has {size:,}; "
            "make it narrower, model.width=4 for instance"
        )
    generator = torch.Generator().manual_seed(seed)
    exact = condition("exact", model, batch)
    counted = []
    for _ in range(points):
        theta = SPREAD * torch.randn(len(trained), dtype=torch.float64, generator=generator)
        fields = [_field(exact, batch, targets, loss, generator) for _ in range(3 * size + 10)]
        with exact.arithmetic(), PlainBatchNorm():
            counted.append(_count(theta, fields, trained))
        gradients = _of_claims(claims, {n: tuple(p.shape) for n, p in model.named_parameters()}, names, theta)
        counted[-1] = (*counted[-1], _rank(gradients[:, trained])[0])
    dead = [np.abs(g).max(axis=0) == 0 for *_, g, _ in counted]
    exist, depth, clear, silent, found = min(
        (size - rank, depth, clear, i, found) for i, (rank, depth, clear, _, found) in enumerate(counted)
    )
    everywhere = np.logical_and.reduce(dead)
    charges = sum(len(family) for family in claims.families.values())
    return Certificate(size, charges, found, exist, depth, int((dead[silent] & ~everywhere).sum()), clear)


class PlainBatchNorm(TorchFunctionMode):
    """Inside, batch norms in training are made of sums and roots: torch's own has two derivatives, and no third."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run a function."""
        if func is not nn.functional.batch_norm:
            return func(*args, **(kwargs or {}))
        of = inspect.signature(func).bind(*args, **(kwargs or {}))
        of.apply_defaults()
        x, weight, bias, training, eps = (of.arguments[n] for n in ("input", "weight", "bias", "training", "eps"))
        if not training:
            return func(*args, **(kwargs or {}))
        dims = [d for d in range(x.dim()) if d != 1]
        out = (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True) + eps).sqrt()
        shape = [1, -1, *[1] * (x.dim() - 2)]
        out = out if weight is None else out * weight.view(shape)
        return out if bias is None else out + bias.view(shape)


def _field(
    exact: Condition, batch: tuple[Tensor, ...], targets: Tensor, loss: LossLike, generator: torch.Generator
) -> Field:
    """∇L on a batch drawn at random, as a function of θ that can be differentiated again."""
    drawn = tuple(_like(x, generator) for x in batch)
    seed = int(torch.randint(2**31, (), generator=generator))
    moved = tuple(x.to(b.dtype) for x, b in zip(drawn, exact.batch, strict=True))
    with exact.arithmetic():
        probe = Probe(_with_batch(exact, moved), _like(targets, generator), loss, seed)

    def gradient(theta: Tensor) -> Tensor:
        return _derivative(probe.loss(theta), theta)

    return gradient


def _with_batch(exact: Condition, batch: tuple[Tensor, ...]) -> Condition:
    return replace(exact, batch=batch)


def _like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers of the kind that a tensor holds, drawn anew: classes or tokens, shares, or anything."""
    if not x.is_floating_point():
        return torch.randint(int(x.max()) + 1, x.shape, generator=generator).to(x.dtype)
    if float(x.min()) >= 0 and float(x.max()) <= 1:
        return torch.rand(x.shape, dtype=torch.float64, generator=generator)
    return torch.randn(x.shape, dtype=torch.float64, generator=generator)


def _derivative(value: Tensor, by: Tensor, along: Tensor | None = None) -> Tensor:
    """∂⟨value, along⟩/∂by, to be differentiated again; zero where nothing depends on it."""
    if not value.requires_grad:
        return torch.zeros_like(by)
    (found,) = torch.autograd.grad(value, by, along, create_graph=True, allow_unused=True)
    return torch.zeros_like(by) if found is None else found


def _along(field: Field, theta: Tensor, direction: Tensor) -> Tensor:
    """(D field) direction: the derivative of ⟨uᵀ D field, direction⟩ by u, which it is linear in."""
    value = field(theta)
    u = torch.zeros_like(value, requires_grad=True)
    return _derivative(_derivative(value, theta, u), u, direction)


def _bracket(f: Field, h: Field) -> Field:
    return lambda theta: _along(h, theta, f(theta)) - _along(f, theta, h(theta))


def _count(theta: Tensor, fields: Sequence[Field], trained: NDArray[np.bool_]) -> tuple[int, int, bool, NDArray]:
    """Rank of the algebra at θ, depth of the brackets that it took, whether it is clear, and the gradients."""
    theta, random = theta.requires_grad_(), np.random.default_rng(0)
    gradients = np.stack([field(theta).detach().numpy()[trained] for field in fields])
    vectors, level = _normalised(gradients), list(fields[:FIELDS])
    rank, clear = _rank(vectors)
    for depth in range(1, DEEPEST):
        missing = vectors.shape[1] - rank
        pairs = [(level[i], fields[j]) for i in range(len(level)) for j in range(FIELDS) if i != j or depth > 1]
        chosen = [pairs[k] for k in random.permutation(len(pairs))[: missing + FEWER]]
        level = [_bracket(f, h) for f, h in chosen]
        brackets = np.stack([b(theta).detach().numpy()[trained] for b in level])
        vectors = np.concatenate([vectors, _normalised(brackets)])
        before, (rank, clear) = rank, _rank(vectors)
        if rank == before:
            return rank, depth, clear, gradients
    return rank, DEEPEST, clear, gradients


def _normalised(vectors: Matrix) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _rank(vectors: Matrix) -> tuple[int, bool]:
    """Rank of some vectors, and whether there is a gap in their singular values."""
    if not vectors.size:
        return 0, True
    values = np.linalg.svd(vectors, compute_uv=False)
    rank = int((values > ZERO * values[0]).sum())
    if not 0 < rank < len(values):
        return rank, True
    return rank, values[rank - 1] > GAP * values[rank]


def _of_claims(claims: Symmetries, shapes: Shapes, names: Sequence[str], theta: Float[Tensor, " parameters"]) -> Matrix:
    """Gradients of all charges at θ, which is in the order of the names."""
    order = {n: i for i, n in enumerate(names)}
    assert list(shapes) == sorted(shapes, key=order.__getitem__)
    point, rows = theta.detach().numpy(), []
    for family in claims.families.values():
        if family.kind == "matrix":
            continue
        generators = generator_matrix(family, shapes)
        rows.append((generators if family.is_translation else generators @ sparse.diags_array(2 * point)).toarray())
    for family in matrix_families(claims.families.values()):
        rows += [np.stack([2 * (family.generator(shapes, c) @ point) for c in range(len(family))])]
    return _normalised(np.concatenate(rows)) if rows else np.zeros((0, len(point)))
