"""The look and the behaviour of ``report.html``: a style sheet, the script that sorts tables, equations as pictures."""

from __future__ import annotations

import base64
import html
import re
from functools import lru_cache
from io import BytesIO

import matplotlib as mpl
from matplotlib import mathtext
from matplotlib.font_manager import FontProperties

# No font, image or script from elsewhere: the page opens offline, and its policy forbids the rest.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

CSS = """
:root { --ink: #1b1f24; --dim: #5b6570; --line: #d9dee3; --back: #fff; --soft: #f5f7f9; --accent: #0072B2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 92rem; padding: 1rem 1.25rem 4rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
p, li { max-width: 48rem; }
p.dim, figcaption, .footnotes { color: var(--dim); font-size: .875rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; max-height: 36rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .3rem .7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
td.long { white-space: normal; min-width: 16rem; }
td.name { white-space: normal; min-width: 8rem; }
th { white-space: normal; vertical-align: bottom; position: sticky; top: 0; background: var(--soft); font-weight: 600; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--accent); }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
td.number { text-align: right; }
tr:last-child td { border-bottom: 0; }
tbody tr:hover { background: var(--soft); }
tr.bad td { color: #9a3412; }
figure { margin: 1rem 0; }
figure > label { font-size: .875rem; color: var(--dim); padding-left: .3rem; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; cursor: zoom-in; }
.picture { overflow-x: auto; }
figure > input:checked ~ .picture img { max-width: none; cursor: zoom-out; }
figcaption { max-width: 60rem; }
.laws { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: .8rem; }
.law { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .9rem; min-width: 0; }
.law h3 { margin: 0 0 .3rem; }
.law .equation { padding: .3rem 0; }
.law .equation span span { display: inline-block; }
.law .equation img { height: auto; max-width: 100%; margin-right: .35rem; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .7rem .9rem;
  overflow: auto; max-height: 28rem; font-size: .8rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
@media (max-width: 40rem) {
  body { padding: .6rem .8rem 3rem; }
  h1 { font-size: 1.3rem; }
  th, td { padding: .3rem .5rem; }
}
@media print { .scroll { max-height: none; overflow: visible; } }
"""

# Numbers before text, and what is not there last, whichever way it is sorted.
SCRIPT = """
"use strict";
function key(row, column) {
  const cell = row.cells[column], raw = cell.dataset.value;
  if (raw === undefined) return [1, cell.textContent];
  return raw === "" ? [2, 0] : [0, Number(raw)];
}
function compare(a, b, sign) {
  if (a[0] !== b[0]) return a[0] === 2 || b[0] === 2 ? a[0] - b[0] : sign * (a[0] - b[0]);
  return sign * (a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0);
}
for (const head of document.querySelectorAll("th")) {
  const button = head.querySelector("button");
  if (!button) continue;
  button.addEventListener("click", () => {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort((a, b) => compare(a[0], b[0], down ? -1 : 1));
    body.append(...rows.map((pair) => pair[1]));
  });
}
"""

_REPLACED = {r"\tfrac": r"\frac", r"\dfrac": r"\frac"}  # what LaTeX knows and matplotlib does not
_EQUALS = re.compile(r"\s(?==)")  # a line may end before a sign of equality


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
