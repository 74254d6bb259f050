"""How all figures look: colours, symbols, fonts."""

from __future__ import annotations

from typing import Any

from neuralmech.compare.measure.views import METRIC
from neuralmech.laws import LAWS

# Okabe & Ito's colours, distinguishable with any colour vision, and two more; charges and laws share none.
COLOURS = ("#0072B2", "#009E73", "#56B4E9", "#CC79A7", "#8C510A", "#8DB600")
# Where laws agree, wide lines show beside narrow ones, and dashes let through what lies below: no two are alike.
LAW_DASHES: dict[str, Any] = {
    "gradient_flow": (0, (1, 1.5)),
    "weight_decay": (0, (6, 2)),
    "modified_loss": (3, (3, 2, 1, 2)),
    "first_order_flow": (0, (1, 1.5, 4, 1.5)),
    "modified_flow": (0, (4, 2)),
    "stochastic": (2, (2, 4)),
    "noether": (1, (3, 5)),
    "discrete": "-",
    "discrete_broken": (0, (3, 3)),
    "discrete_ascent": (0, (2, 1)),
    "constant_metric": (0, (1, 1.5)),
    "moving_metric": (0, (3, 3)),
}
IN_METRIC = "in Adam's metric"
FLOOR = 1e-16  # relative errors below are rounding of rounding
WIDEST, NARROWEST = 2.2, 1.0  # lines of the first law of the catalogue, and of the last
MARKERS = "osD^vP<>X*"
LAW_COLOURS = {
    "gradient_flow": "#999999",
    "weight_decay": "#F0C000",
    "first_order_flow": "#D55E00",
    "modified_flow": "#000000",
    "discrete": "#7A3B8F",
    "discrete_broken": "#E69F9F",
    "discrete_ascent": "#117733",
    "constant_metric": "#4D4D80",
    "moving_metric": "#D55E00",
}
FORMS = {
    "translation": r"$\langle a,\theta\rangle$",
    "scale": r"$|\theta_A|^2$",
    "rescale": r"$|\theta_{\mathrm{in}}|^2-|\theta_{\mathrm{out}}|^2$",
    "linear": r"$Q_{ij}$",
    "translation_metric": r"$\langle a,w\theta\rangle$",
    "scale_metric": r"$\theta_A^\top w\,\theta_A$",
    "rescale_metric": r"$(\theta^\top w\,\theta)_{\mathrm{in}}-(\theta^\top w\,\theta)_{\mathrm{out}}$",
    "linear_metric": r"$q_{ii}$",
}
MEASURED: dict[str, Any] = {"linewidth": 5.0, "alpha": 0.55}  # wide enough to be seen on both sides of the laws on it
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "figure.autolayout": False,  # figures say themselves how they are laid out
    "figure.constrained_layout.use": False,
    "figure.dpi": 150,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "path",  # and looks the same without its font
    "svg.hashsalt": "neuralmech",  # the same analysis gives the same bytes
}
_OTHERS = ("#332288", "#117733", "#AA4499", "#88CCEE", "#882255")


def law_colour(name: str) -> str:
    """A law's colour in every figure; a law without one of its own gets one by its place in the catalogue."""
    if name in LAW_COLOURS:
        return LAW_COLOURS[name]
    others = [law for law in LAWS if law not in LAW_COLOURS]
    return _OTHERS[others.index(name) % len(_OTHERS)] if name in others else "#666666"


def law_line(name: str) -> dict[str, Any]:
    """A law's colour, dashes and width in every figure; laws that are drawn later are narrower.

    Examples
    --------
    >>> law_line("discrete_broken")
    {'color': '#E69F9F', 'linestyle': (0, (3, 3)), 'linewidth': 1.33}
    """
    place = _place(name) / max(1, len(LAWS) - 1)
    width = WIDEST + (NARROWEST - WIDEST) * place
    return {"color": law_colour(name), "linestyle": LAW_DASHES.get(name, "-"), "linewidth": round(width, 2)}


def law_marker(name: str) -> str:
    """A law's marker in every figure, whichever laws it is drawn with."""
    return MARKERS[_place(name) % len(MARKERS)]


def run_colours(count: int) -> list[str]:
    """Colours of so many runs beside each other, in their order."""
    stops = ("#440154", "#3B528B", "#21918C", "#5EC962", "#E0A800")  # viridis, its end dark enough for lines
    if count <= 1:
        return [COLOURS[0]][:count]
    places = [i * (len(stops) - 1) / (count - 1) for i in range(count)]
    return [_between(stops[int(p)], stops[min(int(p) + 1, len(stops) - 1)], p - int(p)) for p in places]


def _between(first: str, second: str, share: float) -> str:
    parts = [(int(first[i : i + 2], 16), int(second[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + share * (b - a)):02X}" for a, b in parts)


def _place(name: str) -> int:
    return list(LAWS).index(name) if name in LAWS else len(LAWS) - 1


def plain(text: str) -> str:
    """Text of a record in a figure: dollar signs are no mathematics."""
    return text.replace("$", r"\$")


def named(family: str, noun: str = "charges") -> str:
    """What charges of a family are called.

    Examples
    --------
    >>> print(named("scale"), named("scale_metric", "charge"), sep=", ")
    scale charges, scale charge in Adam's metric
    """
    plain_name = family.removesuffix(METRIC)
    return f"{plain_name} {noun}" + ("" if plain_name == family else f" {IN_METRIC}")
