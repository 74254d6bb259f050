"""Check every claimed symmetry on a real batch: finite transformation, gradient and Hessian constraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from neuralmech.errors import UserError
from neuralmech.symmetry.discover import Loss, find_symmetries
from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.precision import CONDITIONS, condition
from neuralmech.symmetry.probe import TESTS, Probe

TOLERANCE = {"finite": 1e-9, "gradient": 1e-9, "hessian": 1e-6}


@dataclass(frozen=True)
class Verification:
    """How well each site's claims hold; the worst charge stands for its site.

    Attributes
    ----------
    table
        One row per family and site: ``charges``, ``sampled`` (charges whose finite transformation and Hessian
        were checked; the gradient is checked for all), then for each condition (``exact``: float64 with norms'
        eps removed; ``float64``, both also where the model casts to less; ``own``: the model's precision) the
        worst ``finite``, ``gradient`` and ``hessian``; ``cause`` names what breaks the symmetry in the latter
        two; ``holds`` is the verdict.
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
    columns: dict[str, Found] = {}
    narrows = False
    for name in dict.fromkeys(("exact", *conditions)):
        probe = Probe(condition(model, name), batch, targets, loss, seed, throughout=name != "own")
        columns[name] = _check(probe, claims, chosen)
        narrows |= probe.refused_casts > 0
    narrows &= next(iter(model.parameters())).dtype == torch.float64
    return Verification(pd.DataFrame([_row(entry, columns, narrows=narrows) for entry in chosen]))


Choice = tuple[str, str, np.ndarray, np.ndarray]
Found = dict[tuple[str, str], dict[str, float]]


def _choose(claims: Symmetries, sample: int, most: int | None, seed: int) -> list[Choice]:
    """(family, site, charges of the site, sampled charges) for every site."""
    random = np.random.default_rng(seed)
    out = []
    for name, family in claims.families.items():
        numbers: dict[str, list[int]] = {}
        for charge, site in enumerate(family.sites):
            numbers.setdefault(site, []).append(charge)
        for site, charges in numbers.items():
            sampled = np.sort(random.choice(charges, min(sample, len(charges)), replace=False))
            out.append((name, site, np.array(charges), sampled))
    if most is None or sum(c[3].size for c in out) <= most:
        return out
    kept = set(random.choice(len(out), min(most, len(out)), replace=False).tolist())
    return [(n, s, charges, sampled[: 1 if i in kept else 0]) for i, (n, s, charges, sampled) in enumerate(out)]


def _check(probe: Probe, claims: Symmetries, chosen: list[Choice]) -> Found:
    """Worst violations over each site's charges."""
    gradient = {name: probe.gradient_violations(family, claims.shapes) for name, family in claims.families.items()}
    found: Found = {}
    for name, site, charges, sampled in chosen:
        pairs = [probe.second_order(claims.families[name], claims.shapes, k) for k in sampled.tolist()]
        found[name, site] = {
            "gradient": float(gradient[name][charges].max()),
            "finite": max((finite for finite, _ in pairs), default=float("nan")),
            "hessian": max((hessian for _, hessian in pairs), default=float("nan")),
        }
    return found


def _row(entry: Choice, columns: Mapping[str, Found], *, narrows: bool) -> dict[str, object]:
    name, site, charges, sampled = entry
    row: dict[str, object] = {"family": name, "site": site, "charges": charges.size, "sampled": sampled.size}
    for label, found in columns.items():
        row |= {f"{label}_{test}": found[name, site][test] for test in TESTS}
    row["cause"] = _cause({label: found[name, site] for label, found in columns.items()}, narrows=narrows)
    row["holds"] = _within(columns["exact"][name, site])
    return row


def _within(found: Mapping[str, float]) -> bool:
    return not any(found[test] > limit for test, limit in TOLERANCE.items())  # NaN: not sampled


def _cause(found: Mapping[str, Mapping[str, float]], *, narrows: bool) -> str:
    """What breaks the symmetry outside exact arithmetic; `narrows`: a float64 model casts to less inside."""
    if not _within(found["exact"]):
        return "the claim is false"
    causes = []
    if "float64" in found and not _within(found["float64"]):
        causes.append("a norm's eps")
    before = found.get("float64", found["exact"])["gradient"]
    if "own" in found and found["own"]["gradient"] > 10 * max(before, 1e-12):
        causes.append("float32 inside the model" if narrows else "rounding")
    return ", ".join(causes)
