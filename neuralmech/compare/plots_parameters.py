"""Single parameters, which are noisy, beside the charges that they are part of, which are smooth."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.curves import Curves
from neuralmech.compare.style import COLOURS, FORMS, STYLE, plain


def parameters_figure(families: Sequence[tuple[str, Curves]]) -> Figure:
    """Upper row: parameters of one run, family by family; lower row: their charges, in the same colours."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(6.4, 1.2 + 3.4 * len(families)), 6.2), layout="constrained")
        axes = figure.subplots(3, len(families), squeeze=False, height_ratios=(4, 4, 1.2))
        for (family, curves), upper, lower, names in zip(families, *axes, strict=True):
            lower.sharex(upper)
            upper.tick_params(labelbottom=False)
            for i, (name, charge) in enumerate(curves.singles):
                colour = COLOURS[i % len(COLOURS)]
                upper.plot(curves.step, curves.parameters[:, i], color=colour, linewidth=0.8, label=plain(name))
                lower.plot(curves.step, curves.measured[:, charge], color=colour, linewidth=1.6)
            upper.set_title(family, fontsize=10)
            names.set_axis_off()
            names.legend(handles=upper.lines, fontsize=7, handlelength=1.2, loc="upper center")
            lower.set_ylabel(f"charge {FORMS.get(family, '')}")
            lower.set_xlabel("step $k$")
            lower.locator_params(axis="x", nbins=5)
        axes[0][0].set_ylabel(r"parameter $\theta_j$")
        handle = Line2D(
            [], [], color=COLOURS[0], label="above: one parameter; below, in its colour: a charge that holds it"
        )
        figure.legend(handles=[handle], loc="outside lower center", fontsize=8)
        figure.suptitle("Parameters are noisy, charges are smooth", fontsize=11)
    return figure
