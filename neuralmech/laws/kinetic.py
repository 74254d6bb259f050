"""Whether a learning rule keeps the symmetries of the loss: whether its update is orthogonal to their generators.

The rule is a kinetic energy (Tanaka & Kunin 2021, Noether's Learning Dynamics): steepest descent in a metric. Where
the metric does not share a symmetry of the loss the update leans on the generator, θᵀSv ≠ 0 (kinetic symmetry
breaking), and moves the charge by −2ηθᵀSv.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class KeptSymmetry(NamedTuple):
    """Whether a rule keeps the symmetries of a family exactly, and why or why not."""

    exactly: bool
    reason: str


@dataclass(frozen=True)
class KineticRule:
    """What decides it.

    Attributes
    ----------
    name
        ``sgd``, ``sgdw``, ``adam``, ``adamw``, ``muon`` or another; empty where two rules move a charge together.
    cuts
        Whether gradients are cut entry by entry.
    ascends
        Whether they are taken elsewhere, as in sharpness-aware minimisation.
    remembers
        Whether it has momentum.
    iterates
        Whether Muon's polar factor comes of an iteration in bfloat16.
    """

    name: str
    cuts: bool = False
    ascends: bool = False
    remembers: bool = False
    iterates: bool = False


def kept(rule: KineticRule, family: str) -> KeptSymmetry:
    """Whether a rule keeps the symmetries of a family.

    Examples
    --------
    >>> kept(KineticRule("muon"), "translation").exactly, kept(KineticRule("adamw"), "scale").exactly
    (True, False)
    """
    translation = family == "translation"
    if rule.cuts:
        return KeptSymmetry(False, "a gradient that is cut entry by entry is not orthogonal to the generator any more")
    if rule.ascends and not translation:
        return KeptSymmetry(False, "the gradient is that at θ + ρg/|g|, orthogonal to the generator there")
    if rule.name in ("sgd", "sgdw"):
        memory = ", but for what momentum remembers of other points" if rule.remembers and not translation else ""
        return KeptSymmetry(True, f"its steps are along the gradient, which is orthogonal to the generator{memory}")
    if rule.name == "muon" and translation:
        own = "UVᵀ has the columns' space of the momentum, in which no gradient leans on equal numbers"
        magnified = "; Newton–Schulz magnifies what bfloat16 leaves of that by up to 3.4445⁵ = 485"
        return KeptSymmetry(not rule.iterates, own + (magnified if rule.iterates else ""))
    if rule.name == "muon":
        return KeptSymmetry(False, "it makes all directions of a matrix equally long")
    if rule.name in ("adam", "adamw"):
        return KeptSymmetry(False, "each parameter has a step size of its own")
    return KeptSymmetry(False, f"nothing is known of {rule.name}" if rule.name else "two rules move it together")
