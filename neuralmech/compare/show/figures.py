"""Which figures an analysis gets, each as PNG and PDF, and what each shows in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from neuralmech.compare.gather.analysis import Analysis
from neuralmech.compare.gather.labels import distinct
from neuralmech.compare.measure.curves import Curves
from neuralmech.compare.measure.equilibrium import FAMILY as SCALE
from neuralmech.compare.measure.views import METRIC
from neuralmech.compare.show.plots_accounts import (
    budget_figure,
    budget_of_runs_figure,
    budget_title,
    loss_figure,
    orbit_figure,
    pushes,
)
from neuralmech.compare.show.plots_charges import effective_rate_figure, family_figure, parameters_figure
from neuralmech.compare.show.plots_maps import maps
from neuralmech.compare.show.plots_phase import phase_figure
from neuralmech.compare.show.plots_sweeps import batch_figure, sweep_figure, swept_numbers
from neuralmech.compare.show.plots_training import training_figure
from neuralmech.compare.show.style import STYLE

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
    "training": (
        "How training went, step by step: the loss of each batch, loss and accuracy on held-out data, the norm of the "
        "gradient where it was measured, the learning rate. Lines are means over parts of the run, bands their least "
        "and largest."
    ),
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


# Without a date the same analysis gives the same bytes.
_SUFFIXES: dict[str, Any] = {"png": None, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


_BUDGETS = (
    "What moved the charges of each family, a bar for each setting: of all that pushed the charges, up (right) or down "
    "(left), the share of each cause, summed over sites and seeds; a bar is one whole, so that settings compare. The "
    "diamond is the net change, on the same scale."
)


MAX_KEYS = 6  # of a search over many numbers
MAP = "map_"  # and the family: what the files of maps are called
_MAP = (
    "Of each pair of swept numbers the error of the best law that takes no measured drive, a forecast from the start "
    "alone (RMS over steps, charges and sites of theory − measured, over the RMS of measured; mean over seeds), and "
    "which law that is; where other keys were swept a map for each of their settings (six at most), elsewhere a second "
    "map of the verdict's law, whatever that is given. Hatched cells have no number and say why; n of m: so "
    "many of the cell's runs have one."
)


def save_figures(folder: Path, analysis: Analysis) -> list[Path]:
    """Draw everything into `folder`; returns the files, PNG, PDF and SVG of each."""
    files = []
    for name, figure in _figures(analysis):
        for suffix, metadata in _SUFFIXES.items():
            files.append(folder / f"{name}.{suffix}")
            with mpl.rc_context(STYLE):
                figure.savefig(files[-1], dpi=150, metadata=metadata)
            figure.set_layout_engine("none")  # everything has its place now
    return files


def _figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    trained = [(p.title, p.training) for p in analysis.panels if p.training is not None]
    if trained:
        yield "training", training_figure(trained)
    families = dict.fromkeys(family for panel in analysis.panels for family in panel.curves)
    for family in families:
        panels = [(p.title, p.curves[family]) for p in analysis.panels if family in p.curves]
        yield family, family_figure(family, panels)
    singles = [(f, curves) for f, curves in analysis.panels[0].curves.items() if curves.singles]
    if singles:
        yield "parameters", parameters_figure(singles)
    yield from _budget(analysis)
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
    for family, drawn in maps(analysis.verdict, analysis.runs, list(families), analysis.keys):
        yield f"{MAP}{family}", drawn
    keys = swept_numbers(analysis.comparison, analysis.keys)[
        :MAX_KEYS
    ]  # only what distinguishes runs may stand beside measures
    files = distinct(f"error_{re.sub(r'[^A-Za-z0-9]', '_', key)}" for key in keys)
    for name, key in zip(files, keys, strict=True):
        yield name, sweep_figure(analysis.comparison, key, analysis.keys)


def _theories(curves: Curves | None) -> dict:
    return curves.theory if curves else {}


def _budget(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """What could be drawn up, and of which rounding is not all: of a run by site, of a sweep by setting."""
    if analysis.keys:
        pushed = pushes(analysis.budget, analysis.keys)
        if len(pushed):
            yield "budget", budget_of_runs_figure(pushed)
        return
    budgets = [(budget_title(f), t[t["reason"] == ""]) for panel in analysis.panels for f, t in panel.budgets.items()]
    if there := [(title, table) for title, table in budgets if len(table)]:
        yield "budget", budget_figure(there)


def caption(name: str, *, has_laws: bool = True, is_sweep: bool = False) -> str:
    """What the figure of this name shows.

    Parameters
    ----------
    name
        The name of its file, without the ending.
    has_laws
        Of a family's figure: whether any law holds for it, and so has an error.
    is_sweep
        Whether there are several runs.

    Examples
    --------
    >>> caption("error_optim_lr")[:63]
    'Error of each law (RMS over steps and charges of theory − measu'
    """
    if name == "budget" and is_sweep:
        return _BUDGETS
    if name in _FIXED:
        return _FIXED[name]
    if name.startswith(MAP):
        return _MAP
    if name.startswith("error_"):
        return (
            "Error of each law (RMS over steps and charges of theory − measured, over the RMS of measured; 1 is an "
            "error as large as the charges) against the swept key, family by family, a row for each setting of the "
            "other swept keys (six at most): lines are means over seeds, bars their standard deviation."
        )
    plain = name.removesuffix(METRIC)
    form, power = _IN_METRIC.get(name) or _CHARGES.get(plain, "θᵀSθ"), "" if plain == "translation" else ", squared"
    return _FAMILY.format(form=form, name=name, theory=_THEORY if has_laws else "; no law holds for it.", power=power)
