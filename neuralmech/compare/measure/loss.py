"""The account of the loss: what it lost as its gradient worked."""

from __future__ import annotations

import numpy as np
import pandas as pd

from neuralmech.compare.measure.curves import LossCurve, sampled
from neuralmech.record import Record

ORDERS = {"first": "−η⟨g_k, u_k⟩", "second": "−½η⟨g_k + g_{k+1}, u_k⟩"}


def loss_balance(record: Record) -> tuple[pd.DataFrame, LossCurve | None]:
    """Balance the loss of a full-batch run; empty for other runs, whose steps see different losses or are skipped.

    The loss has no clock of its own: under gradient flow dL/dt = −⟨g, u⟩ with u = −θ̇ (Głuch & Urbanke 2021, time
    symmetry). Over a step of SGD, L_{k+1} − L_k = −η⟨g_k, u_k⟩ + O(η²); the mean of the gradients at both ends of the
    step adds the curvature along it, ½η²uᵀHu, and leaves O(η³). Whatever moves θ, momentum and weight decay included,
    is in u.

    Returns
    -------
    tuple
        A row per order: ``change`` = L_K − L_0, ``predicted``, ``error`` (RMS over the steps of predicted − measured,
        relative to the RMS of L_k − L_0), ``final_error``; and the curves.
    """
    work, behind = record.column("work"), record.column("work_behind")
    if record.rows < 2 or not work.any() or record.column("skipped").any():
        return pd.DataFrame(), None
    loss = record.column("loss")
    measured = loss - loss[0]
    each = {"first": work[:-1], "second": (work[:-1] + behind[1:]) / 2}
    predicted = {order: np.append(0.0, np.cumsum(steps)) for order, steps in each.items()}
    size = np.sqrt(np.mean(measured**2))
    rows = [
        {
            "order": order,
            "equation": ORDERS[order],
            "steps": record.rows,
            "change": measured[-1],
            "predicted": values[-1],
            "error": np.sqrt(np.mean((values - measured) ** 2)) / size if size else np.nan,
            "final_error": abs(values[-1] - measured[-1]) / size if size else np.nan,
        }
        for order, values in predicted.items()
    ]
    kept = sampled(record.rows)
    curve = LossCurve(record.column("step", kept), measured[kept], {o: v[kept] for o, v in predicted.items()})
    return pd.DataFrame(rows), curve
