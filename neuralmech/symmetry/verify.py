"""Check every claimed symmetry on a real batch: finite transformation, gradient and Hessian constraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor, nn

from neuralmech.errors import UserError
from neuralmech.symmetry.conditions import CONDITIONS, available, check_conditions, condition
from neuralmech.symmetry.discover import Loss, find_symmetries
from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.probe import TESTS, Probe

TOLERANCE = {"finite": 1e-9, "gradient": 1e-9, "hessian": 1e-6}


@dataclass(frozen=True)
class Verification:
    """How well each site's claims hold; the worst charge stands for its site.

    Attributes
    ----------
    table
        One row per family and site: ``charges``, ``sampled`` (charges whose finite transformation and Hessian
        were checked; the gradient is checked for all), then for each condition C (see `verify`) the worst
        ``C_finite``, ``C_gradient`` and ``C_hessian``, and ``C_cause``, which names what breaks the symmetry
        there; ``cause`` is all of these; ``holds`` is the verdict, under ``exact``. NaN: not checked, where
        the whole column is, for the reason in ``C_cause``.
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
    precision: str | None = None,
) -> Verification:
    r"""Verify claims at the model's present parameters, on one batch.

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
        Besides ``exact`` (training mode, float64 throughout, no eps in norms), which decides: ``float64`` (with
        their eps), ``own`` (with eps, in `precision`), ``eval`` (float64, evaluation mode: the running statistics
        of the model or, where it has seen no batch, this batch's); and any precision by name.
    precision
        Of ``own``: ``fp32``, ``fp64``, ``tf32``, ``bf16`` or ``fp16`` (autocast), by default the model's. TF32
        and fp16 are measured on a GPU only.

    Returns
    -------
    Verification
        ``.passed``, ``.worst`` and ``.table``.

    Raises
    ------
    UserError
        If the claims are not about this model's parameters, or there is no such condition or precision.
    """
    check_conditions(conditions, precision)
    batch = inputs if isinstance(inputs, tuple) else (inputs,)
    claims = symmetries or find_symmetries(model, batch, loss)
    if list(claims.shapes) != [name for name, _ in model.named_parameters()]:
        raise UserError("symmetries: they name other parameters than the model has; find them for this model")
    chosen = _choose(claims, sample, most, seed)
    columns: dict[str, Column] = {}
    for name in dict.fromkeys(("exact", *conditions)):
        where = condition(name, model, batch, precision)
        if available(where):
            columns[name] = Column(_check(Probe(where, targets, loss, seed), claims, chosen), where.cause)
        else:
            columns[name] = Column(None, f"not measured on {where.device.type}")
    return Verification(pd.DataFrame([_row(entry, columns) for entry in chosen]))


Choice = tuple[str, str, np.ndarray, np.ndarray]
Violations = dict[str, float]
Found = dict[tuple[str, str], Violations]


@dataclass(frozen=True)
class Column:
    """A condition's violations by family and site, or None where it cannot be had, and their cause or the reason."""

    found: Found | None
    cause: str


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


def _row(entry: Choice, columns: Mapping[str, Column]) -> dict[str, object]:
    name, site, charges, sampled = entry
    row: dict[str, object] = {"family": name, "site": site, "charges": charges.size, "sampled": sampled.size}
    violations = {label: c.found[name, site] for label, c in columns.items() if c.found is not None}
    nothing = dict.fromkeys(TESTS, float("nan"))
    for label in columns:
        row |= {f"{label}_{test}": violations.get(label, nothing)[test] for test in TESTS}
    holds = _within(violations["exact"])
    causes = {label: column.cause for label, column in columns.items() if _is_broken(label, violations)}
    causes = causes if holds else dict.fromkeys(columns, "the claim is false")
    for label, column in columns.items():
        row[f"{label}_cause"] = causes.get(label, "" if label in violations else column.cause)
    row["cause"] = "; ".join(f"{label}: {cause}" for label, cause in causes.items()) if holds else causes["exact"]
    row["holds"] = holds
    return row


def _within(found: Violations) -> bool:
    return not any(found[test] > limit for test, limit in TOLERANCE.items())  # NaN: not sampled


def _is_broken(label: str, violations: Mapping[str, Violations]) -> bool:
    """Whether a condition breaks a symmetry, and more than float64 with the eps does."""
    if label not in violations or label == "exact":
        return False
    if label == "float64":
        return not _within(violations[label])
    before = violations.get("float64", violations["exact"])["gradient"]
    return not violations[label]["gradient"] <= 10 * max(before, 1e-12)  # NaN is broken
