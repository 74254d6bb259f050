"""What pushed the charges of a sweep, setting by setting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from neuralmech.compare.gather.labels import label_texts
from neuralmech.compare.gather.summary import settings
from neuralmech.compare.measure.accounts import CAUSES


def pushes(budget: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Each cause's share in all pushes, up and down, by setting (``label``) and family.

    ``net`` is the net change on the same scale, ``most`` the cause that pushed most, ``share`` its share, both ways.
    """
    rows, by = [], settings(keys)
    kept = budget[budget["reason"] == ""]
    for values, group in kept.groupby([*by, "family"], sort=False, dropna=False):
        up, down = ({c: float(clip(group[c].to_numpy(), 0).sum()) for c in CAUSES} for clip in (np.maximum, np.minimum))
        whole = sum(up.values()) - sum(down.values())
        if not whole > 0:
            continue  # nothing that is known pushed them
        shares = {c: (up[c] - down[c]) / whole for c in CAUSES}
        most = max(shares, key=lambda cause: shares[cause])
        parts = {f"{c} {way}": of[c] / whole for way, of in (("up", up), ("down", down)) for c in CAUSES}
        rows.append(
            {
                "label": dict(zip(by, values[:-1], strict=True)),
                "family": values[-1],
                **parts,
                "net": float(group["motion"].sum()) / whole,
                "most": most,
                "share": shares[most],
            }
        )
    texts = label_texts([row["label"] for row in rows])
    return pd.DataFrame([{**row, "label": text} for row, text in zip(rows, texts, strict=True)])
