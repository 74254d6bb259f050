"""Angular momenta of rotations between linear maps: whether they stay zero, or decay as the buffer does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from neuralmech.compare.measure.inputs import circumstances, hyperparameters, stretches
from neuralmech.laws.integration import Integration
from neuralmech.laws.rotation import AngularMomentum
from neuralmech.laws.system import Array
from neuralmech.record import Charges, Record

CUT = "gradients that are cut entry by entry lean on the rotation"
COLUMNS = ("site", "pairs", "start", "largest", "error", "steps", "reason")


def rotation_table(record: Record, block: int = 1024) -> pd.DataFrame:
    """One row per site; empty where no angular momenta were recorded.

    All numbers are relative to |b||θ| of the two channels, the most that an angular momentum could be, at its largest:
    ``start`` is the largest of the site's at the first row, ``largest`` of all rows, ``error`` the largest difference
    from the law, started at the first row of each window.
    """
    found = record.rotations
    if found is None or not record.rows:
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    law = AngularMomentum()
    c = replace(circumstances(record, found), mixed=False)
    cut = (record.config.get("optim") or {}).get("clip_value") is not None
    why, names = law.reason(c) or (CUT if cut else ""), law.signals(c)
    start, largest, off, extent = _largest(record, found, law, () if why else names, block)
    rows = []
    sites = found.index["site"].to_numpy()
    for site in dict.fromkeys(sites):
        of = sites == site
        size = extent[of].max()
        numbers = [float(v[of].max() / size) if size else np.nan for v in (start, largest, off)]
        numbers[2] = np.nan if why else numbers[2]
        rows.append((site, int(of.sum()), *numbers, record.rows, why))
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _largest(
    record: Record, found: Charges, law: AngularMomentum, names: tuple[str, ...], block: int
) -> tuple[Array, Array, Array, Array]:
    """Of each pair: |J| at the first row, the largest |J|, |theory − J| and |b||θ|: (pairs,) each."""
    run = Integration(law, translation=False, signals=names)
    start, largest, off, extent = (np.zeros(len(found)) for _ in range(4))
    for stretch in stretches(record, block):
        rows = stretch.rows
        value, h = found.value[rows], hyperparameters(record, stretch)
        inputs = np.empty((len(h), len(names), len(found)))
        for i, name in enumerate(names):
            inputs[:, i] = getattr(found, name)[rows]
        theory = run.advance(h, value[0], inputs, value[0] if stretch.begins else None)
        start = np.maximum(start, np.abs(value[0])) if stretch.begins else start
        largest = np.maximum(largest, np.abs(value).max(axis=0))
        off = np.maximum(off, np.abs(theory - value).max(axis=0))
        extent = np.maximum(extent, found.extent[rows].max(axis=0))
    return start, largest, off, extent
