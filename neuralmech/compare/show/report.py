"""``report.html``: one page with everything, which opens offline. Its templates escape all text from the record."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from markupsafe import Markup

from neuralmech.compare.gather.analysis import Analysis
from neuralmech.compare.gather.labels import SYMBOLS
from neuralmech.compare.show.captions import MAP, caption
from neuralmech.compare.show.cells import DASH, Cell, Sheet
from neuralmech.compare.show.figures import Picture
from neuralmech.compare.show.page import POLICY, TEMPLATES, equation_html
from neuralmech.compare.show.verdicts import about, moved_in, said, state
from neuralmech.laws import LAWS
from neuralmech.laws.kinds import MEANS

LONG, NAME = 60, 16  # characters above which a cell's text wraps, to a wide or a narrow column
MOST_ROWS = 600  # of a table: a page is looked at, files are read on
FEW = 4  # columns of a table that a phone shows, where the table does not say which
# Where figures and tables stand; what is not here comes after these.
SECTIONS = {
    "training": ("Training", ("training", "norms"), ()),
    "charges": ("Charges and theory", (), ()),
    "account": ("What moved the charges", ("budget",), ("budget",)),
    "rates": ("Effective learning rates", ("effective_learning_rate",), ()),
    "tables": ("How well each law does", (), ("laws_of_families", "error", "unexplained", "seeds")),
}
OPEN = ("laws_of_families", "budget")  # tables that are not folded


def report(
    analysis: Analysis, sheets: Sequence[Sheet], pictures: Sequence[Picture] = (), refresh: float | None = None
) -> str:
    """The page as text.

    Parameters
    ----------
    analysis
        What was found.
    sheets
        The tables, in order.
    pictures
        Figures to embed.
    refresh
        Seconds after which a browser loads the page again, while a run is being written.
    """
    summary = next((_sheet(sheet) for sheet in sheets if sheet.name == "summary"), None)
    rest = [_sheet(sheet) for sheet in sheets if sheet.rows and sheet.name != "summary"]
    sections = [{"id": "verdict", "title": "Verdict"}, *_sections(analysis, rest, _figures(analysis, pictures))]
    sections += [{"id": "laws", "title": "The laws"}, {"id": "runs_documents", "title": "Configuration"}]
    return TEMPLATES.get_template("page.html.j2").render(
        title=about(analysis) or analysis.folder.resolve().name,
        state=state(analysis),
        policy=POLICY,
        refresh=max(1, math.ceil(refresh)) if refresh else None,
        is_running=analysis.is_running,
        notes=analysis.notes,
        verdicts=[said(row) for row in analysis.verdict.to_dict("records")],
        summary=summary,
        moved=moved_in(analysis) if summary else [],
        kinds=MEANS,
        sections=sections,
        laws=[_law(name) for name in dict.fromkeys(analysis.comparison["law"])],
        documents=_documents("configuration", analysis.configs) + _documents("provenance", analysis.provenance),
    )


def _sections(analysis: Analysis, sheets: list[dict], figures: list[dict]) -> list[dict[str, Any]]:
    """Figures and tables under their headings; headings with nothing under them are left out."""
    families, out = set(analysis.comparison["family"]), []
    for key, (heading, pictures, tables) in SECTIONS.items():
        own = families if key == "charges" else set(pictures)
        own |= {f"{MAP}{family}" for family in families} if key == "tables" else set()
        mine = [f for f in figures if f["name"] in own]
        out.append({"id": key, "title": heading, "figures": mine, "sheets": [s for s in sheets if s["name"] in tables]})
    shown = {f["name"] for section in out for f in section["figures"]}
    placed = {s["name"] for section in out for s in section["sheets"]}
    more = {
        "figures": [f for f in figures if f["name"] not in shown],
        "sheets": [s for s in sheets if s["name"] not in placed],
    }
    out.append({"id": "more", "title": "More", **more})
    return [section for section in out if section["figures"] or section["sheets"]]


def _sheet(sheet: Sheet) -> dict[str, Any]:
    """A table as its template has it: which columns a phone shows, what a cell sorts by."""
    few = sheet.few or sheet.columns[:FEW]
    more = [column not in few for column in sheet.columns]
    status = sheet.columns.index("steps") if sheet.name == "runs" else None
    cut = (
        f" The first {MOST_ROWS} of {len(sheet.rows):,} rows; the folder has all."
        if len(sheet.rows) > MOST_ROWS
        else ""
    )
    rows = [
        {
            "cells": [_cell(cell, is_more=is_more) for cell, is_more in zip(row, more, strict=True)],
            "is_bad": status is not None and row[status].value == 0,
        }
        for row in sheet.rows[:MOST_ROWS]
    ]
    columns = [
        {
            "parts": re.split(r"(?<=_)", SYMBOLS.get(column, column)),
            "classes": " ".join(
                filter(
                    None,
                    ("number" if _is_number(cell.value) and len(cell.text) <= NAME else "", "more" if is_more else ""),
                )
            ),
        }
        for column, cell, is_more in zip(sheet.columns, _typical(sheet), more, strict=True)
    ]
    return {
        "name": sheet.name, "title": sheet.title, "meaning": sheet.meaning + cut, "footnotes": sheet.footnotes,
        "columns": columns, "rows": rows, "has_more": any(more), "is_open": sheet.name in OPEN and len(rows) <= 60,
    }  # fmt: skip


def _typical(sheet: Sheet) -> list[Cell]:
    """Of each column the first cell that says something: its heading stands over it."""
    columns = zip(*sheet.rows, strict=True)
    return [next((cell for cell in column if cell.text != DASH), column[0]) for column in columns]


def _cell(cell: Cell, *, is_more: bool) -> dict[str, Any]:
    is_number = _is_number(cell.value)
    wraps = "long" if len(cell.text) > LONG else "name" if len(cell.text) > NAME else ""
    value = "" if not is_number or math.isnan(float(cell.value)) else repr(cell.value)  # type: ignore[arg-type]
    return {
        "text": cell.text, "bold": cell.bold, "note": cell.note, "is_number": is_number, "value": value,
        "classes": " ".join(filter(None, ("number" if is_number else "", wraps, "more" if is_more else ""))),
    }  # fmt: skip


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _figures(analysis: Analysis, pictures: Sequence[Picture]) -> list[dict[str, str]]:
    lawful = set(analysis.comparison.loc[analysis.comparison["error"].notna(), "family"])
    families = set(analysis.comparison["family"])
    return [
        _figure(picture, has_laws=picture.name in lawful or picture.name not in families, is_sweep=bool(analysis.keys))
        for picture in pictures
    ]


def _figure(picture: Picture, *, has_laws: bool, is_sweep: bool) -> dict[str, str]:
    """A picture as wide as the page; ticking the box or touching it shows it large, to be scrolled."""
    return {
        "name": picture.name,
        "caption": caption(picture.name, has_laws=has_laws, is_sweep=is_sweep),
        "wide": _embedded(picture.wide),
        "narrow": _embedded(picture.narrow),
        "files": ", ".join(picture.files),
    }


def _embedded(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _law(name: str) -> dict[str, Any]:
    law = LAWS[name]
    return {
        "name": name,
        "label": law.label,
        "equation": Markup(equation_html(law.equation)),  # escapes what it does not draw
        "source": law.source,
        "inputs": ", ".join(law.inputs),
        "omits": law.omits,
    }


def _documents(what: str, documents: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One YAML text per run."""
    out = []
    for name, content in documents.items():
        text = yaml.safe_dump(json.loads(json.dumps(content, default=_basic)), sort_keys=False, allow_unicode=True)
        out.append((f"{what}: {name}" if name else what, text))
    return out


def _basic(value: object) -> object:
    """Attributes come as numpy scalars."""
    return value.item() if hasattr(value, "item") else str(value)  # type: ignore[attr-defined]
