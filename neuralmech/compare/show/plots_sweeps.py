"""Figures of sweeps: each law's error over a swept hyperparameter; how one batch size predicts another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.gather.labels import label_texts
from neuralmech.compare.gather.summary import settings
from neuralmech.compare.measure.curves import BatchCurve
from neuralmech.compare.show.drawing import (
    NARROW,
    columns_of,
    head,
    laid_out,
    legend_below,
    logarithmic,
    steps_along,
    styled,
    wrapped,
)
from neuralmech.compare.show.style import FLOOR, law_line, law_marker, plain
from neuralmech.laws import LAWS

LABELS = {
    "optim.lr": r"learning rate $\eta$",
    "optim.weight_decay": r"weight decay $\lambda$",
    "optim.momentum": r"$1-\beta$ (momentum $\beta$ grows to the right)",
    "data.batch_size": r"batch size $S$",
}


def swept_numbers(table: pd.DataFrame, keys: tuple[str, ...]) -> list[str]:
    """Keys that an axis can show: numbers, at least two of them, other than the seed."""
    numeric = [k for k in settings(keys) if pd.api.types.is_numeric_dtype(table[k])]
    return [k for k in numeric if not pd.api.types.is_bool_dtype(table[k]) and table[k].nunique() > 1]


def sweep_figure(table: pd.DataFrame, key: str, keys: Sequence[str] = (), *, narrow: bool = False) -> Figure:
    """A panel per family and setting of the other swept keys: the error of each law over the key, on logarithmic axes.

    Points are runs (RMS over the sites of the family), lines their mean over seeds, bars the standard deviation.
    `narrow`: for a phone, the settings of a family below each other.
    """
    others = [k for k in settings(keys) if k != key and table[k].nunique(dropna=False) > 1]
    by = list(dict.fromkeys([*keys, key, "family", "law"]))
    square = table.assign(square=table["error"] ** 2).dropna(subset=["square"])
    points = square.groupby(by, sort=False, dropna=False)["square"].mean().pow(0.5).rename("error").reset_index()
    points["x"] = 1 - points[key] if key == "optim.momentum" else points[key]
    families = list(dict.fromkeys(points["family"]))
    facets = facets_of(points, others)
    with styled(narrow=narrow):
        figure, axes = _grid(len(facets), len(families), narrow=narrow)
        for place, (row, (label, chosen)) in enumerate(zip(axes, facets, strict=True)):
            for panel, family in zip(row, families, strict=False):
                _panel(panel, chosen[chosen["family"] == family], key)
                if narrow:
                    panel.set_title(wrapped(plain(": ".join(filter(None, (family, label)))), narrow=True), fontsize=9)
                elif place == 0:
                    panel.set_title(family, fontsize=9)
                if narrow or place == len(facets) - 1:
                    panel.set_xlabel(LABELS.get(key, plain(key)))
            for panel in row if narrow else row[:1]:
                panel.set_ylabel("relative RMS error" if narrow or not label else f"{plain(label)}\nrelative RMS error")
        legend_below(figure, _handles(points), min(3, 1 + len(families)), narrow=narrow)
        head(figure, f"Error of each law against {plain(key)}", narrow=narrow)
    return figure


def _grid(rows: int, columns: int, *, narrow: bool) -> tuple[Figure, np.ndarray]:
    """Axes by row and column; on a phone all are below each other, a column after another."""
    columns = max(1, columns)
    if narrow:
        figure = Figure(figsize=(NARROW, 1.0 + 2.5 * rows * columns), layout="constrained")
        return figure, figure.subplots(rows * columns, 1, squeeze=False, sharey=True).reshape(columns, rows).T
    figure = Figure(figsize=(max(1.2 + 3.4 * columns, 4.6), 1.4 + 2.6 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex="col", sharey=True)


MAX_FACETS, MAX_PAIRS = 6, 12
Item = TypeVar("Item")


def facets_of(points: pd.DataFrame, others: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Rows of each setting of some keys, under its label; of many settings some, evenly spread."""
    if not others:
        return [("", points)]
    groups = _some(points.groupby(list(others), sort=False, dropna=False), MAX_FACETS)
    labels = label_texts([dict(zip(others, values, strict=True)) for values, _ in groups])
    return [(label, rows) for label, (_, rows) in zip(labels, groups, strict=True)]


def _some(items: Iterable[Item], most: int) -> list[Item]:
    """At most so many, evenly spread, first and last among them."""
    items = list(items)
    at = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[i] for i in at]


def _panel(axes: Axes, points: pd.DataFrame, key: str) -> None:
    for law, group in points.groupby("law", sort=False):
        seen = group[group["error"] > FLOOR]
        style: dict[str, Any] = {**law_line(str(law)), "marker": law_marker(str(law))}
        of = seen.groupby("x")["error"]
        mean, spread = of.mean(), of.std().fillna(0.0)
        axes.plot(mean.index, mean, markersize=5, **style)
        if (spread > 0).any():
            axes.plot(seen["x"], seen["error"], **{**style, "linestyle": ""}, markersize=3, alpha=0.4)
            low = np.minimum(spread, 0.9 * mean)  # a bar below zero has no place on a logarithmic axis
            axes.errorbar(mean.index, mean, yerr=[low, spread], fmt="none", ecolor=style["color"], elinewidth=0.9)
    logarithmic(axes)
    if len(points):
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
    if key == "optim.momentum" and not axes.xaxis_inverted():
        axes.invert_xaxis()


def _handles(points: pd.DataFrame) -> list[Line2D]:
    laws = list(dict.fromkeys(points["law"]))
    labels = [LAWS[law].label if law in LAWS else str(law) for law in laws]
    return [
        Line2D([], [], **law_line(law), marker=law_marker(law), markersize=5, label=label)
        for law, label in zip(laws, labels, strict=True)
    ]


def batch_figure(curves: Sequence[BatchCurve], *, narrow: bool = False) -> Figure:
    """How far into training gradients measured at one batch size predict the charges at another.

    Of many pairs of batch sizes, and of many runs of a pair, some, evenly spread. `narrow`: for a phone, families below
    each other.
    """
    families = list(dict.fromkeys(c.family for c in curves))
    pairs = _some(dict.fromkeys((c.source, c.target) for c in curves), MAX_PAIRS)
    of = {(family, pair): [] for family in families for pair in pairs}
    for c in curves:
        if (c.source, c.target) in pairs:
            of[c.family, (c.source, c.target)].append(c)
    colours = mpl.colormaps["viridis"](np.linspace(0.1, 0.85, len(pairs)))
    with styled(narrow=narrow):
        columns = columns_of(len(families), narrow=narrow)
        size = max(6.4, 1.4 + 3.8 * columns), 1.2, 3.0
        figure, axes = laid_out(len(families), size, narrow=narrow, sharey=True)
        for (axis,), family in zip(axes, families, strict=True):
            for colour, pair in zip(colours, pairs, strict=True):
                for c in _some(of[family, pair], MAX_FACETS):
                    axis.plot(c.step, np.where(c.error > FLOOR, c.error, np.nan), color=colour, linewidth=1.3)
            logarithmic(axis)
            axis.set_title(family, fontsize=9)
            steps_along(axis)
        for (axis,) in axes[::columns]:
            axis.set_ylabel("relative RMS error")
        handles = [
            Line2D([], [], color=colour, label=f"$S = {a}$ predicts $S = {b}$")
            for (a, b), colour in zip(pairs, colours, strict=True)
        ]
        legend_below(figure, handles, 3 if len(families) > 1 else 2, narrow=narrow)
        head(figure, "Predicting one batch size from another", narrow=narrow)
    return figure
