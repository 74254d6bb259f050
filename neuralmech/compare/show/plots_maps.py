"""Maps of a sweep over two numbers: how far theory is from each family's charges, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from neuralmech.compare.gather.summary import settings
from neuralmech.compare.measure.verdict import SUFFICES
from neuralmech.compare.show.drawing import NARROW, SMALLEST, head, styled
from neuralmech.compare.show.plots_sweeps import LABELS, facets_of
from neuralmech.compare.show.style import named, plain
from neuralmech.laws import LAWS
from neuralmech.laws.kinds import FORECAST

MOST = 12  # values of a key that a map has room for
LEAST_FILLED = 0.5  # of a map's cells: of a search that draws its values each is alone in its row
RANGE = SUFFICES**2, 1.0  # colours: white where a law just suffices, and as far to either side
COLOURS = "RdBu_r"
WIDTH, HEIGHT = 0.95, 0.55  # of a cell, in inches
TALL = 1.2  # inches of a phone's cell whose text runs upwards
THICK = 0.12  # inches of the bar of colours
BESIDE = 0.8  # inches that the axis of rows takes
LETTER = 0.058  # inches of a small letter, and twice that of a line
QUANTITIES = {
    "forecast": "error of the best forecast, from the start alone",
    "suffices": "error of the verdict's law, whatever it is given",
}


@dataclass(frozen=True)
class Grid:
    """The two keys of a map, their values in order, and what is said of it where there are several."""

    x: str
    y: str
    columns: tuple[float, ...]
    rows: tuple[float, ...]

    def turned(self) -> Grid:
        """With the key of fewer values across, as a phone has room for them."""
        return Grid(self.y, self.x, self.rows, self.columns)


@dataclass(frozen=True)
class CellSize:
    """Inches of a cell, and whether its text runs upwards."""

    width: float
    height: float
    upwards: bool = False

    def filled(self, text: str) -> str:
        """Text in as many lines as there is room for."""
        along, across = (self.height, self.width) if self.upwards else (self.width, self.height)
        lines = max(1, min(3, int(across / (2 * LETTER))))
        return fill(text, int(along / LETTER), max_lines=lines, placeholder=" …")


def _cell_size(columns: int, *, narrow: bool) -> CellSize:
    if not narrow:
        return CellSize(WIDTH, HEIGHT)
    width = (NARROW - BESIDE) / columns
    return CellSize(width, HEIGHT) if width >= WIDTH else CellSize(width, TALL, upwards=True)


def grid_of(verdict: pd.DataFrame, runs: pd.DataFrame, keys: tuple[str, ...]) -> Grid | None:
    """The two swept numbers with the most values that a map has room for; None if most of its cells were not run."""
    values = {key: _numbers(runs[key]) for key in settings(keys) if _is_number(verdict[key])}
    counts = {key: column.nunique() for key, column in values.items()}
    shown = sorted((key for key in values if 1 < counts[key] <= MOST), key=lambda key: -counts[key])[:2]
    if len(shown) < 2:
        return None
    x, y = shown
    columns, rows = (tuple(sorted(values[key].dropna().unique())) for key in (x, y))
    filled = len(pd.DataFrame({x: values[x], y: values[y]}).drop_duplicates()) / (len(columns) * len(rows))
    return Grid(x, y, columns, rows) if filled >= LEAST_FILLED else None


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _numbers(column: pd.Series) -> pd.Series:
    """Values of all jobs; one that failed may lack the key."""
    return pd.to_numeric(column, errors="coerce")


def with_forecasts(verdict: pd.DataFrame) -> pd.DataFrame:
    """Verdicts with what maps show: ``forecast_law`` and ``map_forecast``, ``suffices_law`` and ``map_suffices``."""
    is_forecast = verdict["kind"] == FORECAST
    return verdict.assign(
        forecast_law=verdict["law"].where(is_forecast, verdict["forecast"]),
        map_forecast=verdict["error"].where(is_forecast, verdict["forecast_error"]),
        suffices_law=verdict["law"],
        map_suffices=verdict["error"],
    )


def mapped(verdict: pd.DataFrame, runs: pd.DataFrame, families: Sequence[str], keys: tuple[str, ...]) -> list[str]:
    """Families that have a map: two numbers or more were swept, and a forecast answers for their charges."""
    if grid_of(verdict, runs, keys) is None:
        return []
    table = with_forecasts(verdict)
    return [f for f in families if table.loc[table["family"] == f, "map_forecast"].notna().any()]


def map_figure(
    verdict: pd.DataFrame, runs: pd.DataFrame, family: str, keys: tuple[str, ...], *, narrow: bool = False
) -> Figure:
    """Of one family a map over two swept numbers, a row for each setting of the other keys; means over seeds.

    Parameters
    ----------
    verdict, runs
        The tables of an analysis; a job that failed is a hatched cell with its cause.
    family, keys
        Which charges, and the swept keys.
    narrow
        Whether it is for a phone: the key of fewer values is across.

    Raises
    ------
    ValueError
        If the family is none of those that `mapped` gives.
    """
    own, grid = with_forecasts(verdict[verdict["family"] == family]), grid_of(verdict, runs, keys)
    if grid is None:
        raise ValueError(f"{family} has no map; ask `mapped`")
    grid = grid.turned() if narrow else grid
    runs = runs.assign(**{grid.x: _numbers(runs[grid.x]), grid.y: _numbers(runs[grid.y])})
    others = [key for key in settings(keys) if key not in (grid.x, grid.y) and runs[key].nunique(dropna=False) > 1]
    facets = facets_of(runs, others)
    quantities = list(QUANTITIES)
    if len(facets) > 1 or own["map_forecast"].equals(own["map_suffices"]):
        quantities = quantities[:1]
    panels = [(label, chosen, quantity) for label, chosen in facets for quantity in quantities]
    size = _cell_size(len(grid.columns), narrow=narrow)
    with styled(narrow=narrow, **{"axes.grid": False}):
        width = NARROW if narrow else max(4.2, BESIDE + size.width * len(grid.columns))
        of_map = size.height * len(grid.rows)
        figure = Figure(figsize=(width, 1.3 + len(panels) * (0.6 + of_map)), layout="constrained")
        ratios = [of_map] * len(panels) + [THICK]
        *axes, below = figure.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
        for axis, (label, chosen, quantity) in zip(axes, panels, strict=True):
            _panel(axis, own.merge(chosen[list(keys)], on=list(keys)), chosen, grid, quantity, size)
            title = fill(plain(", ".join(filter(None, (label, QUANTITIES[quantity])))), int(width / 0.078))
            axis.set_title(title, fontsize=8.5, loc="left")
        axes[-1].set_xlabel(_axis_label(grid.x))
        look: dict[str, Any] = {"extend": "both", "extendfrac": 0.04, "orientation": "horizontal"}
        bar = figure.colorbar(ScalarMappable(LogNorm(*RANGE), COLOURS), cax=below, **look)
        bar.set_label(f"relative error; white: {SUFFICES:g}, which just suffices", fontsize=8)
        head(figure, f"Where theory predicts the {named(family)}", narrow=narrow)
    return figure


def _axis_label(key: str) -> str:
    return r"momentum $\beta$" if key == "optim.momentum" else LABELS.get(key, plain(key))


def _panel(
    axes: Axes,
    verdict: pd.DataFrame,
    runs: pd.DataFrame,
    grid: Grid,
    quantity: str,
    size: CellSize,
) -> None:
    for i, x in enumerate(grid.columns):
        for j, y in enumerate(grid.rows):
            here = verdict[(verdict[grid.x] == x) & (verdict[grid.y] == y)]
            jobs = runs[(runs[grid.x] == x) & (runs[grid.y] == y)]
            _cell(axes, (i, j), here, jobs, quantity, size)
    axes.set_xlim(-0.5, len(grid.columns) - 0.5)
    axes.set_ylim(-0.5, len(grid.rows) - 0.5)
    axes.set_xticks(range(len(grid.columns)), [f"{v:g}" for v in grid.columns], rotation=90 * size.upwards)
    axes.set_yticks(range(len(grid.rows)), [f"{v:g}" for v in grid.rows])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_ylabel(_axis_label(grid.y))


def _cell(
    axes: Axes,
    at: tuple[int, int],
    verdict: pd.DataFrame,
    runs: pd.DataFrame,
    quantity: str,
    size: CellSize,
) -> None:
    """A coloured cell with its number and the law of most of its runs; a hatched one with the cause."""
    text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALLEST, "rotation": 90 * size.upwards}
    box = {"xy": (at[0] - 0.48, at[1] - 0.46), "width": 0.96, "height": 0.92, "linewidth": 0}
    errors = verdict[f"map_{quantity}"].dropna()
    if not len(errors):
        axes.add_patch(Rectangle(**box, facecolor="#F4F4F4", edgecolor="#BBBBBB", hatch="////"))
        words = size.filled(plain(_cause(verdict, runs)))
        backed = {"boxstyle": "square,pad=0.15", "facecolor": "#F4F4F4", "edgecolor": "none"}
        axes.text(*at, words, **text, color="#444444", bbox=backed)
        return
    mean = float(errors.mean())
    face = mpl.colormaps[COLOURS](LogNorm(*RANGE)(float(np.clip(mean, *RANGE))))
    axes.add_patch(Rectangle(**box, facecolor=face))
    ink = "white" if 0.299 * face[0] + 0.587 * face[1] + 0.114 * face[2] < 0.55 else "black"
    x, y = at
    first, second = ((x - 0.24, y), (x + 0.22, y)) if size.upwards else ((x, y + 0.22), (x, y - 0.2))
    axes.text(*first, _power(mean), **{**text, "fontsize": 8.5 if size.width > 0.3 else SMALLEST}, color=ink)
    law = str(verdict.loc[errors.index, f"{quantity}_law"].mode().iat[0])
    lost = len(runs) - len(errors)
    count = f", {len(errors)}/{len(runs)}" if size.upwards else f"\n{len(errors)} of {len(runs)} runs"
    below = (LAWS[law].label if law in LAWS else law) + (count if lost else "")
    axes.text(*second, plain(below), **text, color=ink)


def _power(value: float) -> str:
    r"""A number in two digits, as a physicist writes it.

    Examples
    --------
    >>> _power(0.00031), _power(0.034), _power(0.2)
    ('$3.1\\cdot10^{-4}$', '0.034', '0.20')
    """
    if value == 0 or value >= SUFFICES:
        return f"{value:#.2g}".rstrip(".")
    digits, _, power = f"{value:.1e}".partition("e")
    return rf"${digits}\cdot10^{{{int(power)}}}$"


def _cause(verdict: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Why a cell has no number."""
    if not len(runs):
        return "not run"
    failed = runs.loc[runs["reason"] != "", "reason"]
    if len(failed) == len(runs):
        return str(failed.mode().iat[0])
    reasons: Mapping[str, int] = verdict["reason"].value_counts().to_dict() if len(verdict) else {}
    said = [reason for reason in reasons if reason]
    return said[0] if said else "no such charges" if not len(verdict) else "no forecast"
