"""How each law's error depends on a swept hyperparameter."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.plots import FLOOR
from neuralmech.compare.style import STYLE, law_line, law_marker, plain
from neuralmech.laws import LAWS

LABELS = {
    "optim.lr": r"learning rate $\eta$",
    "optim.weight_decay": r"weight decay $\lambda$",
    "optim.momentum": r"$1-\beta$ (momentum $\beta$ grows to the right)",
    "data.batch_size": r"batch size $S$",
}


def swept_numbers(table: pd.DataFrame, keys: tuple[str, ...]) -> list[str]:
    """Keys that an axis can show: numbers, at least two of them, other than the seed."""
    numeric = [k for k in keys if k not in ("seed", "run") and pd.api.types.is_numeric_dtype(table[k])]
    return [k for k in numeric if not pd.api.types.is_bool_dtype(table[k]) and table[k].nunique() > 1]


def sweep_figure(table: pd.DataFrame, key: str) -> Figure:
    """One panel per family: the error of each law over the swept key, on logarithmic axes.

    Points are runs (RMS over the sites of the family), lines their median at each value of the key.
    """
    by = [k for k in table.columns if k in ("family", "law", key)]
    runs = [c for c in table.columns if c not in _NOT_KEYS]
    square = table.assign(square=table["error"] ** 2).dropna(subset=["square"])
    groups = list(dict.fromkeys([*by, *runs]))
    points = square.groupby(groups, sort=False, dropna=False)["square"].mean().pow(0.5).rename("error").reset_index()
    points["x"] = 1 - points[key] if key == "optim.momentum" else points[key]
    families = list(dict.fromkeys(points["family"]))
    with mpl.rc_context(STYLE):
        width = 1.2 + 3.4 * len(families)
        figure = Figure(figsize=(max(width, 4.6), 4.4), layout="constrained")
        axes = figure.subplots(1, max(1, len(families)), squeeze=False, sharey=True)[0]
        for panel, family in zip(axes, families, strict=False):
            _panel(panel, points[points["family"] == family], key)
            panel.set_title(family, fontsize=9)
            panel.set_xlabel(LABELS.get(key, plain(key)))
        axes[0].set_ylabel("relative RMS error")
        figure.legend(handles=_handles(points), loc="outside lower center", ncols=min(3, 1 + len(families)), fontsize=8)
        figure.suptitle(f"Error of each law against {plain(key)}", fontsize=11)
    return figure


_NOT_KEYS = {
    "site", "charges", "steps", "error", "unexplained", "max_error", "final_error", "q10", "median", "q90", "reason",
}  # fmt: skip


def _panel(axes: Axes, points: pd.DataFrame, key: str) -> None:
    for law, group in points.groupby("law", sort=False):
        seen = group[group["error"] > FLOOR]
        style: dict[str, Any] = {**law_line(str(law)), "marker": law_marker(str(law))}
        axes.plot(seen["x"], seen["error"], **{**style, "linestyle": ""}, markersize=3.5, alpha=0.45)
        median = seen.groupby("x")["error"].median()
        axes.plot(median.index, median, markersize=5, **style)
    axes.set_yscale("log")
    _x_scale(axes, points["x"].to_numpy(dtype=float), key)


def _x_scale(axes: Axes, x: np.ndarray, key: str) -> None:
    """Logarithmic, with a linear stretch around zero if zero was swept; the swept values are the ticks."""
    positive = x[x > 0]
    if (x < 0).any() or not len(positive):
        return
    if (x == 0).any():
        axes.set_xscale("symlog", linthresh=positive.min(), linscale=0.4)
    else:
        axes.set_xscale("log")
    values = np.unique(x)
    if len(values) <= 8:
        axes.set_xticks(values, [f"{v:g}" for v in values.round(12)])
        axes.minorticks_off()
    if key == "optim.momentum":
        axes.invert_xaxis()


def _handles(points: pd.DataFrame) -> list[Line2D]:
    laws = list(dict.fromkeys(points["law"]))
    labels = [LAWS[law].label if law in LAWS else str(law) for law in laws]
    return [
        Line2D([], [], **law_line(law), marker=law_marker(law), markersize=5, label=label)
        for law, label in zip(laws, labels, strict=True)
    ]
