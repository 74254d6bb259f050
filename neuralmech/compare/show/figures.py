"""Which figures an analysis gets, each as PNG and PDF, and what each shows in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from neuralmech.compare.gather.analysis import Analysis
from neuralmech.compare.gather.labels import distinct
from neuralmech.compare.measure.curves import Curves
from neuralmech.compare.measure.equilibrium import FAMILY as SCALE
from neuralmech.compare.measure.views import METRIC
from neuralmech.compare.show.plots_accounts import budget_figure, budget_title, loss_figure, orbit_figure
from neuralmech.compare.show.plots_charges import effective_rate_figure, family_figure, parameters_figure
from neuralmech.compare.show.plots_phase import phase_figure
from neuralmech.compare.show.plots_sweeps import batch_figure, sweep_figure, swept_numbers

MAX_BUDGETS = 12
_FAMILY = (
    "Charges Q = {form} of the family {name} at every step: measured (wide lines: a few charges; bands: all, 80 % "
    "and 50 % of them){theory} Charges have the units of the parameters{power}."
)
_THEORY = (
    " and in theory (dashed). Below, each law's relative error: RMS over the charges of theory − measured, over the "
    "RMS of measured; 1 is an error as large as the charges."
)
_CHARGES = {
    "translation": "⟨a, θ⟩",
    "scale": "|θ_A|²",
    "rescale": "|θ_in|² − |θ_out|²",
    "linear": "Q_ij, the entries of a balance matrix W_in W_inᵀ − W_outᵀ W_out",
}
_IN_METRIC = {
    f"{name}{METRIC}": f"{form}, in Adam's metric w = √v̂ + ε"
    for name, form in {**_CHARGES, "translation": "⟨a, wθ⟩", "scale": "θ_Aᵀwθ_A"}.items()
}
_FIXED = {
    "parameters": (
        "Single parameters θ_j (above) and, in the same colour, a charge that each is part of (below), over the steps "
        "of the first run shown; parameters are noisy, charges smooth."
    ),
    "budget": (
        "What moved the charges over the run, summed over the charges of each site (their number in brackets), in the "
        "charge's units: causes that raise it to the right of zero, causes that lower it to the left, the diamond the "
        "measured change, which is their sum. Hatched: the same cause in earlier steps, carried on by a memory."
    ),
    "effective_learning_rate": (
        "The learning rate η/Q that the direction of some normalised weights feels, Q = |θ|²: measured "
        "(wide) and, dashed in its colour, η/√(Q²) with Q² an exponential average of the squared gradient, as in "
        "RMSProp."
    ),
    "phase_portraits": (
        "Some charges and their velocities, the differences between rows over η: measured (dots, from the ring on) and "
        "by the modified flow, a damped oscillator (dashed). Translation charges are forecast from their start alone; "
        "others, shown where they oscillate, are moved by the recorded drive."
    ),
    "noise_equilibrium": (
        "How far the pairs of each rescale site are from noise equilibrium along the orbit of their symmetry, over the "
        "steps: RMS of α* over the site's charges, gradients averaged over a fiftieth of the run."
    ),
    "loss_balance": (
        "Above, the change of the loss since the first step, in the loss's units, measured and as the summed work of "
        "the gradient, to first order in η and to second; below, how far each sum is off."
    ),
    "batches": (
        "How well gradients measured at one batch size S predict the charges at another: RMS over the charges of "
        "predicted − measured, over the RMS of measured, step by step; 1 is an error as large as the charges."
    ),
}


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
    orbits = [(p.title, p.orbit) for p in analysis.panels if p.orbit is not None]
    if orbits:
        yield "noise_equilibrium", orbit_figure(orbits)
    portraits = [(p.title, c) for family in families for p in analysis.panels for c in p.phase if c.family == family]
    if portraits:
        yield "phase_portraits", phase_figure(portraits)
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
    tables = [(budget_title(f, panel.title), panel.budgets[f].dropna(subset=["closure"])) for f, panel in drawn]
    return [(title, table) for title, table in tables if len(table)][:MAX_BUDGETS]


def caption(name: str, *, has_laws: bool = True) -> str:
    """What the figure of this name shows.

    Parameters
    ----------
    name
        The name of its file, without the ending.
    has_laws
        Of a family's figure: whether any law holds for it, and so has an error.

    Examples
    --------
    >>> caption("error_optim_lr")[:63]
    'Error of each law (RMS over steps and charges of theory − measu'
    """
    if name in _FIXED:
        return _FIXED[name]
    if name.startswith("error_"):
        return (
            "Error of each law (RMS over steps and charges of theory − measured, over the RMS of measured; 1 is an "
            "error as large as the charges) against the swept key, family by family: a small mark per run, lines "
            "through the medians."
        )
    plain = name.removesuffix(METRIC)
    form, power = _IN_METRIC.get(name) or _CHARGES.get(plain, "θᵀSθ"), "" if plain == "translation" else ", squared"
    return _FAMILY.format(form=form, name=name, theory=_THEORY if has_laws else "; no law holds for it.", power=power)
