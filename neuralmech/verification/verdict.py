"""The table of a verification: violations under every condition, what breaks a symmetry there, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from neuralmech.symmetry.group import Symmetries
from neuralmech.verification.conditions import EPSILON
from neuralmech.verification.probe import TESTS, Probe
from neuralmech.verification.sampling import Choice

TOLERANCE = {"finite": 1e-9, "gradient": 1e-9, "hessian": 1e-6}

Violations = dict[str, float]  # by test
Found = dict[tuple[str, str], Violations]  # by family and site


@dataclass(frozen=True)
class Column:
    """A condition's violations, or None where it cannot be had, their cause or the reason, and what passes there."""

    found: Found | None
    cause: str
    limits: Mapping[str, float] = field(default_factory=TOLERANCE.copy)


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
    holds = _within(violations["exact"], columns["exact"].limits)
    felt = with_eps[name, site]["gradient"] if (name, site) in with_eps else 0.0  # else there is no float64
    if holds:
        causes = {"exact": columns["exact"].cause, **_causes(columns, violations, felt)}
        causes = {label: cause for label, cause in causes.items() if cause}
    else:
        causes = dict.fromkeys(columns, _why(violations["exact"], columns["exact"].cause))
    for label, column in columns.items():
        out[f"{label}_cause"] = causes.get(label, "" if label in violations else column.cause)
    out["cause"] = "; ".join(f"{label}: {cause}" for label, cause in causes.items()) if holds else causes["exact"]
    out["holds"] = holds
    return out


def _why(exact: Violations, instead: str) -> str:
    """What a failure means; `instead` says where it was seen, if not in float64 at the parameters given."""
    wrong = "the claim is false" if exact["gradient"] >= 0 else "the gradient is not finite on this batch"
    return f"{wrong} ({instead})" if instead else wrong


def _within(found: Violations, limits: Mapping[str, float] = TOLERANCE) -> bool:
    """Whether nothing is violated; NaN is "not sampled", but the gradient always is: there it is no number at all."""
    sampled = not any(found[test] > limit for test, limit in limits.items())
    return sampled and found["gradient"] <= limits["gradient"]


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
