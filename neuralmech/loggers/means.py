"""Numbers of a row for people: per site the mean charge, η/Q, what moved it, and the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import nan

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from neuralmech.record.schema import NORMS, ROTATIONS, RULES, FamilyLayout

Columns = Mapping[str, Mapping[str, NDArray[np.float64]]]  # family → signal → (rows, charges)
OF_STEPS = ("loss", "lr", "gradient_norm")


class SiteMeans:
    """Every n-th row of blocks that come in order, as names and numbers.

    - ``loss``, ``lr``, ``gradient_norm`` of the whole net
    - ``gradient/PARAMETER``: the norm of each parameter tensor's gradient
    - ``charge/FAMILY/SITE``: mean over the site, of a matrix over its diagonal
    - ``effective_lr/SITE``: η/Q with that mean, of family ``scale``
    - ``decay_share/FAMILY/SITE``, ``drive_share/FAMILY/SITE``: what of a step's motion weight decay, 2ηλ|ΣQ|, and the
      drive, η²|ΣD|, are, of the sum of both
    """

    def __init__(self, layouts: Mapping[str, FamilyLayout], every: int) -> None:
        self._every, self._rows = every, 0
        self._sites: dict[str, dict[str, NDArray[np.int64]]] = {}
        self._rules: dict[str, NDArray[np.int64] | None] = {}
        self._tensors = layouts[NORMS].sites if NORMS in layouts else ()
        for family, layout in layouts.items():
            if "value" not in layout.signals or family == ROTATIONS:
                continue
            places: dict[str, list[int]] = {}
            self._rules[family] = layout.classes.rules
            for column, site in enumerate(layout.sites):
                if layout.partners is None or layout.partners[column] == layout.channels[column]:
                    places.setdefault(str(site), []).append(column)
            self._sites[family] = {site: np.array(columns) for site, columns in places.items()}

    def of(
        self, steps: Mapping[str, Shaped[NDArray, " rows"]], charges: Columns
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """Step and numbers of the wanted rows of a block; what is not finite is left out."""
        count = len(steps["step"])
        rows = [row for row in range(count) if (self._rows + row) % self._every == 0]
        self._rows += count
        for row in rows:
            values = {name: float(steps[name][row]) for name in OF_STEPS}
            lr, decay = values["lr"], float(steps["weight_decay"][row])
            if "gradient" in (norms := charges.get(NORMS, {})):
                of_tensors = norms["gradient"][row].tolist()
                values |= {f"gradient/{name}": v for name, v in zip(self._tensors, of_tensors, strict=True)}
            for family, sites in self._sites.items():
                found = charges[family]
                signals = {name: found[name][row] for name in ("value", "drive_update") if name in found}
                for site, columns in sites.items():
                    mine = self._under(family, columns, charges, row) if RULES in charges else (lr, decay)
                    values |= _of_site(family, site, {n: v[columns] for n, v in signals.items()}, *mine)
            yield int(steps["step"][row]), {name: value for name, value in values.items() if np.isfinite(value)}

    def _under(self, family: str, columns: NDArray, charges: Columns, row: int) -> tuple[float, float]:
        """η and λ under the one rule that moves a site, where rules have schedules of their own; else NaN."""
        rules, own = self._rules[family], charges[RULES]
        number = -1 if rules is None or len(set(rules[columns].tolist())) > 1 else int(rules[columns[0]])
        return (float(own["lr"][row, number]), float(own["weight_decay"][row, number])) if number >= 0 else (nan, nan)


def _of_site(
    family: str, site: str, signals: Mapping[str, NDArray[np.float64]], lr: float, decay: float
) -> dict[str, float]:
    value = signals["value"]
    mean = float(value.mean())
    out = {f"charge/{family}/{site}": mean}
    if family == "scale" and mean > 0:
        out[f"effective_lr/{site}"] = lr / mean
    if "drive_update" in signals:
        decayed = float(2 * lr * decay * abs(value.sum()))
        driven = float(lr**2 * abs(signals["drive_update"].sum()))
        if decayed + driven > 0:
            out[f"decay_share/{family}/{site}"] = decayed / (decayed + driven)
            out[f"drive_share/{family}/{site}"] = driven / (decayed + driven)
    return out
