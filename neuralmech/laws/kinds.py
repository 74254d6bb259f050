"""Of which kind a law is under some circumstances, and what it holds: what a verdict says of it, in one place.

A law that takes nothing from the record but the start and the hyperparameters is a *forecast*. One that takes measured
drives is *driven*: it tests that the symmetry leaves nothing else. One that also takes what is left of the motion is
an *account*: it closes by construction, but for rounding, and predicts nothing.
"""

from __future__ import annotations

from neuralmech.laws.system import Circumstances, Law

FORECAST, DRIVEN, ACCOUNT = KINDS = ("forecast", "driven", "account")  # from the one that takes least
MEANS = {
    FORECAST: "from the start and the hyperparameters alone",
    DRIVEN: "also takes what each step's own length added (its drive), as measured",
    ACCOUNT: "also takes what is left of the motion, so that it closes by construction",
}
# What is left of an exact update: θᵀSg, which a symmetry makes zero; in Adam's metric E, how the metric moved.
_LEFT, _LEFT_IN_METRIC = "residual", "metric_drift"
# What a law may hold, in the order in which theory adds it.
CONTENTS = {
    "decay": "weight decay",
    "drive": "the finite learning rate",
    "inertia": "the inertia of momentum",
    "orders": "higher orders in the learning rate",
    "ascent": "the ascent of the gradient",
    "breaking": "the broken symmetry",
    "drift": "the motion of the metric",
}


def kind(law: Law, c: Circumstances) -> str:
    """Which of `KINDS` a law is, by the signals that it takes.

    Examples
    --------
    >>> from neuralmech.laws import LAWS
    >>> of = [Circumstances(name, translation=name == "translation", signals=()) for name in ("translation", "scale")]
    >>> [kind(LAWS["modified_flow"], c) for c in of], kind(LAWS["discrete_broken"], of[0])
    (['forecast', 'driven'], 'account')
    """
    taken = law.within(c).signals(c)
    if (_LEFT_IN_METRIC if c.metric else _LEFT) in taken:
        return ACCOUNT
    return DRIVEN if taken else FORECAST


def contents(law: Law, c: Circumstances, *, decays: bool) -> set[str]:
    """What a law holds of `CONTENTS` that matters under some circumstances.

    Parameters
    ----------
    decays
        Whether there is weight decay.
    """
    matters = {"decay": decays, "drive": not c.translation, "inertia": c.momentum}
    return {name for name in law.holds if matters.get(name, True)}


def lacks(simpler: Law, better: Law, c: Circumstances, *, decays: bool) -> str:
    """What a law lacks that another has and that matters here, in words; what it omits anyway if there is no such.

    Examples
    --------
    >>> from neuralmech.laws import LAWS
    >>> c = Circumstances("translation", translation=True, signals=(), momentum=True)
    >>> lacks(LAWS["weight_decay"], LAWS["modified_flow"], c, decays=True)
    'the inertia of momentum'
    """
    more = contents(better, c, decays=decays) - contents(simpler, c, decays=decays)
    missing = [name for name in CONTENTS if name in more]
    if len(missing) > 1 and "orders" in missing:
        missing.remove("orders")  # small beside what a law of first order lacks
    words = [CONTENTS[name] for name in missing]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:]))) or simpler.omits
