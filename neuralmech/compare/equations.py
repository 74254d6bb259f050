"""Equations of laws as pictures, drawn by matplotlib: no LaTeX and no script needed."""

from __future__ import annotations

import base64
import html
import re
from functools import lru_cache
from io import BytesIO

import matplotlib as mpl
from matplotlib import mathtext
from matplotlib.font_manager import FontProperties

# What LaTeX knows and matplotlib does not.
_REPLACED = {r"\tfrac": r"\frac", r"\dfrac": r"\frac"}


@lru_cache(maxsize=256)
def equation_image(latex: str) -> str:
    r"""An ``<img>`` with the equation as SVG; the LaTeX itself where matplotlib cannot read it.

    Examples
    --------
    >>> equation_image(r"\dot Q = 0")[:24]
    '<img alt="\\dot Q = 0" sr'
    >>> equation_image(r"\nonsense{<")
    '<code>\\nonsense{&lt;</code>'
    """
    text = latex
    for old, new in _REPLACED.items():
        text = text.replace(old, new)
    picture = BytesIO()
    with mpl.rc_context({"mathtext.fontset": "cm", "svg.fonttype": "path", "svg.hashsalt": "equation"}):
        try:
            mathtext.math_to_image(f"${text}$", picture, prop=FontProperties(size=12), format="svg")
        except ValueError:
            return f"<code>{html.escape(latex)}</code>"
    svg = picture.getvalue().decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)  # holds the date
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{html.escape(latex)}" src="data:image/svg+xml;base64,{data}">'
