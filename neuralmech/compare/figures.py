"""Which figures an analysis gets, each as PNG and PDF."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from neuralmech.compare.analysis import Analysis
from neuralmech.compare.columns import distinct
from neuralmech.compare.curves import Curves
from neuralmech.compare.equilibrium import FAMILY as SCALE
from neuralmech.compare.plots import family_figure
from neuralmech.compare.plots_budget import budget_figure, budget_title
from neuralmech.compare.plots_loss import loss_figure
from neuralmech.compare.plots_parameters import parameters_figure
from neuralmech.compare.plots_rates import batch_figure, effective_rate_figure
from neuralmech.compare.plots_sweep import sweep_figure, swept_numbers

MAX_BUDGETS = 12


def save_figures(folder: Path, analysis: Analysis) -> list[Path]:
    """Draw everything into `folder`; returns the files, PNG before PDF."""
    files = []
    for name, figure in _figures(analysis):
        for suffix in ("png", "pdf"):
            files.append(folder / f"{name}.{suffix}")
            # Without a date the same analysis gives the same bytes.
            metadata = {"CreationDate": None} if suffix == "pdf" else None
            figure.savefig(files[-1], dpi=150, metadata=metadata)
    return files


def _figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    families = dict.fromkeys(family for panel in analysis.panels for family in panel.curves)
    for family in families:
        panels = [(p.title, p.curves[family]) for p in analysis.panels if family in p.curves]
        yield family, family_figure(family, panels)
    singles = [(f, curves) for f, curves in analysis.panels[0].curves.items() if curves.singles]
    if singles:
        yield "parameters", parameters_figure(singles)
    budgets = _budgets(analysis)
    if budgets:
        yield "budget", budget_figure(budgets)
    rates = [(p.title, p.curves[SCALE]) for p in analysis.panels if "noether" in _theories(p.curves.get(SCALE))]
    if rates:
        yield "effective_learning_rate", effective_rate_figure(rates)
    losses = [(p.title, p.loss) for p in analysis.panels if p.loss is not None]
    if losses:
        yield "loss_balance", loss_figure(losses)
    if analysis.batches.curves:
        yield "batches", batch_figure(analysis.batches.curves)
    keys = swept_numbers(analysis.comparison, analysis.keys)  # only what distinguishes runs may stand beside measures
    files = distinct(f"error_{re.sub(r'[^A-Za-z0-9]', '_', key)}" for key in keys)
    for name, key in zip(files, keys, strict=True):
        yield name, sweep_figure(analysis.comparison, key)


def _theories(curves: Curves | None) -> dict:
    return curves.theory if curves else {}


def _budgets(analysis: Analysis) -> list[tuple[str, pd.DataFrame]]:
    """The budgets that could be drawn up, family by family, of the runs that the other figures show."""
    families = dict.fromkeys(family for panel in analysis.panels for family in panel.budgets)
    drawn = [(f, panel) for f in families for panel in analysis.panels if f in panel.budgets]
    tables = [(budget_title(f, panel.title), panel.budgets[f].dropna(subset=["motion"])) for f, panel in drawn]
    return [(title, table) for title, table in tables if len(table)][:MAX_BUDGETS]
