"""The table of a verification: violations under every condition, what breaks a symmetry there, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neuralmech.symmetry.conditions import EPSILON
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


def row(entry: Choice, columns: Mapping[str, Column], with_eps: Found) -> dict[str, object]:
    """One site's line of `Verification.table`; `with_eps` is found in float64 with the eps of norms."""
    name, site, charges, sampled = entry
    out: dict[str, object] = {"family": name, "site": site, "charges": charges.size, "sampled": sampled.size}
    violations = {label: c.found[name, site] for label, c in columns.items() if c.found is not None}
    nothing = dict.fromkeys(TESTS, float("nan"))
    for label in columns:
        out |= {f"{label}_{test}": violations.get(label, nothing)[test] for test in TESTS}
    holds = _within(violations["exact"])
    causes = _causes(columns, violations, with_eps[name, site]["gradient"])
    wrong = "the claim is false" if violations["exact"]["gradient"] >= 0 else "the gradient is not finite on this batch"
    causes = causes if holds else dict.fromkeys(columns, wrong)
    for label, column in columns.items():
        out[f"{label}_cause"] = causes.get(label, "" if label in violations else column.cause)
    out["cause"] = "; ".join(f"{label}: {cause}" for label, cause in causes.items()) if holds else causes["exact"]
    out["holds"] = holds
    return out


def _within(found: Violations) -> bool:
    """Whether nothing is violated; NaN is "not sampled", but the gradient always is: there it is no number at all."""
    sampled = not any(found[test] > limit for test, limit in TOLERANCE.items())
    return sampled and found["gradient"] <= TOLERANCE["gradient"]


def _causes(columns: Mapping[str, Column], violations: Mapping[str, Violations], with_eps: float) -> dict[str, str]:
    """What breaks a symmetry, where something does: the condition, if it breaks more than eps does in float64."""
    causes = {}
    for label in violations.keys() - {"exact"}:
        is_more = not violations[label]["gradient"] <= 10 * max(with_eps, 1e-12)  # NaN is more
        if is_more if label != "float64" else not _within(violations[label]):
            causes[label] = columns[label].cause
        elif "float64" not in columns and with_eps > TOLERANCE["gradient"]:
            causes[label] = EPSILON
    return {label: causes[label] for label in columns if label in causes}
