"""Check every claimed symmetry on a real batch: finite transformation, gradient and Hessian constraints."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from neuralmech.errors import UserError
from neuralmech.losses import loss_of
from neuralmech.symmetry.discover import Loss, find_symmetries
from neuralmech.symmetry.group import Family, Symmetries

CONDITIONS = ("exact", "float64", "own")
ANGLES = (-0.5, -0.1, 0.1, 0.5)  # values of the group parameter α
NO_EPSILON = 1e-24  # what a norm's eps is set to, to tell its effect from a false claim
TOLERANCE = {"finite": 1e-9, "gradient": 1e-9, "hessian": 1e-6}


@dataclass(frozen=True)
class Verification:
    """How well each site's claims hold; the worst charge stands for its site.

    Attributes
    ----------
    table
        One row per family and site: ``charges``, ``sampled`` (charges whose finite transformation and Hessian
        were checked; the gradient is checked for all), then for each condition (``exact``: float64 with norms'
        eps removed; ``float64``; ``own``: the model's precision) the worst ``finite``, ``gradient`` and
        ``hessian``; ``cause`` names what breaks the symmetry in the latter two; ``holds`` is the verdict.
    """

    table: pd.DataFrame

    @property
    def passed(self) -> bool:
        """Whether every claim holds in exact arithmetic."""
        return bool(self.table["holds"].all()) if len(self.table) else True

    @property
    def worst(self) -> float:
        """Largest violation of the gradient constraint in exact arithmetic."""
        return float(self.table["exact_gradient"].max()) if len(self.table) else 0.0


def verify(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    targets: Tensor,
    symmetries: Symmetries | None = None,
    loss: Loss = "cross_entropy",
    sample: int = 4,
    seed: int = 0,
    most: int | None = None,
    conditions: tuple[str, ...] = CONDITIONS,
) -> Verification:
    r"""Verify claims at the model's present parameters, in training mode, on one batch.

    1. finite: |L(ψ(θ, α)) − L(θ)| / |L(θ)| for several α of both signs;
    2. gradient: |⟨g, ∂_αψ⟩| / (|g| |∂_αψ|);
    3. Hessian: |H ∂_αψ + (∂_θ∂_αψ) g| relative to the size of H and g along such directions, by
       Hessian-vector products (Neural Mechanics, Kunin et al. 2021, section 3).

    Parameters
    ----------
    model
        Left as it is; copies are used.
    inputs, targets
        A batch: what the model takes, and labels (values for ``mse``).
    symmetries
        Claims to check; by default what `find_symmetries` finds.
    sample
        Charges per site for the finite and Hessian checks, chosen at random; the gradient is checked for all.
    most
        At most so many of them in all, chosen at random: for large models.
    conditions
        Out of ``exact``, ``float64`` and ``own``; ``exact`` decides.

    Returns
    -------
    Verification
        ``.passed``, ``.worst`` and ``.table``.

    Raises
    ------
    UserError
        If the claims are not about this model's parameters.
    """
    batch = inputs if isinstance(inputs, tuple) else (inputs,)
    claims = symmetries or find_symmetries(model, batch, loss)
    if list(claims.shapes) != [name for name, _ in model.named_parameters()]:
        raise UserError("symmetries: they name other parameters than the model has; find them for this model")
    chosen = _choose(claims, sample, most, seed)
    columns: dict[str, dict[tuple[str, str], dict[str, float]]] = {}
    for condition in dict.fromkeys(("exact", *conditions)):
        twin = _condition(model, condition)
        probe = _Probe(twin, batch, targets, loss, seed)
        columns[condition] = {
            (name, site): probe.check(matrix, rows, sampled, linear=claims.families[name].is_linear)
            for name, site, matrix, rows, sampled in chosen
        }
    return Verification(pd.DataFrame([_row(entry, columns) for entry in chosen]))


Choice = tuple[str, str, sparse.csr_array, np.ndarray, np.ndarray]


def _choose(claims: Symmetries, sample: int, most: int | None, seed: int) -> list[Choice]:
    """(family, site, generators, rows of the site, sampled rows) for every site."""
    random = np.random.default_rng(seed)
    out = []
    for name, matrix in claims.generators().items():
        family: Family = claims.families[name]
        sites = np.array(family.sites)
        for site in dict.fromkeys(family.sites):
            rows = np.flatnonzero(sites == site)
            sampled = np.sort(random.choice(rows, min(sample, rows.size), replace=False))
            out.append((name, site, matrix, rows, sampled))
    if most is None or sum(c[4].size for c in out) <= most:
        return out
    kept = set(random.choice(len(out), min(most, len(out)), replace=False).tolist())
    return [(n, s, m, rows, sampled[: 1 if i in kept else 0]) for i, (n, s, m, rows, sampled) in enumerate(out)]


def _condition(model: nn.Module, condition: str) -> nn.Module:
    """Return a copy in training mode: ``exact`` and ``float64`` in float64, ``exact`` without norms' eps."""
    twin = copy.deepcopy(model).train()
    if condition == "own":
        return twin
    for module in twin.modules() if condition == "exact" else ():
        for name in ("eps", "variance_epsilon"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, NO_EPSILON)
    return twin.double()


class _Probe:
    """Loss, gradient and Hessian of one model on one batch, over the flat parameter vector."""

    def __init__(self, model: nn.Module, batch: tuple[Tensor, ...], targets: Tensor, loss: str, seed: int) -> None:
        self._model, self._loss, self._seed = model, loss, seed
        self._names = [name for name, _ in model.named_parameters()]
        self._shapes = [p.shape for p in model.parameters()]
        first = next(iter(model.parameters()))
        self._batch = tuple(x.to(first.device, first.dtype) if x.is_floating_point() else x for x in batch)
        self._targets = targets.to(first.device, first.dtype) if targets.is_floating_point() else targets
        self.theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).requires_grad_()
        with _plain_attention():
            self._value = self.loss(self.theta)
            (self.gradient,) = torch.autograd.grad(self._value, self.theta, create_graph=True)
        self._size = float(self.gradient.detach().double().norm())
        noise = torch.randn(self.theta.shape, generator=torch.Generator().manual_seed(seed)).to(self.theta)
        try:
            self._stiffness = float(self._hessian(noise).double().norm() / noise.double().norm())
        except RuntimeError as error:  # an operation without a second derivative (hardsigmoid): not checked
            if "not implemented" not in str(error):
                raise
            self._stiffness = float("nan")

    def loss(self, theta: Tensor) -> Tensor:
        """Loss at a flat parameter vector; the same noise and untouched running statistics every time."""
        parts = theta.split([s.numel() for s in self._shapes])
        state: dict[str, Tensor] = {n: p.view(s) for n, p, s in zip(self._names, parts, self._shapes, strict=True)}
        state |= {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            out = functional_call(self._model, state, self._batch)
        return loss_of(out, self._targets, self._loss)

    def _hessian(self, vector: Tensor) -> Tensor:
        if not self.gradient.requires_grad:
            return torch.zeros_like(vector)
        (product,) = torch.autograd.grad(self.gradient, self.theta, vector, retain_graph=True, allow_unused=True)
        return torch.zeros_like(vector) if product is None else product

    def check(
        self, matrix: sparse.csr_array, rows: np.ndarray, sampled: np.ndarray, *, linear: bool
    ) -> dict[str, float]:
        """Worst violations over a site's charges."""
        theta = self.theta.detach().double().cpu().numpy()
        gradient = self.gradient.detach().double().cpu().numpy()
        part = sparse.csr_array(matrix[rows])
        directions = part if linear else sparse.csr_array(part.multiply(theta[None, :]))
        length = np.sqrt(np.asarray(directions.multiply(directions).sum(axis=1)).ravel())
        along = np.abs(directions @ gradient)
        worst = {"gradient": float(np.max(along / np.maximum(length * self._size, 1e-300)))}
        checks = [self._check_one(torch.as_tensor(matrix[[k]].toarray()[0]), linear=linear) for k in sampled.tolist()]
        worst["finite"] = max((finite for finite, _ in checks), default=float("nan"))
        worst["hessian"] = max((hessian for _, hessian in checks), default=float("nan"))
        return worst

    def _check_one(self, generator: Tensor, *, linear: bool) -> tuple[float, float]:
        theta = self.theta.detach()
        m = generator.to(theta)
        start = float(self._value.detach().double())
        with torch.no_grad(), _plain_attention():
            moved = [theta + a * m if linear else theta * torch.exp(a * m) for a in ANGLES]
            change = max(abs(float(self.loss(x).double()) - start) for x in moved)
        if math.isnan(self._stiffness):
            return change / max(abs(start), 1e-300), math.nan
        direction = m if linear else theta * m
        twist = torch.zeros_like(theta) if linear else m * self.gradient.detach()
        violation = float((self._hessian(direction) + twist).double().norm())
        size = self._stiffness * float(direction.double().norm()) + float(twist.double().norm())
        return change / max(abs(start), 1e-300), violation / max(size, 1e-300)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention by plain operations: the fused kernels have no second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _row(entry: Choice, columns: Mapping[str, Mapping[tuple[str, str], Mapping[str, float]]]) -> dict[str, object]:
    name, site, _, rows, sampled = entry
    row: dict[str, object] = {"family": name, "site": site, "charges": rows.size, "sampled": sampled.size}
    for condition, found in columns.items():
        row |= {f"{condition}_{test}": found[name, site][test] for test in ("finite", "gradient", "hessian")}
    row["cause"] = _cause({condition: found[name, site] for condition, found in columns.items()})
    row["holds"] = _within(columns["exact"][name, site])
    return row


def _within(found: Mapping[str, float]) -> bool:
    return not any(found[test] > limit for test, limit in TOLERANCE.items())  # NaN: not sampled


def _cause(found: Mapping[str, Mapping[str, float]]) -> str:
    """What breaks the symmetry outside exact arithmetic."""
    if not _within(found["exact"]):
        return "the claim is false"
    causes = []
    if "float64" in found and not _within(found["float64"]):
        causes.append("a norm's eps")
    before = found.get("float64", found["exact"])["gradient"]
    if "own" in found and found["own"]["gradient"] > 10 * max(before, 1e-12):
        causes.append("rounding")
    return ", ".join(causes)
