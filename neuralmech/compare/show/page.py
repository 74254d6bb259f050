"""How ``report.html`` is made of its templates: what it may load, equations as pictures."""

from __future__ import annotations

import base64
import html
import re
from functools import lru_cache
from io import BytesIO

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import mathtext
from matplotlib.font_manager import FontProperties

TEMPLATES = Environment(
    loader=PackageLoader("neuralmech.compare.show"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
    undefined=StrictUndefined,
)  # fmt: skip
TEMPLATES.filters["powers"] = lambda text: _POWER.sub(lambda m: f"{m[1]}·10{_raised(int(m[2]))}", text)
TEMPLATES.filters["kept"] = lambda text: text.replace(" %", "\xa0%")  # a number and its sign stay on one line
TEMPLATES.filters["broken"] = lambda text: Markup(re.sub(r"([._])(?=\w)", r"\1<wbr>", str(escape(text))))
# No font, image or script from elsewhere: the page opens offline, and its policy forbids the rest.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_REPLACED = {r"\tfrac": r"\frac", r"\dfrac": r"\frac"}  # what LaTeX knows and matplotlib does not
_EQUALS = re.compile(r"\s(?==)")  # a line may end before a sign of equality


_POWER = re.compile(r"\b([\d.]+)e([+-]\d+)\b")


def _raised(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def equation_html(latex: str) -> str:
    r"""Pictures of an equation's parts, between which a line may end; the LaTeX itself where it cannot be drawn.

    matplotlib draws them, glyphs and all: MathML would need a font for mathematics on the reader's machine.

    Examples
    --------
    >>> equation_html(r"\dot Q = 0").count("<img")
    2
    >>> equation_html(r"\nonsense{<")
    '<code>\\nonsense{&lt;</code>'
    """
    try:
        sides = [map(_image, _EQUALS.split(whole.strip())) for whole in latex.split(r"\quad")]
        pictures = "".join(f"<span>{''.join(images)}</span>" for images in sides)
    except ValueError:
        return f"<code>{html.escape(latex)}</code>"
    return f'<span role="math" aria-label="{html.escape(latex)}">{pictures}</span>'


def _image(latex: str) -> str:
    svg, width, depth = _draw(latex)
    data = base64.b64encode(svg.encode()).decode()
    style = f"width:{width:.1f}px;vertical-align:{-depth:.1f}px"
    return f'<img alt="" style="{style}" src="data:image/svg+xml;base64,{data}">'


@lru_cache(maxsize=256)  # a page that is written again and again has the same equations
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
