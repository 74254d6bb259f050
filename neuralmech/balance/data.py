r"""Data symmetry: what a data set that is closed under a linear action says about the first layer.

The first layer sees inputs only as Wx, and W(Rx) = (WR)x. If the data (inputs with their labels) are the
same set after x ↦ Rx, then L(WR) = L(W) at fixed other parameters. For a continuous group R = exp(αA) the
derivative at α = 0 is ⟨∇_W L, WA⟩ = 0: gradient flow has no angular momentum, ⟨Ẇ, WA⟩ = 0 (Głuch & Urbanke
2021, data symmetry). For A + Aᵀ = 0 this is not the derivative of any function of W (⟨W, WA⟩ is identically zero): it
restricts the direction of motion. With a momentum buffer b, L = ⟨b, WA⟩ obeys L ← βL exactly (Marcotte, Gribonval,
Peyré 2024, for the flow), since ⟨b, bA⟩ = 0: zero from an empty buffer. Nesterov's update breaks it.

Finitely many samples are closed under a finite group only. Of the rotations by multiples of 2π/n, α ↦ L(We^{αA})
is then periodic with period 2π/n, exactly; its slope at 0 is the error of an n-point quadrature over the circle:
with the Fourier coefficients c_m of the loss of a rotating sample, Σ_j i j n c_{jn}. It falls faster than any
power of n for smooth activations, and like a power for ReLU; for a polynomial net of degree d under the mean squared
error there are harmonics up to 2d only, and it is zero for n > 2d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralmech.balance.time import gradient, outputs_of, trainable
from neuralmech.errors import UserError
from neuralmech.losses import LossLike, loss_of


def rotations(generator: Float[Tensor, "features features"], count: int) -> list[Float[Tensor, "features features"]]:
    """R_k = exp(2πk A/count), k = 0 … count − 1: closed if exp(2πA) = 1.

    Examples
    --------
    >>> quarter = rotations(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64), 4)[1]
    >>> quarter.round().abs().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return [torch.linalg.matrix_exp(2 * math.pi * k / count * generator) for k in range(count)]


def orbit(
    inputs: Float[Tensor, "samples features ..."],
    targets: Shaped[Tensor, "samples ..."],
    group: Sequence[Float[Tensor, "features features"]],
) -> tuple[Float[Tensor, "moved features ..."], Shaped[Tensor, "moved ..."]]:
    """Every sample under every element of a group, with its label: augmentation in full.

    Parameters
    ----------
    inputs, targets
        Shapes (samples, features, …) and (samples, …); the action is on dimension 1 of the inputs.
    group
        Matrices (features, features); the result is closed only if they form a group.

    Returns
    -------
    tuple of Tensor
        (elements × samples, features, …) and the repeated targets.
    """
    moved = [torch.einsum("ij,bj...->bi...", r.to(inputs), inputs) for r in group]
    return torch.cat(moved), torch.cat([targets] * len(moved))


def angular_momentum(
    model: nn.Module,
    weight: str,
    inputs: Float[Tensor, "samples features ..."],
    targets: Shaped[Tensor, "samples ..."],
    generator: Float[Tensor, "features features"],
    loss: LossLike = "cross_entropy",
) -> tuple[float, float]:
    """⟨∇_W L, WA⟩ and |∇_W L| |WA|, the size it could have.

    Parameters
    ----------
    model
        In the mode that defines the loss; left as it is.
    weight
        Name of the first layer's weight W, shape (out, features, …); `generator` acts on its dimension 1.
    inputs, targets
        The augmented batch, see `orbit`.
    generator
        A, shape (features, features).

    Raises
    ------
    UserError
        If the model has no such weight or its features are not the generator's.
    """
    theta = trainable(model)
    w = _weight(theta, weight, generator)
    _, slope = gradient(model, theta, inputs, targets, loss)
    moved = _act(w, generator)
    return float((slope[weight] * moved).sum()), float(slope[weight].norm() * moved.norm())


def finite_change(
    model: nn.Module,
    weight: str,
    inputs: Float[Tensor, "samples features ..."],
    targets: Shaped[Tensor, "samples ..."],
    element: Float[Tensor, "features features"],
    loss: LossLike = "cross_entropy",
) -> float:
    """L(WR) − L(W) for a finite transformation R; zero for the elements of a group the data is closed under.

    Parameters and errors are those of `angular_momentum`.
    """
    theta = trainable(model)
    moved = {**theta, weight: _act(_weight(theta, weight, element), element)}
    outputs = outputs_of(model, inputs)
    with torch.no_grad():
        return float(loss_of(outputs(moved), targets, loss) - loss_of(outputs(theta), targets, loss))


def _act(w: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("oi...,ij->oj...", w, matrix.to(w))


def _weight(theta: dict[str, Tensor], name: str, matrix: Tensor) -> Tensor:
    if name not in theta:
        raise UserError(f"weight={name} is no trainable parameter of this model; choose one of {', '.join(theta)}")
    features = theta[name].shape[1] if theta[name].dim() > 1 else 0
    if tuple(matrix.shape) != (features, features):
        shape = tuple(matrix.shape)
        raise UserError(f"generator: shape {shape} does not act on the {features} features of {name}; make it square")
    return theta[name]
