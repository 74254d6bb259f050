"""Whether the learning rule kept the symmetries, and how far its updates leaned on their generators."""

from __future__ import annotations

import numpy as np
import pandas as pd

from neuralmech.compare.measure.inputs import classes
from neuralmech.laws.kinetic import KineticRule, kept
from neuralmech.record import Charges, Record

COLUMNS = ("family", "site", "rule", "keeps", "lean", "largest_lean", "rows", "reason")


def kinetic_table(record: Record) -> pd.DataFrame:
    """One row per family and site, and rule where several move its charges.

    ``keeps`` is ``exactly`` where theory says so, else ``no``; ``lean`` is the RMS over the measured rows of
    √[Σ_c(θᵀSv)²/Σ_c θᵀ|S|θ·vᵀ|S|v], v the rule's update without decoupled weight decay, and ``largest_lean`` the
    largest of them. It is that of the whole site, and is not measured for SGD.
    """
    optim = record.config.get("optim", {})
    rows = []
    for family in record.families:
        charges = record.charges(family)
        leans = _leans(charges)
        for of in classes(record, charges):
            c = of.circumstances
            iterates = optim.get("polar", "exact") != "exact"
            rule = KineticRule(c.optimizer, optim.get("clip_value") is not None, c.ascent, c.momentum, iterates)
            exactly, reason = kept(rule, family)
            for site in dict.fromkeys(charges.index["site"].to_numpy()[of.columns]):
                found = leans.get(site, np.zeros(0))
                lean = float(np.sqrt(np.mean(found**2))) if len(found) else np.nan
                largest = float(found.max()) if len(found) else np.nan
                keeps = "exactly" if exactly else "no"
                rows.append((family, site, c.optimizer or "several", keeps, lean, largest, len(found), reason))
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS)).drop_duplicates(ignore_index=True)


def _leans(charges: Charges) -> dict[str, np.ndarray]:
    """Site → what was measured of it."""
    if not charges.lean_sites:
        return {}
    measured = charges.lean[:]
    return {site: v[np.isfinite(v)] for site, v in zip(charges.lean_sites, measured.T, strict=True)}
