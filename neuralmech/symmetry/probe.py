"""Loss, gradient and Hessian-vector products of one model on one batch, over the flat parameter vector."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import expm_multiply
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from neuralmech.losses import loss_of
from neuralmech.symmetry.factored import Shapes, Vector, generator, inner_products, squared_lengths
from neuralmech.symmetry.group import Family
from neuralmech.symmetry.matrix import MatrixFamily
from neuralmech.symmetry.precision import Float64, float64_throughout, plain_attention

ANGLES = (-0.5, -0.1, 0.1, 0.5)  # values of the group parameter α
TESTS = ("finite", "gradient", "hessian")


def _first_tensor(out: Any) -> Tensor:
    """What the loss reads, as in the trace: the first tensor of several (auxiliary logits, caches)."""
    return out if isinstance(out, Tensor) else next(x for x in tree_leaves(out) if isinstance(x, Tensor))


class Probe:
    """Measures how far a family's charges violate the three constraints.

    Parameters
    ----------
    model
        In training mode; left as it is.
    batch, targets
        What the model takes, and labels (values for ``mse``).
    throughout
        Compute in float64 whatever the model casts to.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: tuple[Tensor, ...],
        targets: Tensor,
        loss: str,
        seed: int,
        *,
        throughout: bool = False,
    ) -> None:
        self._model, self._loss, self._seed = model, loss, seed
        self._mode = Float64() if throughout else None
        self._names = [name for name, _ in model.named_parameters()]
        self._shapes = [p.shape for p in model.parameters()]
        first = next(iter(model.parameters()))
        self._batch = tuple(x.to(first.device, first.dtype) if x.is_floating_point() else x for x in batch)
        self._targets = targets.to(first.device, first.dtype) if targets.is_floating_point() else targets
        self.theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).requires_grad_()
        with self._arithmetic():
            self._value = self.loss(self.theta)
            (self.gradient,) = torch.autograd.grad(self._value, self.theta, create_graph=True)
        self._size = float(self.gradient.detach().double().norm())
        self._stiffness: float | None = None

    @property
    def refused_casts(self) -> int:
        """Number of casts to less than float64 that were not made."""
        return self._mode.refused if self._mode else 0

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        with plain_attention():
            if self._mode is None:
                yield
            else:
                with float64_throughout(self._mode):
                    yield

    def loss(self, theta: Tensor) -> Tensor:
        """Loss at a flat parameter vector; the same noise and untouched running statistics every time."""
        parts = theta.split([s.numel() for s in self._shapes])
        state: dict[str, Tensor] = {n: p.view(s) for n, p, s in zip(self._names, parts, self._shapes, strict=True)}
        state |= {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            out = _first_tensor(functional_call(self._model, state, self._batch))
        return loss_of(out, self._targets, self._loss)

    def _hessian(self, vector: Tensor) -> Tensor:
        if not self.gradient.requires_grad:
            return torch.zeros_like(vector)
        with self._arithmetic():
            (product,) = torch.autograd.grad(self.gradient, self.theta, vector, retain_graph=True, allow_unused=True)
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

    def gradient_violations(self, family: Family, shapes: Shapes) -> Vector:
        """Return |⟨g, ∂_αψ⟩| / (|g| |∂_αψ|) for every charge of a family."""
        theta = self.theta.detach().double().cpu().numpy()
        gradient = self.gradient.detach().double().cpu().numpy()
        if isinstance(family, MatrixFamily):
            along, squares = family.forms(shapes, theta, gradient), family.squared_lengths(shapes, theta)
            return np.abs(along) / np.maximum(np.sqrt(squares) * self._size, 1e-300)
        along = inner_products(family, shapes, gradient if family.is_translation else theta * gradient)
        squares = squared_lengths(family, shapes, np.ones_like(theta) if family.is_translation else theta * theta)
        return np.abs(along) / np.maximum(np.sqrt(squares) * self._size, 1e-300)

    def second_order(self, family: Family, shapes: Shapes, charge: int) -> tuple[float, float]:
        """Finite and Hessian violations of one charge; the latter is NaN where there is no second derivative."""
        start = float(self._value.detach().double())
        moved, direction, twist = self._transformed(family, shapes, charge)
        with torch.no_grad(), self._arithmetic():
            change = max(abs(float(self.loss(x).double()) - start) for x in moved)
        finite = change / max(abs(start), 1e-300)
        if math.isnan(self.stiffness):
            return finite, math.nan
        violation = float((self._hessian(direction) + twist).double().norm())
        size = self.stiffness * float(direction.double().norm()) + float(twist.double().norm())
        return finite, violation / max(size, 1e-300)

    def _transformed(self, family: Family, shapes: Shapes, charge: int) -> tuple[Iterator[Tensor], Tensor, Tensor]:
        """ψ(θ, α) for several α, ∂_αψ, and (∂_θ∂_αψ) g."""
        theta, gradient = self.theta.detach(), self.gradient.detach()
        if isinstance(family, MatrixFamily):
            m = family.generator(shapes, charge)
            apply = lambda matrix, x: torch.as_tensor(matrix @ x.double().cpu().numpy()).to(theta)  # noqa: E731
            start = theta.double().cpu().numpy()
            moved = (torch.as_tensor(expm_multiply(a * m, start)).to(theta) for a in ANGLES)
            return moved, apply(m, theta), apply(m, gradient)
        m = torch.as_tensor(generator(family, shapes, charge)).to(theta)
        if family.is_translation:
            return (theta + a * m for a in ANGLES), m, torch.zeros_like(theta)
        return (theta * torch.exp(a * m) for a in ANGLES), theta * m, m * gradient
