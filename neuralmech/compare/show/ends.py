"""Names at the right ends of curves, in their colours: no legend to look up."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from numpy.typing import NDArray

from neuralmech.compare.show.cells import shortened
from neuralmech.compare.show.drawing import SMALLEST
from neuralmech.compare.show.style import plain

NAME_GAP, NAME_LENGTH = 0.075, 36  # between names, of the axis; letters of one
ROOM = 2.1  # inches that names take beside the axes


def in_short(names: Sequence[str], length: int = NAME_LENGTH) -> list[str]:
    """Names without the word that all of their paths begin with, if there is one, and short enough for a figure.

    Examples
    --------
    >>> in_short(["net.wte.weight, net.wpe.weight[60]", "net.h.0.bias[1]"])
    ['wte.weight, wpe.weight[60]', 'h.0.bias[1]']
    >>> in_short(["features.0[1]", "features.3[2]"])  # a number alone would say nothing
    ['features.0[1]', 'features.3[2]']
    """
    paths = re.findall(r"[\w.]*\.[\w.]+", " ".join(names))
    first = paths[0].partition(".")[0] + "." if paths else ""
    if first and all(path.startswith(first) and not path[len(first)].isdigit() for path in paths):
        names = [re.sub(rf"(?<![\w.]){re.escape(first)}", "", name) for name in names]
    return [plain(shortened(name, length)) for name in names]


def name_ends(
    axes: Axes,
    end: float,
    last: Sequence[float] | Float64[NDArray, " lines"],
    names: Sequence[str],
    colours: Sequence[str],
) -> None:
    """Write each curve's name beside the point (`end`, `last`), moved apart where curves end side by side.

    Limits and scales of the axes have to be final.
    """
    shown = in_short(names)
    of_axes = axes.transData + axes.transAxes.inverted()
    height = np.array([of_axes.transform((end, value))[1] for value in last])
    kept = np.flatnonzero(np.isfinite(height))
    order = kept[np.argsort(height[kept])]
    gap = min(NAME_GAP, 1.0 / max(1, len(order) - 1))
    places = height[order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places[-1:] = np.minimum(places[-1:], 1.0)
    for i in range(len(places) - 2, -1, -1):
        places[i] = min(places[i], places[i + 1] - gap)
    for i, place in zip(order, places, strict=True):
        axes.annotate(
            shown[i],
            (end, last[i]),
            (1.02, place),
            xycoords="data",
            textcoords="axes fraction",
            color=colours[i],
            fontsize=SMALLEST,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "color": colours[i], "alpha": 0.6,
            },
        )  # fmt: skip
