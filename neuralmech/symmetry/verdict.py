"""The table of a verification: violations under every condition, what breaks a symmetry there, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuralmech.symmetry.group import Symmetries
from neuralmech.symmetry.probe import TESTS, Probe
from neuralmech.symmetry.sampling import Choice

TOLERANCE = {"finite": 1e-9, "gradient": 1e-9, "hessian": 1e-6}

Violations = dict[str, float]  # by test
Found = dict[tuple[str, str], Violations]  # by family and site


@dataclass(frozen=True)
class Column:
    """A condition's violations, or None where it cannot be had, and their cause or the reason."""

    found: Found | None
    cause: str


def measure(probe: Probe, claims: Symmetries, chosen: list[Choice]) -> Found:
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


def row(entry: Choice, columns: Mapping[str, Column]) -> dict[str, object]:
    """One site's line of `Verification.table`."""
    name, site, charges, sampled = entry
    out: dict[str, object] = {"family": name, "site": site, "charges": charges.size, "sampled": sampled.size}
    violations = {label: c.found[name, site] for label, c in columns.items() if c.found is not None}
    nothing = dict.fromkeys(TESTS, float("nan"))
    for label in columns:
        out |= {f"{label}_{test}": violations.get(label, nothing)[test] for test in TESTS}
    holds = _within(violations["exact"])
    causes = {label: column.cause for label, column in columns.items() if _is_broken(label, violations)}
    causes = causes if holds else dict.fromkeys(columns, "the claim is false")
    for label, column in columns.items():
        out[f"{label}_cause"] = causes.get(label, "" if label in violations else column.cause)
    out["cause"] = "; ".join(f"{label}: {cause}" for label, cause in causes.items()) if holds else causes["exact"]
    out["holds"] = holds
    return out


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
