"""What kind of oscillator each family's charges were, by a run's hyperparameters."""

from __future__ import annotations

import numpy as np
import pandas as pd

from neuralmech.compare.measure.inputs import classes, hyperparameters, stretches
from neuralmech.laws.oscillator import oscillator
from neuralmech.laws.system import Hyperparameters
from neuralmech.record import Record

COLUMNS = ("family", "steps", "decay", "gamma", "omega", "damping_ratio", "period", "relaxation", "regime", "reason")


def oscillator_table(record: Record) -> pd.DataFrame:
    """One row per family and rate of decay; where hyperparameters change, at the first and at the last recorded step.

    Q'' + 2γQ' + ω²Q = drive in t = Σ η: ``gamma`` and ``omega`` per unit of t, ``period`` and ``relaxation`` in steps.
    """
    rows = []
    if not record.rows:
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    first, last = both_ends(record)
    step = record.column("step")
    same = all(getattr(first, n) == getattr(last, n) for n in ("lr", "momentum", "dampening", "weight_decay"))
    at = {"all": last} if same else {str(step[0]): first, str(step[-1]): last}
    for family in record.families:
        charges = record.charges(family)
        for of in classes(record, charges):
            c = of.circumstances
            why = "" if c.optimizer in ("sgd", "sgdw") else f"not derived for {c.optimizer or 'two rules'}"
            why = why or ("its parameters decay at different rates" if c.mixed else "")
            if why:
                rows.append((family, "all", np.nan, *[np.nan] * 5, "", why))
                continue
            for steps, h in at.items():
                found = oscillator(of.hyperparameters(h), translation=c.translation)
                numbers = (float(v[0]) for v in found)
                rows.append((family, steps, of.decay, *numbers, found.regime[0], ""))
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS)).drop_duplicates(ignore_index=True)


def both_ends(record: Record) -> tuple[Hyperparameters, Hyperparameters]:
    """Hyperparameters at the first and at the last recorded step."""
    first = hyperparameters(record, next(stretches(record, 1)))
    return first, hyperparameters(record, list(stretches(record, record.rows))[-1])[-1:]
