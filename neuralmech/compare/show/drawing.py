"""What all figures are drawn with: the style, room on a page or a phone, titles and legends."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator

from neuralmech.compare.show.style import STYLE

# A figure for a phone's page: as wide as it, panels below each other, nothing scaled down, exponents and all.
NARROW, NARROW_LETTERS = 3.75, 44  # inches; letters of a title
COLUMNS = 3  # panels beside each other at most
LINE = 0.165  # inches of a legend's line
_POWER = re.compile(r"\$\\mathdefault\{(?:([\d.]+)\\times)?10\^\{(-?\d+)\}\}\$")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SMALLEST = 7  # points of any text: 9 pixels of a screen


def styled(*, narrow: bool = False, **more: Any) -> AbstractContextManager[None]:
    """The style in which a figure is made and saved."""
    style: dict[Any, Any] = {**STYLE, **({"font.size": 10} if narrow else {}), **more}
    return mpl.rc_context(style)


class Powers(LogFormatterSciNotation):
    """Powers of ten as letters, not as equations, which take a tenth of the time of drawing."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Label of a tick."""
        return raised(super().__call__(x, pos))


def raised(text: str) -> str:
    r"""What matplotlib writes at a logarithmic axis, in letters; other text as it is.

    Examples
    --------
    >>> [raised(text) for text in (r"$\mathdefault{10^{-3}}$", r"$\mathdefault{6\times10^{1}}$", "")]
    ['10⁻³', '6×10¹', '']
    """
    power = _POWER.fullmatch(text)
    if power is None:
        return text
    return (f"{power[1]}×" if power[1] else "") + "10" + power[2].translate(_RAISED)


def logarithmic(axes: Axes) -> None:
    """Give the vertical axis a logarithmic scale."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(Powers())
    axes.yaxis.set_minor_formatter(Powers())


def steps_along(axes: Axes, label: str = "step $k$") -> None:
    """Let the horizontal axis count steps, which are whole."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))


def columns_of(panels: int, *, narrow: bool) -> int:
    """How many of some panels stand beside each other."""
    return 1 if narrow else 2 if panels == 4 else min(COLUMNS, panels)


def laid_out(
    panels: int, size: tuple[float, float, float], *, ratios: Sequence[float] = (1,), narrow: bool, **more: Any
) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure of some panels in rows, each of one or more axes below each other; a phone's has one in a row.

    Parameters
    ----------
    panels
        How many.
    size
        Inches: width, height around all panels, height of a panel.
    ratios
        Heights of a panel's axes, relative to each other.
    more
        Passed to `Figure.subplots`.

    Returns
    -------
    Figure
        Without a title or a legend.
    list of list of Axes
        Those of each panel, from above.
    """
    columns = columns_of(panels, narrow=narrow)
    bands, parts = -(-panels // columns), len(ratios)
    width, around, height = size
    figure = Figure(figsize=(NARROW if narrow else width, around + height * bands), layout="constrained")
    grid = figure.subplots(parts * bands, columns, squeeze=False, height_ratios=[*ratios] * bands, **more)
    each = [list(band[:, i]) for band in np.split(grid, bands) for i in range(columns)]
    for unused in each[panels:]:
        for axes in unused:
            axes.set_axis_off()
    return figure, each[:panels]


def wrapped(text: str, *, narrow: bool) -> str:
    """A title, in several lines where a figure is narrow."""
    return textwrap.fill(text, NARROW_LETTERS) if narrow else text


def head(figure: Figure, text: str, *, narrow: bool) -> None:
    """Write the title over a figure."""
    figure.suptitle(wrapped(text, narrow=narrow), fontsize=10 if narrow else 11)


def legend_below(figure: Figure, handles: Sequence[Any], columns: int, *, narrow: bool, **more: Any) -> None:
    """Write the legend under a figure; a narrow one has one column, and grows by it."""
    if narrow:
        columns = 1
        figure.set_size_inches(figure.get_figwidth(), figure.get_figheight() + LINE * len(handles))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, **more)
