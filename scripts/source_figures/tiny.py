"""Models small enough to be seen whole: two or three parameters that tell handwritten ones from twos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from neuralmech.discovery.discover import find_symmetries

Array = NDArray[np.float64]
LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "bce": F.binary_cross_entropy_with_logits,
    "mse": F.mse_loss,
}
NO_EPS = 1e-30  # of BatchNorm: vanishes beside a variance, so that the scale symmetry is exact


def digits(components: int) -> tuple[Tensor, Tensor]:
    """Whitened principal components of the ones and twos (digits, components), and which are twos."""
    bunch = load_digits()
    chosen = np.isin(bunch.target, (1, 2))
    found = PCA(components, whiten=True, svd_solver="full").fit_transform(bunch.data[chosen])
    return torch.tensor(found), torch.tensor(bunch.target[chosen] == 2)


@dataclass(frozen=True)
class Tiny:
    """A model with its data and its one symmetry, as functions of all of its parameters θ in a row."""

    model: nn.Module
    loss: str
    family: str
    inputs: Tensor
    targets: Tensor

    def losses(self, theta: Array) -> Array:
        """Over all digits, at some points (points, parameters)."""
        return self._mapped(self._loss, theta, slice(None))

    def gradients(self, theta: Array, batch: NDArray[np.int64] | slice = slice(None)) -> Array:
        """By autograd, over all digits or a batch, at some points (points, parameters)."""
        return self._mapped(grad(self._loss), theta, batch)

    def _loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        sizes = [p.numel() for p in self.model.parameters()]
        parts = zip(self.model.named_parameters(), theta.split(sizes), strict=True)
        outputs = functional_call(self.model, {name: part.reshape(p.shape) for (name, p), part in parts}, (x,))
        return LOSSES[self.loss](outputs, y)

    def _mapped(self, function: Callable[..., Tensor], theta: Array, batch: NDArray[np.int64] | slice) -> Array:
        x, y = self.inputs[batch], self.targets[batch]
        return vmap(lambda at: function(at, x, y))(torch.as_tensor(theta)).numpy()

    @cached_property
    def form(self) -> Array:
        """The vector a of ⟨a, θ⟩, or the diagonal of S of θᵀSθ: of the charge that discovery finds in the model."""
        found = find_symmetries(self.model, self.inputs, self.loss).generators()
        return found[self.family].toarray()[0]

    def generators(self, theta: Array) -> Array:
        """Of the symmetry, at some points."""
        return self.form * (np.ones_like(theta) if self.family == "translation" else theta)

    def charges(self, theta: Array) -> Array:
        """Of some points."""
        return (theta if self.family == "translation" else theta**2) @ self.form

    def lean(self, theta: Array) -> Array:
        """|⟨g, ∂ψ⟩|/|g||∂ψ| at some points: zero where the symmetry holds."""
        g, along = self.gradients(theta), self.generators(theta)
        size = np.linalg.norm(g, axis=1) * np.linalg.norm(along, axis=1)
        return np.abs((g * along).sum(axis=1)) / size

    def flow(self, start: Array, duration: float) -> Array:
        """Gradient flow θ' = −g of all digits, at times evenly spread over the duration (times, parameters)."""
        times = np.linspace(0, duration, 400)
        found = solve_ivp(
            lambda _, at: -self.gradients(at[None])[0], (0, duration), start, t_eval=times, rtol=1e-10, atol=1e-12
        )
        return found.y.T

    def sgd(self, start: Array, lr: float, steps: int, batch_size: int) -> tuple[Array, Array]:
        """Iterates on random batches (steps + 1, parameters), and the batches' gradients (steps, parameters)."""
        random, theta, path, slopes = np.random.default_rng(0), start, [start], []
        for _ in range(steps):
            batch = random.choice(len(self.inputs), batch_size, replace=False)
            slopes.append(self.gradients(theta[None], batch)[0])
            theta = theta - lr * slopes[-1]
            path.append(theta)
        return np.array(path), np.array(slopes)

    def law(self, start: Array, slopes: Array, lr: float) -> Array:
        """Charges of SGD by theory: at the start, plus η²D summed, D the form of the gradient (steps + 1,)."""
        drive = np.zeros(len(slopes)) if self.family == "translation" else slopes**2 @ self.form
        return self.charges(start[None]) + np.concatenate([[0], np.cumsum(lr**2 * drive)])


def softmax_pair() -> Tiny:
    """The two weights of softmax regression on one input."""
    x, is_two = digits(1)
    return Tiny(nn.Linear(1, 2, bias=False).double(), "cross_entropy", "translation", x, is_two.long())


def normalised(inputs: int) -> Tiny:
    """The weights of a neuron whose output BatchNorm normalises."""
    x, is_two = digits(inputs)
    norm = nn.BatchNorm1d(1, affine=False, eps=NO_EPS, track_running_stats=False)
    model = nn.Sequential(nn.Linear(inputs, 1, bias=False), norm).double()
    return Tiny(model, "bce", "scale", x, is_two[:, None].double())


def relu_pair() -> Tiny:
    """The weight into a ReLU and the weight out of it."""
    x, is_two = digits(1)
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)).double()
    return Tiny(model, "mse", "rescale", x, 2 * is_two[:, None].double() - 1)
