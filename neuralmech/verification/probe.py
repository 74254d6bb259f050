"""Loss, gradient and Hessian-vector products of one model on one batch, over the flat parameter vector."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import singledispatch

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import expm_multiply
from torch import Tensor
from torch.func import functional_call

from neuralmech.data.draws import generators_kept
from neuralmech.losses import LossLike, as_loss
from neuralmech.outputs import output_of
from neuralmech.symmetry.factored import Shapes, Vector, generator, inner_products, squared_lengths
from neuralmech.symmetry.family import Family
from neuralmech.symmetry.matrix import MatrixFamily
from neuralmech.verification.conditions import Condition

ANGLES = (-0.5, -0.1, 0.1, 0.5)  # values of the group parameter α
DRAWS = 3  # of roundings
TESTS = ("finite", "gradient", "hessian")


class Probe:
    """Measures how far a family's charges violate the three constraints.

    Parameters
    ----------
    condition
        The model, its batch and how it computes.
    targets
        Of the batch, as the loss takes them.
    loss
        As `neuralmech.losses.as_loss` takes it.
    """

    def __init__(self, condition: Condition, targets: Shaped[Tensor, "batch ..."], loss: LossLike, seed: int) -> None:
        self._condition, self._model, self._loss, self._seed = condition, condition.model, as_loss(loss), seed
        self._names = [name for name, _ in self._model.named_parameters()]
        self._shapes = [p.shape for p in self._model.parameters()]
        dtype = condition.precision.dtype if targets.is_floating_point() else None
        self._targets = targets.to(condition.device, dtype)
        self.theta = torch.cat([p.detach().reshape(-1) for p in self._model.parameters()]).requires_grad_()
        with condition.arithmetic():
            self._value = self.loss(self.theta)
            (self._slope,) = torch.autograd.grad(self._value, self.theta, create_graph=True)
            scaled = self._scaled()
        self.gradient = self._slope.detach() if scaled is None else scaled
        self._size = float(self.gradient.double().norm())
        self._stiffness: float | None = None

    def _scaled(self) -> Tensor | None:
        """∇L by a scaled loss, with the largest scale that does not overflow; None where no scale is needed."""
        scale = self._condition.precision.loss_scale
        while scale > 1:
            (scaled,) = torch.autograd.grad(self._value * scale, self.theta, retain_graph=True)
            if bool(scaled.isfinite().all()):
                return scaled / scale
            scale /= 2
        return None

    def loss(self, theta: Float[Tensor, " parameters"]) -> Float[Tensor, ""]:
        """Loss at a flat parameter vector; the same noise and untouched running statistics every time."""
        parts = theta.split([s.numel() for s in self._shapes])
        state: dict[str, Tensor] = {n: p.view(s) for n, p, s in zip(self._names, parts, self._shapes, strict=True)}
        state |= {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        devices = [theta.device] if theta.is_cuda else []
        with torch.random.fork_rng(devices=devices), generators_kept(), self._condition.forward():
            self._seed_noise(theta.is_cuda)
            out = output_of(functional_call(self._model, state, self._condition.batch), type(self._model).__name__)
        return self._loss(out.to(theta.dtype), self._targets)

    def _seed_noise(self, cuda: bool) -> None:
        torch.default_generator.manual_seed(self._seed)  # torch.manual_seed is slow: a stack trace per absent device
        np.random.seed(self._seed % 2**32)  # noqa: NPY002  (a model may draw from it)
        random.seed(self._seed)
        if cuda:
            torch.cuda.manual_seed_all(self._seed)

    def _hessian(self, vector: Tensor) -> Tensor:
        if not self._slope.requires_grad:
            return torch.zeros_like(vector)
        with self._condition.arithmetic():
            (product,) = torch.autograd.grad(self._slope, self.theta, vector, retain_graph=True, allow_unused=True)
        return torch.zeros_like(vector) if product is None else product

    @property
    def stiffness(self) -> float:
        """Size of the Hessian along a random direction; NaN where an operation has no second derivative."""
        if self._stiffness is None:
            noise = torch.randn(self.theta.shape, generator=torch.Generator().manual_seed(self._seed)).to(self.theta)
            try:
                self._stiffness = float(self._hessian(noise).double().norm() / noise.double().norm())
            except RuntimeError as error:  # hardsigmoid, for instance
                if "not implemented" not in str(error):
                    raise
                self._stiffness = math.nan
        return self._stiffness

    def rounding(self) -> float:
        """Relative change of the loss where every parameter moves by its last bit, up or down at random: the worst."""
        theta, start = self.theta.detach(), float(self._value.detach().double())
        generator, bit, changes = torch.Generator().manual_seed(self._seed), torch.finfo(theta.dtype).eps, []
        for _ in range(DRAWS):
            signs = torch.randint(0, 2, theta.shape, generator=generator).to(theta) * 2 - 1
            with torch.no_grad(), self._condition.arithmetic():
                changes.append(abs(float(self.loss(theta * (1 + bit * signs)).double()) - start))
        return max(changes) / max(abs(start), 1e-300)

    def gradient_violations(self, family: Family, shapes: Shapes) -> Float64[NDArray, " charges"]:
        """Return |⟨g, ∂_αψ⟩| / (|g| |∂_αψ|) for every charge of a family."""
        theta = self.theta.detach().double().cpu().numpy()
        gradient = self.gradient.double().cpu().numpy()
        along, squares = _motion(family, shapes, theta, gradient)
        return np.abs(along) / np.maximum(np.sqrt(squares) * self._size, 1e-300)

    def second_order(self, family: Family, shapes: Shapes, charge: int) -> tuple[float, float]:
        """Finite and Hessian violations of one charge; the latter is NaN where there is no second derivative."""
        start = float(self._value.detach().double())
        moved, direction, twist = _transformed(family, shapes, charge, self.theta.detach(), self.gradient)
        with torch.no_grad(), self._condition.arithmetic():
            change = max(abs(float(self.loss(x).double()) - start) for x in moved)
        finite = change / max(abs(start), 1e-300)
        if math.isnan(self.stiffness):
            return finite, math.nan
        violation = float((self._hessian(direction) + twist).double().norm())
        size = self.stiffness * float(direction.double().norm()) + float(twist.double().norm())
        return finite, violation / max(size, 1e-300)


Transformed = tuple[Iterator[Tensor], Tensor, Tensor]


@singledispatch
def _motion(family: Family, shapes: Shapes, theta: Vector, gradient: Vector) -> tuple[Vector, Vector]:
    """⟨g, ∂_αψ⟩ and |∂_αψ|² of every charge."""
    along = inner_products(family, shapes, gradient if family.is_translation else theta * gradient)
    return along, squared_lengths(family, shapes, np.ones_like(theta) if family.is_translation else theta * theta)


@_motion.register(MatrixFamily)
def _(family: MatrixFamily, shapes: Shapes, theta: Vector, gradient: Vector) -> tuple[Vector, Vector]:
    return family.forms(shapes, theta, gradient), family.squared_lengths(shapes, theta)


@singledispatch
def _transformed(family: Family, shapes: Shapes, charge: int, theta: Tensor, gradient: Tensor) -> Transformed:
    """ψ(θ, α) of a charge for several α, ∂_αψ, and (∂_θ∂_αψ) g."""
    m = torch.as_tensor(generator(family, shapes, charge)).to(theta)
    if family.is_translation:
        return (theta + a * m for a in ANGLES), m, torch.zeros_like(theta)
    return (theta * torch.exp(a * m) for a in ANGLES), theta * m, m * gradient


@_transformed.register(MatrixFamily)
def _(family: MatrixFamily, shapes: Shapes, charge: int, theta: Tensor, gradient: Tensor) -> Transformed:
    m = family.generator(shapes, charge)
    apply = lambda matrix, x: torch.as_tensor(matrix @ x.double().cpu().numpy()).to(theta)  # noqa: E731
    start = theta.double().cpu().numpy()
    at = np.unique(m.row)  # all that M touches
    places = np.searchsorted(at, m.row), np.searchsorted(at, m.col)
    small = sparse.csr_array((m.data, places), shape=(len(at), len(at)))

    def turned(angle: float) -> Tensor:
        out = start.copy()
        out[at] = expm_multiply(angle * small, start[at])
        return torch.as_tensor(out).to(theta)

    return map(turned, ANGLES), apply(m, theta), apply(m, gradient)
