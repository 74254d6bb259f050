"""All laws, in the order in which tables and figures show them."""

from __future__ import annotations

from neuralmech.laws.adam import ConstantMetric, MovingMetric
from neuralmech.laws.discrete import Discrete, DiscreteAscent, DiscreteBroken
from neuralmech.laws.flow import FirstOrderFlow, GradientFlow, ModifiedFlow, WeightDecay
from neuralmech.laws.modified_loss import ModifiedLoss
from neuralmech.laws.noether import Noether
from neuralmech.laws.stochastic import Stochastic
from neuralmech.laws.system import Law

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        GradientFlow(),
        WeightDecay(),
        ModifiedLoss(),
        FirstOrderFlow(),
        ModifiedFlow(),
        Stochastic(),
        Noether(),
        Discrete(),
        DiscreteBroken(),
        DiscreteAscent(),
        ConstantMetric(),
        MovingMetric(),
    )
}


def law(name: str) -> Law:
    """Return a law by its name in tables.

    Raises
    ------
    KeyError
        If there is no such law; the message lists them.
    """
    if name not in LAWS:
        raise KeyError(f"no law {name!r}; there are {', '.join(LAWS)}")
    return LAWS[name]
