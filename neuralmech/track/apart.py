"""Rules with schedules of their own: what a row is told of them, and the drives of each charge in the η of its rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from neuralmech.record.schema import METRIC_SIGNALS, RULE_COLUMNS, RULES, FamilyLayout
from neuralmech.track.block import Columns, OnDevice, OnHost

# Powers of 1/η in a signal of a quadratic and of a translation charge.
POWERS = {"drive_update": (2, 1), "drive_buffer": (1, 0), "rule_work": (1, 1)}


class Apart:
    """Brings drives from the η of a step to that of the rule that moves a charge.

    A backend knows one η, the largest of all rules', so that nothing moves where it is zero: u = (θ_k − θ_{k+1})/η. In
    units of the rule's own η_c the update is (η/η_c)u.

    Parameters
    ----------
    names
        Of the rules.
    layouts
        Of the recorded families, in the order of the columns.
    signals
        In the order of the ring's rows.
    first
        Columns before those of the charges, which stay as they are.
    """

    def __init__(
        self,
        names: Sequence[str],
        layouts: Mapping[str, FamilyLayout],
        signals: Sequence[str],
        first: int,
        device: torch.device,
    ) -> None:
        self._names = tuple(names)
        of_moments = METRIC_SIGNALS[0] in signals  # then the rule's work is Adam's own and knows no η
        scaled = [s for s in signals if s in POWERS and not (s == "rule_work" and of_moments)]
        self._rows = torch.tensor([signals.index(s) for s in scaled], device=device)
        number, powers = [np.full(first, -1)], [np.zeros((len(scaled), first))]
        for layout in layouts.values():
            width, rules = len(layout.sites), layout.classes.rules
            number.append(np.full(width, -1) if rules is None else np.asarray(rules))
            of = [POWERS[s][int(layout.translation)] for s in scaled]
            powers.append(np.repeat(np.array(of, dtype=float)[:, None], width, axis=1))
        all_numbers = np.concatenate(number)
        self._rule = torch.as_tensor(np.where(all_numbers < 0, len(names), all_numbers), device=device)
        self._powers = torch.as_tensor(np.concatenate(powers, axis=1), device=device)
        self._one = torch.ones(1, dtype=torch.float64, device=device)

    @property
    def shape(self) -> tuple[int, int]:
        """Of what a row is told."""
        return len(RULE_COLUMNS), len(self._names)

    @property
    def layouts(self) -> dict[str, FamilyLayout]:
        """Describe the rules to the record, as its families are."""
        return {RULES: FamilyLayout(self._names, range(len(self._names)), RULE_COLUMNS, False)}

    def bring_home(self, into: OnDevice, rate: float | Float64[Tensor, ""]) -> None:
        """Scale the signals of a row, which are of 1/η = rate."""
        own = into.rules[RULE_COLUMNS.index("lr")]
        factor = torch.where(own > 0, 1 / (own * rate).clamp(min=1e-300), 0.0)
        every = torch.cat([factor, self._one]).index_select(0, self._rule)
        into.ring[self._rows] *= every.pow(self._powers)

    def columns(self, measured: OnHost) -> dict[str, Columns]:
        """What the rows were told, by name."""
        return {RULES: {name: measured.rules[:, i] for i, name in enumerate(RULE_COLUMNS)}}
