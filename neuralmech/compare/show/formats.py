"""Sheets as Markdown and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from neuralmech.compare.show.cells import DASH, Cell, Sheet

_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", "<": r"\textless{}",
    ">": r"\textgreater{}", DASH: "--", "Σ": r"$\Sigma$", "−": "$-$", "²": "$^2$", "±": r"$\pm$", "×": r"$\times$",
    "η": r"$\eta$", "λ": r"$\lambda$", "β": r"$\beta$", "δ": r"$\delta$", "θ": r"$\theta$", "ᵀ": r"$^{\mathsf T}$",
}  # fmt: skip
_POWER = re.compile(r"(-?[\d.]+)e([+-]\d+)")


def markdown(sheets: Sequence[Sheet], title: str, notes: Sequence[str]) -> str:
    """A document with one section per sheet."""
    parts = [f"# {_inline(title)}"]
    for sheet in sheets:
        parts.append(f"## {sheet.title}\n\n{sheet.meaning}\n\n{_grid(sheet)}")
        if sheet.footnotes:
            parts.append("\n".join(f"{i}. {_inline(text)}" for i, text in enumerate(sheet.footnotes, start=1)))
    if notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {_inline(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _grid(sheet: Sheet) -> str:
    head = ["| " + " | ".join(map(_inline, sheet.columns)) + " |", "|" + " --- |" * len(sheet.columns)]
    return "\n".join([*head, *("| " + " | ".join(map(_md_cell, row)) + " |" for row in sheet.rows)])


def _md_cell(cell: Cell) -> str:
    text = f"**{_inline(cell.text)}**" if cell.bold else _inline(cell.text)
    return f"{text}<sup>{cell.note}</sup>" if cell.note else text


def _inline(text: str) -> str:
    """Text of a record inside Markdown: one line, no table bars, no HTML."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def latex(sheets: Sequence[Sheet], title: str) -> str:
    r"""Tables for ``\input``; they need the packages booktabs and longtable."""
    parts = [r"% Needs \usepackage{booktabs,longtable}; use \input{...}."]
    parts += [_longtable(sheet, title) for sheet in sheets]
    return "\n\n".join(parts) + "\n"


def _longtable(sheet: Sheet, title: str) -> str:
    align = "".join("r" if any(isinstance(row[i].value, float) for row in sheet.rows) else "l"
                    for i in range(len(sheet.columns)))  # fmt: skip
    head = " & ".join(map(tex, sheet.columns)) + r" \\"
    body = [" & ".join(map(_tex_cell, row)) + r" \\" for row in sheet.rows]
    foot = [
        rf"\multicolumn{{{len(sheet.columns)}}}{{l}}{{\footnotesize $^{{{i}}}$ {tex(text)}}} \\"
        for i, text in enumerate(sheet.footnotes, start=1)
    ]
    return "\n".join(
        [
            rf"\begin{{longtable}}{{{align}}}",
            rf"\caption{{{tex(title)}: {tex(sheet.title)}. {tex(sheet.meaning)}}}\\",
            r"\toprule",
            head,
            r"\midrule",
            r"\endhead",
            *body,
            r"\bottomrule",
            *foot,
            r"\end{longtable}",
        ]
    )


def tex(text: str) -> str:
    r"""Text of a record inside LaTeX.

    Examples
    --------
    >>> tex("a_1 -> b & 50%")
    'a\\_1 $\\to$ b \\& 50\\%'
    """
    return r"$\to$".join("".join(_TEX.get(c, c) for c in part) for part in " ".join(text.split()).split("->"))


def _tex_cell(cell: Cell) -> str:
    power = _POWER.fullmatch(cell.text) if isinstance(cell.value, float) else None
    if power:
        body = rf"{power[1]}\times10^{{{int(power[2])}}}"
        text = rf"$\mathbf{{{body}}}$" if cell.bold else f"${body}$"
    else:
        text = rf"\textbf{{{tex(cell.text)}}}" if cell.bold else tex(cell.text)
    return rf"{text}$^{{{cell.note}}}$" if cell.note else text
