"""How all figures look: colours, symbols, fonts."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from neuralmech.laws import LAWS

# Okabe & Ito's colours, distinguishable with any colour vision; charges and laws share none.
COLOURS = ("#0072B2", "#009E73", "#56B4E9", "#CC79A7")
LAW_COLOURS = {
    "gradient_flow": "#999999",
    "weight_decay": "#F0C000",
    "first_order_flow": "#D55E00",
    "modified_flow": "#000000",
    "discrete": "#7A3B8F",
    "discrete_broken": "#E69F9F",
}
FORMS = {
    "translation": r"$\langle a,\theta\rangle$",
    "scale": r"$|\theta_A|^2$",
    "rescale": r"$|\theta_{\mathrm{in}}|^2-|\theta_{\mathrm{out}}|^2$",
    "linear": r"$Q_{ij}$",
}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "figure.dpi": 150,
    "pdf.fonttype": 42,  # text stays text
}
_OTHERS = ("#332288", "#117733", "#AA4499", "#88CCEE", "#882255")


def law_colour(name: str) -> str:
    """A law's colour in every figure; a law without one of its own gets one by its place in the catalogue."""
    if name in LAW_COLOURS:
        return LAW_COLOURS[name]
    others = [law for law in LAWS if law not in LAW_COLOURS]
    return _OTHERS[others.index(name) % len(_OTHERS)] if name in others else "#666666"


def plain(text: str) -> str:
    """Text of a record in a figure: dollar signs are no mathematics."""
    return text.replace("$", r"\$")
