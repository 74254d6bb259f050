"""The verdict in words, made from its numbers; one place for the terminal, the page and notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pandas import Series

from neuralmech.compare.gather.analysis import Analysis
from neuralmech.compare.gather.labels import SYMBOLS
from neuralmech.compare.gather.pushes import pushes
from neuralmech.compare.measure.about import common, title
from neuralmech.compare.measure.verdict import CAUSE_WORDS
from neuralmech.compare.measure.views import METRIC
from neuralmech.compare.show.cells import number
from neuralmech.compare.show.style import IN_METRIC, named
from neuralmech.laws import LAWS
from neuralmech.laws.kinds import ACCOUNT
from neuralmech.record.schema import held_out

_WHAT = {
    "translation": "⟨a, θ⟩, sums of parameters that a softmax or a norm does not see",
    "scale": "|θ|² of weights whose length a norm takes out",
    "rescale": "|θ_in|² − |θ_out|², weights into a neuron against those out of it",
    "linear": "entries of W_in W_inᵀ − W_outᵀ W_out, of maps with nothing nonlinear between",
}


@dataclass(frozen=True)
class Said:
    """The verdict on a family: a headline, sentences below it, and what a page sets apart of them."""

    family: str
    what: str
    headline: str
    lines: tuple[str, ...]
    kind: str = ""
    suffices: bool = False


def about(analysis: Analysis) -> str:
    """What the runs have in common, in a line."""
    return title(common([dict(one) for one in analysis.about]))


def state(analysis: Analysis) -> str:
    """Where the runs are, how many, how they ended."""
    analysed = analysis.runs[analysis.runs["steps"] > 0]
    if analysis.keys or len(analysed) != 1:
        failed = len(analysis.runs) - len(analysed)
        swept = f"; swept: {', '.join(map(_key, analysis.keys))}" if analysis.keys else ""
        return f"{analysis.folder}: {len(analysed)} runs{f', {failed} failed or without rows' if failed else ''}{swept}"
    run = analysed.iloc[0]
    return f"{analysis.folder}: {run.steps} steps recorded, {run.status}; {held_out(run.loss, run.accuracy)}"


def _key(key: str) -> str:
    return f"{SYMBOLS[key]} ({key})" if key in SYMBOLS else key


def moved_in(analysis: Analysis) -> list[str]:
    """Of a sweep, family by family, what moved the charges most in how many of its settings, and what is rounding."""
    summary, out = analysis.summary, []
    pushed = pushes(analysis.budget, analysis.keys)
    for family, of in summary[summary["family"] != ""].groupby("family", sort=False):
        most = pushed[pushed["family"] == family] if len(pushed) else pushed
        causes = sorted(most.groupby("most"), key=lambda item: -len(item[1])) if len(most) else []
        parts = [f"{CAUSE_WORDS[cause]}, {_range(group['share'])}, in {len(group)}" for cause, group in causes]
        left = len(of) - len(most)
        still = min(left, int((of["rounding"] == of["sites"]).sum()))
        parts += [f"rounding alone, if anything, in {still}"] if still else []
        parts += [f"nothing that is known in {left - still}"] if left > still else []
        text = f"What moved the {named(family)} most: {'; '.join(parts)} of {len(of)} setting{'s'[: len(of) != 1]}."
        few = of["rounding"][of["rounding"] < of["sites"]]
        if few.any():
            text += f" At {few.max():,} of {of['sites'].iat[0]:,} sites it was rounding alone."
        out.append(text)
    return out


def _range(shares: Series) -> str:
    """The least and the greatest of some shares."""
    low, high = (f"{share:.0%}".removesuffix("%") for share in (shares.min(), shares.max()))
    return f"{low} %" if low == high else f"{low} to {high} %"


def said(row: Mapping[Any, Any]) -> Said:
    """A row of `Analysis.verdict` in words."""
    sites, charges = int(row["sites"]), int(row["charges"])
    family = str(row["family"]).replace(METRIC, f" {IN_METRIC}")
    what = f"{charges:,} {named(row['family'], 'charge' if charges == 1 else 'charges')}"
    what += f" at {sites:,} site{'s'[: sites != 1]}"
    what += f": {_WHAT[row['family']]}" if row["family"] in _WHAT else ""
    what += ", w = √v̂ + ε, which changes" if row["family"].endswith(METRIC) else ""
    size = f", but by {number(float(row['error']))} of their size only" if row["law"] == "gradient_flow" else ""
    moved = f"Moved by {row['moved_by']}{size}." if row["moved_by"] else ""
    moved = moved.replace("discretisation", "discretisation (steps of finite length)", 1)
    if not row["law"]:
        still = row["rounding"] == sites
        lines = ("" if still else f"No law answers: {row['reason']}.", moved, _rounding(row))
        return Said(family, what, "only rounding" if still else "no law", tuple(filter(None, lines)))
    lines = (_simpler(row), _forecast(row), _exact(row), moved, _rounding(row))
    headline, suffices = _headline(row), bool(row["suffices"])
    return Said(family, what, headline, tuple(filter(None, lines)), row["kind"], suffices)


def _headline(row: Mapping[Any, Any]) -> str:
    """Which law, how well, and whether that is enough."""
    label, error, worst = LAWS[row["law"]].label, number(float(row["error"])), number(float(row["worst"]))
    numbers = f"error {error}" + (f", worst site {worst}" if worst != error else "")
    if not row["suffices"]:
        return f"no law suffices; nearest: {label}, {numbers}, which leaves out {row['lacks']}"
    if row["kind"] == ACCOUNT:
        return f"no law predicts them; their account, {label}, closes, {numbers}"
    return f"{label} suffices, {numbers}" + (", which is rounding" if row["exact"] == row["law"] else "")


def _simpler(row: Mapping[Any, Any]) -> str:
    if not row["simpler"] or row["simpler"] == row["forecast"]:
        return ""
    label, error = LAWS[row["simpler"]].label, number(float(row["simpler_error"]))
    return f"The next simpler, {label}, is off by {error}: it lacks {row['simpler_lacks']}."


def _forecast(row: Mapping[Any, Any]) -> str:
    if not row["forecast"]:
        return ""
    label, error = LAWS[row["forecast"]].label, number(float(row["forecast_error"]))
    return f"No forecast suffices: the best, {label}, is off by {error}; it lacks {row['forecast_lacks']}."


def _exact(row: Mapping[Any, Any]) -> str:
    if not row["exact"] or row["exact"] == row["law"]:
        return ""
    return f"Exact but for rounding: {LAWS[row['exact']].label} ({number(float(row['exact_error']))})."


def _rounding(row: Mapping[Any, Any]) -> str:
    n, sites = int(row["rounding"]), int(row["sites"])
    if not n:
        return ""
    where = "These charges" if n == sites else f"At {n:,} of the {sites:,} sites the charges"
    return f"{where} move by rounding alone, if at all."
