"""Frobenius norms of matrix-valued charges from their entries, measured and predicted alike."""

from __future__ import annotations

import numpy as np
import pandas as pd

from neuralmech.laws.system import Array


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
    return len(rows) == channels * (channels + 1) // 2
