"""One look for every figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralmech.compare.show.style import COLOURS, LAW_COLOURS, STYLE

BLUE, GREEN, SKY, PINK, *_ = COLOURS
ORANGE, BLACK, GREY = LAW_COLOURS["first_order_flow"], LAW_COLOURS["modified_flow"], LAW_COLOURS["gradient_flow"]
YELLOW = LAW_COLOURS["weight_decay"]
FAMILY_COLOURS = {"translation": BLUE, "scale": ORANGE, "rescale": GREEN}
DASHED = (0, (4, 2))
LOOK: dict[Any, Any] = {
    **STYLE,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "legend.fontsize": 9,
    "mathtext.fontset": "cm",
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the common style."""

    @wraps(draw)
    def wrapped(*arguments: Any, **options: Any) -> Figure:
        with mpl.rc_context(LOOK):
            return draw(*arguments, **options)

    return wrapped


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def letters(axes: Iterable[Axes], names: Iterable[str]) -> None:
    """Title panels with (a), (b) and so on."""
    for i, (panel, name) in enumerate(zip(axes, names, strict=True)):
        panel.set_title(f"({chr(ord('a') + i)}) {name}", loc="left")


def legend_below(figure: Figure, handles: list[Any], columns: int = 4) -> None:
    """Add the one legend of a figure, below its panels."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
