"""The Lie algebra that gradients generate at a point: its rank, and what the laws that it leaves room for are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from numpy.typing import NDArray
from torch import Tensor

FIELDS = 12  # gradients whose brackets are taken; the algebra is that of all, which random ones generate
DEEPEST = 4
FEWER = 4  # brackets beyond those that could raise the rank, if all that was found is true
ZERO, GAP = 1e-9, 1e2  # of the largest singular value; what is below must be so many times smaller than what is above
CLOSE = 1e-5  # of a unit vector in the null space, which rounding turns by up to its inverse gap

Field = Callable[[Tensor], Tensor]
Matrix = Float64[NDArray, "vectors parameters"]


class Generated(NamedTuple):
    """What fields generate at a point: vectors that span it, their rank, the depth of brackets, whether it is clear."""

    vectors: Matrix
    rank: int
    depth: int
    clear: bool


def derivative(
    value: Float[Tensor, "*shape"], by: Float[Tensor, " parameters"], along: Float[Tensor, "*shape"] | None = None
) -> Float[Tensor, " parameters"]:
    """∂⟨value, along⟩/∂by, to be differentiated again; zero where nothing depends on it."""
    if not value.requires_grad:
        return torch.zeros_like(by)
    (found,) = torch.autograd.grad(value, by, along, create_graph=True, allow_unused=True)
    return torch.zeros_like(by) if found is None else found


def _along(field: Field, theta: Tensor, direction: Tensor) -> Tensor:
    """(D field) direction: the derivative of ⟨uᵀ D field, direction⟩ by u, which it is linear in."""
    value = field(theta)
    u = torch.zeros_like(value, requires_grad=True)
    return derivative(derivative(value, theta, u), u, direction)


def _terms(f: Field, h: Field, theta: Tensor) -> tuple[Tensor, Tensor]:
    return _along(h, theta, f(theta)), _along(f, theta, h(theta))


def _bracket(f: Field, h: Field) -> Field:
    def bracket(theta: Tensor) -> Tensor:
        first, second = _terms(f, h, theta)
        return first - second

    return bracket


def generated(
    gradients: Matrix,
    theta: Float64[Tensor, " parameters"],
    fields: Sequence[Field],
    live: Bool[NDArray, " parameters"],
    found: int,
) -> Generated:
    """The algebra of some fields at θ, of which `gradients` are all, over the entries that are `live`.

    Each bracket is relative to the size of its two terms: where they cancel, what is left is rounding.
    """
    vectors, level, random = gradients[:, live], list(fields[:FIELDS]), np.random.default_rng(0)
    rank, clear = rank_of(vectors)
    for depth in range(1, DEEPEST):
        wanted = max(0, vectors.shape[1] - rank - found) + FEWER
        pairs = [(f, h) for i, f in enumerate(level) for h in fields[: i if depth == 1 else FIELDS]]
        chosen = [pairs[k] for k in random.permutation(len(pairs))[:wanted]]
        brackets = []
        for f, h in chosen:
            first, second = (term.detach().numpy()[live] for term in _terms(f, h, theta))
            size = np.linalg.norm(first) + np.linalg.norm(second)
            brackets.append((first - second) / (size or 1.0))
        vectors = np.concatenate([vectors, np.stack(brackets)])
        before, (rank, clear) = rank, rank_of(vectors)
        if rank == before:
            return Generated(vectors, rank, depth, clear)
        level = [_bracket(f, h) for f, h in chosen]
    return Generated(vectors, rank, DEEPEST, clear)


def normalised(vectors: Matrix) -> Matrix:
    """Unit vectors; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def rank_of(vectors: Matrix) -> tuple[int, bool]:
    """Rank of some vectors, and whether there is a gap in their singular values."""
    if not vectors.size:
        return 0, True
    values = np.linalg.svd(vectors, compute_uv=False)
    rank = int((values > ZERO * values[0]).sum())
    if not 0 < rank < len(values):
        return rank, True
    return rank, values[rank - 1] > GAP * values[rank]


def homes(algebra: Generated, charges: Matrix, places: Mapping[str, Bool[NDArray, " parameters"]]) -> tuple[str, ...]:
    """Which of some places in θ the laws beyond some charges are of: none of these can be left out.

    Gradients of laws span the algebra's orthogonal complement. Place by place those that vanish there are kept, as long
    as they and the charges' gradients span all of it. That is said of a point: where a place has few entries, there may
    be a combination of laws that vanishes there and has other coefficients at the next point.
    """
    laws = np.linalg.svd(algebra.vectors)[2][algebra.rank :]
    kept = []
    for name, entries in places.items():
        _, values, right = np.linalg.svd(laws[:, entries].T)
        without = right[int((values > CLOSE).sum()) :] @ laws
        if np.linalg.matrix_rank(np.concatenate([without, charges]), tol=CLOSE) < charges.shape[1] - algebra.rank:
            kept.append(name)
        else:
            laws = without
    return tuple(kept)
