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


# Where a line may end: between equations, before the sign of equality, and in long sums.
_EQUALS = re.compile(r"\s(?==)")
_TERMS = re.compile(r"\s(?=[+-]\s)")
WIDEST = 300.0  # CSS pixels: a card's width on a phone is 330


def equation_html(latex: str) -> str:
    r"""Pictures of an equation's parts, between which a line may end; the LaTeX itself where it cannot be drawn.

    Examples
    --------
    >>> equation_html(r"\dot Q = 0").count("<img")
    2
    >>> equation_html(r"\nonsense{<")
    '<code>\\nonsense{&lt;</code>'
    """
    try:
        pictures = "".join(f"<span>{_parts(whole)}</span>" for whole in latex.split(r"\quad"))
    except ValueError:
        return f"<code>{html.escape(latex)}</code>"
    return f'<span role="math" aria-label="{html.escape(latex)}">{pictures}</span>'


def _parts(equation: str) -> str:
    return "".join(_image(part) for side in _EQUALS.split(equation.strip()) for part in _narrow(side))


def _narrow(latex: str) -> list[str]:
    """The part as it is or, if it is too wide for a phone, broken where a sum in it goes on."""
    if _draw(latex)[1] <= WIDEST:
        return [latex]
    lines: list[str] = []
    for term in _terms(latex):
        longer = f"{lines[-1]} {term}" if lines else term
        fits = lines and _draw(longer)[1] <= WIDEST
        lines = [*lines[:-1], longer] if fits else [*lines, term]
    return lines


def _terms(latex: str) -> list[str]:
    """The terms of a sum; what stands in brackets is not torn apart."""
    terms: list[str] = []
    for piece in _TERMS.split(latex):
        inside = bool(terms) and any(terms[-1].count(a) > terms[-1].count(b) for a, b in ("()", "{}", "[]"))
        terms = [*terms[:-1], f"{terms[-1]} {piece}"] if inside else [*terms, piece]
    return terms


def _image(latex: str) -> str:
    svg, width, depth = _draw(latex)
    data = base64.b64encode(svg.encode()).decode()
    style = f"width:{width:.1f}px;vertical-align:{-depth:.1f}px"
    return f'<img alt="" style="{style}" src="data:image/svg+xml;base64,{data}">'


@lru_cache(maxsize=256)
def _draw(latex: str) -> tuple[str, float, float]:
    """An SVG, its width and how far it reaches below the line, in CSS pixels.

    Raises
    ------
    ValueError
        If matplotlib cannot read it.
    """
    for old, new in _REPLACED.items():
        latex = latex.replace(old, new)
    picture = BytesIO()
    with mpl.rc_context({"mathtext.fontset": "cm", "svg.fonttype": "path", "svg.hashsalt": "equation"}):
        depth = mathtext.math_to_image(f"${latex}$", picture, prop=FontProperties(size=12), format="svg")
    svg = picture.getvalue().decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)  # holds the date
    width = re.search(r'<svg[^>]*?width="([\d.]+)pt"', svg, re.DOTALL)
    return svg, float(width[1]) * 96 / 72 if width else 0.0, float(depth) * 96 / 72
