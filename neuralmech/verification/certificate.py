"""How many conservation laws there are: those of gradient flow, on any data, counted near a point.

A function C(θ) is conserved by ∇L of every batch if ∇C is orthogonal to all of them, hence also to the brackets
[f, h] = (Dh)f − (Df)h of such fields, brackets of brackets, and so on: to the Lie algebra that they generate. Where its
rank r is constant there are, by Frobenius' theorem, D − r independent such functions near each of D parameters' points,
and no more (Marcotte, Gribonval, Peyré 2023, "Abide by the Law and Follow the Flow"). The gradients of the charges that
discovery claims span a space whose dimension is the number of independent laws found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from neuralmech.errors import UserError
from neuralmech.losses import LossLike
from neuralmech.symmetry.factored import Shapes
from neuralmech.symmetry.family import generator_matrix, layer_names
from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.matrix import matrix_families
from neuralmech.verification.algebra import Field, Generated, Matrix, derivative, generated, homes, normalised, rank_of
from neuralmech.verification.conditions import Condition, condition
from neuralmech.verification.norms import PlainNorms
from neuralmech.verification.probe import Probe

MOST = 1000  # parameters: the rank takes some times their number of gradients, and its cube of time
TRIED = 4  # points at most: a unit that is dead, or never is, on all data makes laws of its own
ROUNDING = 1e-12  # of a gradient: an entry below is none
SPREAD = 0.7  # of the parameters
REACH = 4.0  # how much larger than one inputs may be, so that they cross what kinks there are


@dataclass(frozen=True)
class Certificate:
    """What a count found.

    Attributes
    ----------
    parameters
        D: how many get a gradient.
    silent
        How many get none, on any batch anywhere: biases in front of a norm, what the loss does not read. Each is
        conserved by itself, and not counted.
    charges
        Columns that discovery claims; entries of matrices are one each.
    found
        How many of these are independent, as functions of the D parameters.
    exist
        Independent conservation laws near the point.
    depth
        Of the brackets that were needed: 1 is the gradients alone.
    dead
        Parameters without a gradient at the point that get one elsewhere: units that are dead there.
    clear
        Whether the spectrum had a gap at the rank.
    beyond
        Layers that the laws not found are of.
    """

    parameters: int
    silent: int
    charges: int
    found: int
    exist: int
    depth: int
    dead: int
    clear: bool
    beyond: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether all that exist are found, and no more."""
        return self.clear and not self.dead and self.found == self.exist

    def __str__(self) -> str:
        laws = f"{self.found} independent conservation laws found"
        laws += f" ({self.charges} charges)" if self.charges != self.found else ""
        where = f"{self.exist} exist near random parameters ({self.parameters} that get a gradient)"
        if not self.clear:
            return f"{laws}; how many exist is not clear: float64 shows no gap in the spectrum"
        if self.dead:
            return f"{laws}, {where}, some only because units are dead there: {self.dead} parameters get no gradient"
        if self.exist < self.found:
            return f"{laws}, but only {where}: a claim is false; please report the model"
        return f"{laws}, {where}" + (f"; those not found are of {', '.join(self.beyond)}" if self.beyond else "")


def certify(
    model: nn.Module,
    inputs: Shaped[Tensor, "batch ..."] | tuple[Shaped[Tensor, "*shape"], ...],
    targets: Shaped[Tensor, "batch ..."],
    claims: Symmetries,
    loss: LossLike = "cross_entropy",
    *,
    points: int = 8,
    seed: int = 0,
) -> Certificate:
    """Count all conservation laws of gradient flow near random parameters, beside those that were found.

    Everything is done in float64, in training mode, norms without their eps.

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
        Random parameters to choose from: units that are dead there, or active on all data, make laws of their own, so
        that those with the fewest laws count.

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
    9 independent conservation laws found (14 charges), 9 exist near random parameters (12 that get a gradient)
    """
    batch = inputs if isinstance(inputs, tuple) else (inputs,)
    trained = _trained(model)
    generator = torch.Generator().manual_seed(seed)
    exact = condition("exact", model, batch)
    fields = [_field(exact, batch, targets, loss, generator) for _ in range(3 * int(trained.sum()) + 10)]
    with exact.arithmetic(), PlainNorms():
        candidates, live = _points(fields, trained, points, generator)
        best = _best(claims, {n: tuple(p.shape) for n, p in model.named_parameters()}, candidates, fields, live)
    return _certificate(model, claims, best, trained, live)


def _trained(model: nn.Module) -> NDArray[np.bool_]:
    trained = np.concatenate([np.full(p.numel(), p.requires_grad) for p in model.parameters()])
    if (size := int(trained.sum())) > MOST:
        raise UserError(
            f"certify=true counts laws of models of up to {MOST:,} parameters, this one has {size:,}; "
            "make it narrower, model.width=4 for instance"
        )
    return trained


class Point(NamedTuple):
    """Parameters, the gradients there on many batches, and which entries get one."""

    theta: Tensor
    gradients: Matrix
    alive: NDArray[np.bool_]


class Count(NamedTuple):
    """What was counted at a point: the charges' gradients, how many are independent, and the algebra."""

    point: Point
    charges: Matrix
    found: int
    algebra: Generated


def _certificate(
    model: nn.Module, claims: Symmetries, best: Count, trained: NDArray[np.bool_], live: NDArray[np.bool_]
) -> Certificate:
    dead, exist = int((live & ~best.point.alive).sum()), int(live.sum()) - best.algebra.rank
    told = best.algebra.clear and not dead and exist > best.found
    return Certificate(
        parameters=int(live.sum()),
        silent=int((trained & ~live).sum()),
        charges=sum(len(family) for family in claims.families.values()),
        found=best.found,
        exist=exist,
        depth=best.algebra.depth,
        dead=dead,
        clear=best.algebra.clear,
        beyond=homes(best.algebra, best.charges, _places(model, live)) if told else (),
    )


def _points(
    fields: Sequence[Field], trained: NDArray[np.bool_], points: int, generator: torch.Generator
) -> tuple[list[Point], NDArray[np.bool_]]:
    """Random points, those with the fewest dead parameters first, and which get a gradient anywhere."""
    found = []
    for _ in range(points):
        theta = SPREAD * torch.randn(len(trained), dtype=torch.float64, generator=generator)
        theta.requires_grad_()
        gradients = normalised(np.stack([field(theta).detach().numpy() for field in fields]))
        found.append(Point(theta, gradients, np.abs(gradients).max(axis=0) > ROUNDING))
    live = trained & np.logical_or.reduce([point.alive for point in found])
    return sorted(found, key=lambda point: int((~point.alive & trained).sum())), live


def _best(
    claims: Symmetries, shapes: Shapes, candidates: Sequence[Point], fields: Sequence[Field], live: NDArray[np.bool_]
) -> Count:
    """The count with the fewest laws, of the first points."""
    counts = []
    for point in candidates[:TRIED]:
        charges = _of_claims(claims, shapes, point.theta)[:, live]
        found = rank_of(charges)[0]
        algebra = generated(point.gradients, point.theta, fields, live, found)
        counts.append(Count(point, charges, found, algebra))
        if algebra.rank >= live.sum() - found:  # as many as were found, or fewer
            break
    return max(counts, key=lambda count: count.algebra.rank)


def _field(
    exact: Condition,
    batch: tuple[Tensor, ...],
    targets: Shaped[Tensor, "batch ..."],
    loss: LossLike,
    generator: torch.Generator,
) -> Field:
    """∇L on a batch drawn at random, as a function of θ that can be differentiated again."""
    reach = REACH ** float(torch.rand((), generator=generator))
    drawn = tuple(reach * x if x.is_floating_point() else x for x in (_like(x, generator) for x in batch))
    seed = int(torch.randint(2**31, (), generator=generator))
    moved = tuple(x.to(b.dtype) for x, b in zip(drawn, exact.batch, strict=True))
    with exact.arithmetic():
        probe = Probe(_with_batch(exact, moved), _like(targets, generator), loss, seed)

    def gradient(theta: Tensor) -> Tensor:
        return derivative(probe.loss(theta), theta)

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


def _places(model: nn.Module, live: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Which live entries are of each layer: its weight and bias together, which are enough for `homes` to tell."""
    owners = np.repeat([layer_names([n]) for n, _ in model.named_parameters()], [p.numel() for p in model.parameters()])
    return {name: (owners == name)[live] for name in dict.fromkeys(owners[live].tolist())}


def _of_claims(claims: Symmetries, shapes: Shapes, theta: Tensor) -> Matrix:
    """Gradients of all charges at θ, in the order of the shapes."""
    point, rows = theta.detach().numpy(), [np.zeros((0, theta.numel()))]
    for family in claims.families.values():
        if family.kind == "matrix":
            continue
        generators = generator_matrix(family, shapes)
        rows.append((generators if family.is_translation else generators @ sparse.diags_array(2 * point)).toarray())
    for family in matrix_families(claims.families.values()):
        rows += [2 * (family.generator(shapes, c) @ point)[None] for c in range(len(family))]
    return normalised(np.concatenate(rows))
