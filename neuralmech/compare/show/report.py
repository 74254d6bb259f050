"""``report.html``: one page with everything, which opens offline. All text from the record is escaped."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Sequence
from pathlib import Path

import yaml

from neuralmech.compare.gather.analysis import Analysis
from neuralmech.compare.show.cells import Cell, Sheet
from neuralmech.compare.show.figures import caption
from neuralmech.compare.show.page import CSS, POLICY, SCRIPT, equation_html
from neuralmech.laws import LAWS

FIRST = ("error", "budget")  # tables above the figures
LONG, NAME = 60, 16  # characters above which a cell's text wraps, to a wide or a narrow column


def report(
    analysis: Analysis, sheets: Sequence[Sheet], images: Sequence[Path] = (), refresh: float | None = None
) -> str:
    """The page as text.

    Parameters
    ----------
    analysis
        What was found.
    sheets
        The tables, in order.
    images
        PNG files to embed.
    refresh
        Seconds after which a browser loads the page again, while a run is being written.
    """
    title = f"{analysis.folder.resolve().name}: theory against measurement"
    tables = {sheet.name: (sheet.title.capitalize(), _sheet(sheet)) for sheet in sheets if sheet.rows}
    sections = {
        "summary": ("Summary", _summary(analysis)),
        **{name: content for name, content in tables.items() if name in FIRST},
        **({"figures": ("Figures", _figures(analysis, images))} if images else {}),
        **{name: content for name, content in tables.items() if name not in FIRST},
        "laws": ("The laws", _laws(analysis)),
        "config": ("Configuration", _documents(analysis.configs)),
        "provenance": ("Provenance", _documents(analysis.provenance)),
    }
    links = "".join(f'<a href="#{name}">{_text(heading)}</a>' for name, (heading, _) in sections.items())
    body = "".join(
        f'<section id="{name}"><h2>{_text(heading)}</h2>{content}</section>'
        for name, (heading, content) in sections.items()
    )
    again = f'<meta http-equiv="refresh" content="{max(1, math.ceil(refresh))}">' if refresh else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">{again}'
        f"<title>{_text(title)}</title><style>{CSS}</style></head>\n"
        f"<body><h1>{_text(title)}</h1><nav>{links}</nav>{body}<script>{SCRIPT}</script></body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _summary(analysis: Analysis) -> str:
    failed = int((analysis.runs["steps"] == 0).sum())
    runs = len(analysis.runs) - failed
    words = [
        f"{runs} run{'s' if runs != 1 else ''}" + (f", {failed} failed or without rows" if failed else ""),
        f"{analysis.comparison['law'].nunique()} laws",
    ]
    if analysis.keys:
        words.append("swept: " + ", ".join(analysis.keys))
    live = "<p><strong>Still being written.</strong> The tables show the rows so far.</p>"
    state = live if analysis.is_running else ""
    notes = "".join(f"<li>{_text(note)}</li>" for note in analysis.notes)
    return f"<p>{_text('; '.join(words))}.</p>{state}" + (f"<ul>{notes}</ul>" if notes else "")


def _sheet(sheet: Sheet) -> str:
    head = "".join(f'<th scope="col"><button type="button">{_heading(name)}</button></th>' for name in sheet.columns)
    status = sheet.columns.index("steps") if sheet.name == "runs" else None
    rows = "".join(_row(row, bad=status is not None and row[status].value == 0) for row in sheet.rows)
    notes = "".join(f"<li>{_text(text)}</li>" for text in sheet.footnotes)
    footnotes = f'<ol class="footnotes">{notes}</ol>' if notes else ""
    return (
        f'<p class="dim">{_text(sheet.meaning)}</p><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{_text(sheet.title)}"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"{footnotes}"
    )


def _heading(name: str) -> str:
    """A column's name, which may break after an underscore."""
    return _text(name).replace("_", "_<wbr>")


def _row(row: Sequence[Cell], *, bad: bool) -> str:
    cells = "".join(map(_cell, row))
    return f'<tr class="bad">{cells}</tr>' if bad else f"<tr>{cells}</tr>"


def _cell(cell: Cell) -> str:
    text = f"<strong>{_text(cell.text)}</strong>" if cell.bold else _text(cell.text)
    if cell.note:
        text += f"<sup>{cell.note}</sup>"
    if isinstance(cell.value, (int, float)) and not isinstance(cell.value, bool):
        value = "" if math.isnan(cell.value) else repr(cell.value)
        return f'<td class="number" data-value="{value}">{text}</td>'
    kind = "long" if len(cell.text) > LONG else "name" if len(cell.text) > NAME else ""
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"


def _figures(analysis: Analysis, images: Sequence[Path]) -> str:
    lawful = set(analysis.comparison.loc[analysis.comparison["reason"] == "", "family"])
    families = set(analysis.comparison["family"])
    return "".join(_figure(path, has_laws=path.stem in lawful or path.stem not in families) for path in images)


def _figure(path: Path, *, has_laws: bool) -> str:
    """A picture as wide as the page; ticking the box or touching it shows its full size, to be scrolled."""
    data = base64.b64encode(path.read_bytes()).decode()
    name = _text(path.stem)
    text = f"{_text(caption(path.stem, has_laws=has_laws))} {name}.pdf has the same as vectors."
    source = f"data:image/png;base64,{data}"
    return (
        f'<figure><input type="checkbox" id="full-{name}"><label for="full-{name}">full size</label>'
        f'<div class="picture" tabindex="0"><label for="full-{name}"><img alt="{name}" src="{source}"></label></div>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _laws(analysis: Analysis) -> str:
    names = dict.fromkeys(analysis.comparison["law"])
    cards = []
    for name in names:
        law = LAWS[name]
        inputs = ", ".join(law.inputs) or "none: a forecast from the start alone"
        cards.append(
            f'<div class="law"><h3>{_text(law.label)}</h3><div class="equation">{equation_html(law.equation)}</div>'
            f'<p class="dim">{_text(name)}. {_text(law.source)}. Inputs: {_text(inputs)}. '
            f"Where it is off it misses {_text(law.omits)}.</p></div>"
        )
    return (
        "<p>For a quadratic charge Q = θᵀSθ with drive D = uᵀSu; a translation charge has 1 in place of 2 and no "
        f'drive. η learning rate, β momentum, δ dampening, λ weight decay.</p><div class="laws">{"".join(cards)}</div>'
    )


def _documents(documents: dict) -> str:
    """One YAML text per run; folded if there are several."""
    parts = []
    for name, content in documents.items():
        text = yaml.safe_dump(json.loads(json.dumps(content, default=_basic)), sort_keys=False, allow_unicode=True)
        block = f"<pre>{_text(text)}</pre>"
        parts.append(f"<details><summary>{_text(name)}</summary>{block}</details>" if len(documents) > 1 else block)
    return "".join(parts)


def _basic(value: object) -> object:
    """Attributes come as numpy scalars."""
    return value.item() if hasattr(value, "item") else str(value)  # type: ignore[attr-defined]
