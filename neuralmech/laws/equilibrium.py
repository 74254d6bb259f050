"""Where weight decay and a finite learning rate balance: the angular step of normalised weights under each rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralmech.laws.system import Circumstances

Options = Mapping[str, Any]
UNSETTLED = 1e-12  # correlations of signs below it add nothing
LARGEST = 1 - 1e-5  # momentum, beyond which their sum has too many terms; nobody has it


@dataclass(frozen=True)
class Equilibrium:
    r"""Balance of a scale-invariant weight under a rule: it turns by φ = √(2ηλ·turn) per step, with Q\* = ηD/(2λ·turn).

    Attributes
    ----------
    turn
        χ of `docs/theory.md`: C₀/(C₀ + 2 Σ_l C_l), how fast an update forgets its direction, with C_l = ⟨v_k, v_{k−l}⟩;
        under SGD, whose λ is in its updates, 1/(1+β).
    friction
        A charge relaxes in friction/(2ηλ) steps.
    length
        D per entry of the weight, where the rule makes it the same for all gradients; None where D is the gradient's
        and must be measured.
    """

    turn: float
    friction: float = 1.0
    length: float | None = None


def equilibrium(c: Circumstances, options: Options) -> Equilibrium | str:
    """What holds for a rule with such options (``momentum``, ``betas``); or, as text, why nothing is claimed."""
    name = c.optimizer
    if name in NOT_CLAIMED:
        return f"not claimed: {NOT_CLAIMED[name]}"
    if name not in RULES:
        return f"not claimed: not derived for {name}"
    if c.mixed:
        return "not claimed: its parameters decay at different rates"
    if c.ascent or options.get("clip_value") is not None:
        return "not claimed: the rule's gradients are not orthogonal to the weights (optim.sam_rho, optim.clip_value)"
    if name != "sgd" and not c.decoupled:
        return "not claimed: weight decay goes through what the rule makes of the gradient"
    try:
        return RULES[name](c, options)
    except (LookupError, TypeError, ValueError, OverflowError):
        return f"not claimed: the record holds no momentum of {name} that makes sense"


def _sgd(c: Circumstances, options: Options) -> Equilibrium | str:
    """λ and the gradient go through one buffer: the modified flow rests where 2λQ = η(1+β)D."""
    beta = _momentum(options)
    return _of_sgd(c) or Equilibrium(1 / (1 + beta), friction=1 - beta)


def _sgdw(c: Circumstances, options: Options) -> Equilibrium | str:
    """D is that of the buffer alone, whose correlations are βˡ whatever those of the gradient."""
    return _of_sgd(c) or Equilibrium(1 / _sum_of_powers(_momentum(options)))


def _of_sgd(c: Circumstances) -> str:
    return "derived for SGD without Nesterov and dampening" if c.nesterov or c.dampening else ""


def _adamw(c: Circumstances, options: Options) -> Equilibrium | str:
    """Gradients of unit variance and no correlations: updates of variance (1−β₁)/(1+β₁), correlated as β₁ˡ."""
    turn = 1 / _sum_of_powers(_within(options["betas"][0]))
    if c.metric:  # where the update is along the mean gradient, which is correlated as βˡ whatever the gradients
        return Equilibrium(turn)
    if options.get("amsgrad"):
        return "not claimed: under AMSGrad the gradient is not divided by its present size"
    return Equilibrium(turn, length=turn)


def _signum(c: Circumstances, options: Options) -> Equilibrium | str:
    beta = _momentum(options)
    return _of_signs(options) or Equilibrium(1 / persistence_of_signs(beta, beta), length=1.0)


def _lion(c: Circumstances, options: Options) -> Equilibrium | str:
    mix, beta = (_within(b) for b in options["betas"])
    return _of_signs(options) or Equilibrium(1 / persistence_of_signs(correlation_of_lion(mix, beta), beta), length=1.0)


def _of_signs(options: Options) -> str:
    changed = [name for name in ("caution", "cautious", "adanorm", "nesterov") if options.get(name)]
    return f"not claimed: derived for the rule without {changed[0]}" if changed else ""


def persistence_of_signs(first: float, beta: float) -> float:
    """1 + 2 Σ_l (2/π) arcsin ρ_l, ρ_l = first·βˡ⁻¹: the signs of a Gaussian correlated by ρ are so by the arcsine law.

    Examples
    --------
    >>> persistence_of_signs(0.0, 0.0)
    1.0
    >>> round(persistence_of_signs(0.9, 0.9), 3)
    13.279
    """
    terms = 1 if beta == 0 else 1 + int(np.ceil(np.log(UNSETTLED) / np.log(beta)))
    correlations = first * beta ** np.arange(terms, dtype=np.float64)
    return float(1 + 4 / np.pi * np.arcsin(correlations).sum())


def correlation_of_lion(mix: float, beta: float) -> float:
    """ρ₁ of β₁m + (1−β₁)g under white gradients, with m their mean by β₂; then ρ_l = ρ₁β₂ˡ⁻¹.

    Examples
    --------
    >>> round(correlation_of_lion(0.9, 0.9), 12)  # Signum
    0.9
    """
    variance = (1 - mix) ** 2 + mix**2 * (1 - beta) / (1 + beta)
    return mix * (1 - beta) * (1 - mix + mix * beta / (1 + beta)) / variance


def _sum_of_powers(beta: float) -> float:
    """1 + 2 Σ_l βˡ."""
    return (1 + beta) / (1 - beta)


def _momentum(options: Options) -> float:
    return _within(options["momentum"])


def _within(beta: Any) -> float:
    if not 0 <= float(beta) <= LARGEST:
        raise ValueError(f"a momentum of {beta}")
    return float(beta)


RULES: Mapping[str, Callable[[Circumstances, Options], Equilibrium | str]] = {
    "sgd": _sgd, "sgdw": _sgdw, "adamw": _adamw, "Signum": _signum, "SignSGD": _signum, "Lion": _lion,
}  # fmt: skip
NOT_CLAIMED = {
    "": "two rules move it together",
    "adam": "weight decay goes through the division by √v, so that the angle depends on the size of the gradient",
    "muon": "how long a filter's share of a step is, and how long it keeps its direction, depends on the other filters",
}
