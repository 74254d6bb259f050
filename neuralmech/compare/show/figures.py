"""Which figures an analysis gets, and how they are saved: as files, and for the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from neuralmech.compare.gather.analysis import Analysis
from neuralmech.compare.gather.labels import distinct
from neuralmech.compare.gather.pushes import pushes
from neuralmech.compare.measure.curves import Curves
from neuralmech.compare.measure.equilibrium import FAMILY as SCALE
from neuralmech.compare.show.captions import MAP
from neuralmech.compare.show.drawing import styled
from neuralmech.compare.show.plots_accounts import (
    budget_figure,
    budget_of_runs_figure,
    budget_title,
)
from neuralmech.compare.show.plots_balances import loss_figure, orbit_figure
from neuralmech.compare.show.plots_charges import effective_rate_figure, family_figure, parameters_figure
from neuralmech.compare.show.plots_maps import map_figure, mapped
from neuralmech.compare.show.plots_norms import norms_figure
from neuralmech.compare.show.plots_phase import phase_figure
from neuralmech.compare.show.plots_sweeps import batch_figure, sweep_figure, swept_numbers
from neuralmech.compare.show.plots_training import training_figure

MAX_KEYS = 6  # that errors are drawn against, of a search over many numbers
# Without a date the same analysis gives the same bytes.
_METADATA: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


@dataclass(frozen=True)
class Picture:
    """A figure on the page, in SVG: for a desk and for a phone; and its files."""

    name: str
    wide: bytes
    narrow: bytes
    files: tuple[str, ...] = ()


def save_figures(
    folder: Path, analysis: Analysis, formats: Sequence[str], *, for_page: bool
) -> tuple[list[Path], list[Picture]]:
    """Draw everything into `folder`; returns the files, one of each format, and what the page has in it."""
    files, pictures = [], []
    for name, draw in drawings(analysis).items():
        made = _saved(draw(), (*formats, *(["svg"] if for_page and "svg" not in formats else [])))
        own = [folder / f"{name}.{suffix}" for suffix in formats]
        for path in own:
            path.write_bytes(made[path.suffix[1:]])
        files += own
        if for_page:
            narrow = _saved(draw(narrow=True), ["svg"], narrow=True)["svg"]
            pictures.append(Picture(name, made["svg"], narrow, tuple(path.name for path in own)))
    return files, pictures


def _saved(figure: Figure, formats: Sequence[str], *, narrow: bool = False) -> dict[str, bytes]:
    """A figure in each format; its parts find their places once."""
    out = {}
    with styled(narrow=narrow):
        _settle(figure)
        for suffix in formats:
            file = BytesIO()
            figure.savefig(file, format=suffix, dpi=150, metadata=_METADATA.get(suffix))
            out[suffix] = file.getvalue()
    return out


def _settle(figure: Figure) -> None:
    """Give everything its place in round numbers: a solver's last bits differ, and an SVG makes names of them."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)  # with one, or in place of one, saving draws everything twice
    for axes in figure.axes:
        left, bottom, width, height = (round(float(x), 6) for x in axes.get_position(original=True).bounds)
        axes.set_position((left, bottom, width, height), which="original")


def drawings(analysis: Analysis) -> dict[str, partial[Figure]]:
    """What can be drawn of an analysis: the name of a figure, and how to make it."""
    return dict(_drawings(analysis))


def _drawings(analysis: Analysis) -> Iterator[tuple[str, partial[Figure]]]:
    trained = [(p.title, p.training) for p in analysis.panels if p.training is not None]
    if trained:
        yield "training", partial(training_figure, trained)
    norms = [(title, training.norms) for title, training in trained if training.norms is not None]
    if norms:
        yield "norms", partial(norms_figure, norms)
    families = dict.fromkeys(family for panel in analysis.panels for family in panel.curves)
    for family in families:
        panels = [(p.title, p.curves[family]) for p in analysis.panels if family in p.curves]
        yield family, partial(family_figure, family, panels)
    singles = [(f, curves) for f, curves in analysis.panels[0].curves.items() if curves.singles]
    if singles:
        yield "parameters", partial(parameters_figure, singles)
    yield from _budget(analysis)
    rates = [(p.title, p.curves[SCALE]) for p in analysis.panels if "noether" in _theories(p.curves.get(SCALE))]
    if rates:
        yield "effective_learning_rate", partial(effective_rate_figure, rates)
    orbits = [(p.title, p.orbit) for p in analysis.panels if p.orbit is not None]
    if orbits:
        yield "noise_equilibrium", partial(orbit_figure, orbits)
    portraits = [(p.title, c) for family in families for p in analysis.panels for c in p.phase if c.family == family]
    if portraits:
        yield "phase_portraits", partial(phase_figure, portraits)
    losses = [(p.title, p.loss) for p in analysis.panels if p.loss is not None]
    if losses:
        yield "loss_balance", partial(loss_figure, losses)
    if analysis.batches.curves:
        yield "batches", partial(batch_figure, analysis.batches.curves)
    for family in mapped(analysis.verdict, analysis.runs, list(families), analysis.keys):
        yield f"{MAP}{family}", partial(map_figure, analysis.verdict, analysis.runs, family, analysis.keys)
    keys = swept_numbers(analysis.comparison, analysis.keys)[:MAX_KEYS]  # only these may stand beside measures
    files = distinct(f"error_{re.sub(r'[^A-Za-z0-9]', '_', key)}" for key in keys)
    for name, key in zip(files, keys, strict=True):
        yield name, partial(sweep_figure, analysis.comparison, key, analysis.keys)


def _theories(curves: Curves | None) -> dict:
    return curves.theory if curves else {}


def _budget(analysis: Analysis) -> Iterator[tuple[str, partial[Figure]]]:
    """What could be drawn up, and of which rounding is not all: of a run by site, of a sweep by setting."""
    if analysis.keys:
        pushed = pushes(analysis.budget, analysis.keys)
        if len(pushed):
            yield "budget", partial(budget_of_runs_figure, pushed)
        return
    budgets = [(budget_title(f), t[t["reason"] == ""]) for panel in analysis.panels for f, t in panel.budgets.items()]
    if there := [(title, table) for title, table in budgets if len(table)]:
        yield "budget", partial(budget_figure, there)
