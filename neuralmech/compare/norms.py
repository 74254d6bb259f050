"""Frobenius norms of matrix-valued charges: from their entries, or where these are too many, as recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from neuralmech.compare.columns import MEASURES, QUANTILES
from neuralmech.compare.inputs import hyperparameters, stretches
from neuralmech.laws.system import Array, Integration, Law
from neuralmech.record import Charges, Record


class Norms:
    """|Q|_F of each site whose matrix is in the record entry by entry (i ≤ j; what lies off the diagonal counts twice).

    Parameters
    ----------
    index
        The charges' index: site, channel and, for matrix-valued charges, partner.

    Attributes
    ----------
    sites
        "<site> |Q|" for each site recorded in full; empty for families that are not matrix-valued.

    Examples
    --------
    >>> index = pd.DataFrame({"site": "a", "channel": [0, 0, 1], "partner": [0, 1, 1]})
    >>> Norms(index).append(np.array([[1.0, 2.0, 0.0]])).round(3).tolist()
    [[1.0, 2.0, 0.0, 3.0]]
    """

    def __init__(self, index: pd.DataFrame) -> None:
        groups = index.groupby("site", sort=False) if "partner" in index else []
        full = {str(site): rows for site, rows in groups if _is_full(rows)}
        self.sites = [f"{site} |Q|" for site in full]
        self._weights = np.zeros((len(index), len(full)))
        for i, rows in enumerate(full.values()):
            self._weights[rows.index, i] = np.where(rows["channel"] == rows["partner"], 1.0, 2.0)

    def append(self, value: Array) -> Array:
        """Append a column per site to (rows, charges)."""
        return np.hstack([value, np.sqrt(value**2 @ self._weights)]) if self.sites else value


def _is_full(rows: pd.DataFrame) -> bool:
    channels = rows["channel"].max() + 1
    return channels > 1 and len(rows) == channels * (channels + 1) // 2  # one entry may be a sample


def norm_rows(
    record: Record,
    charges: Charges,
    sites: Sequence[str],
    laws: Mapping[str, Law],
    reasons: Mapping[str, str],
    order: int,
    block: int = 1024,
) -> pd.DataFrame:
    """Rows for the norms of sites whose matrices are not in the record entry by entry, numbered from `order` on.

    The norms are compared where they were measured. A law without a drive multiplies every entry of the matrix by the
    same number, and so the norm. A drive is a matrix of its own, of which the record holds the diagonal only: such a
    law is a dash.
    """
    if not sites:
        return pd.DataFrame()
    columns = [charges.norm_sites.index(site) for site in sites]
    tables = []
    for name, law in laws.items():
        why = reasons[name]
        if not why and law.inputs:
            why = "a drive needs the whole matrix; train with a larger track.full"
        numbers = (np.zeros((0, len(sites))),) * 3 if why else _norms(record, charges, columns, law, block)
        if not why and not len(numbers[0]):
            why = "no norms were measured; train with track.norms=16"
        tables.append(_norm_table(name, why, sites, *numbers).assign(order=order + np.arange(len(sites))))
    return pd.concat(tables)


def _norms(record: Record, charges: Charges, columns: list[int], law: Law, block: int) -> tuple[Array, Array, Array]:
    """Theory − measured, measured, and its motion, at the rows where the norms were measured: (rows, sites) each."""
    run, off, kept, moved, start = Integration(law, translation=False), [], [], [], np.zeros(len(columns))
    for stretch in stretches(record, block):
        norms = charges.frobenius[stretch.rows][:, columns]
        h = hyperparameters(record, stretch)
        start = norms[0] if stretch.begins else start
        theory = run.advance(h, norms[0], np.zeros((len(h), 0, len(columns))), norms[0] if stretch.begins else None)
        there = np.isfinite(norms).all(axis=1)
        off.append((theory - norms)[there])
        kept.append(norms[there])
        moved.append((norms - start)[there])
    return np.concatenate(off), np.concatenate(kept), np.concatenate(moved)


def _norm_table(name: str, why: str, sites: Sequence[str], off: Array, measured: Array, motion: Array) -> pd.DataFrame:
    table = pd.DataFrame({"site": [f"{site} |Q|" for site in sites], "law": name, "charges": 1, "steps": len(measured)})
    table = table.assign(**dict.fromkeys((*MEASURES, *QUANTILES), np.nan), reason=why)
    if len(measured):
        scale = np.sqrt((measured**2).mean(axis=0))
        moved = (motion**2).sum(axis=0)
        table["error"] = np.sqrt((off**2).mean(axis=0)) / scale
        table["unexplained"] = (off**2).sum(axis=0) / np.where(moved > 0, moved, np.nan)
        table["max_error"] = np.abs(off).max(axis=0) / scale
        table["final_error"] = np.abs(off[-1]) / scale
        for quantile in QUANTILES:
            table[quantile] = table["error"]
    return table
