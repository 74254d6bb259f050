"""VGG-16 with and without BatchNorm: charges of every family over more than a period of the column sums."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.measure.errors import compare_family
from neuralmech.compare.show.style import FORMS
from neuralmech.laws import LAWS
from neuralmech.record import Record
from source_figures.runs import Runs
from source_figures.style import BLACK, DASHED, FAMILY_COLOURS, GREY, legend_below, letters, new_figure, styled

NETS = {"VGG-16": "vgg16", "VGG-16, BatchNorm": "vgg16_bn"}
# With ηλ = 0.004 and β = 0.99 a column sum's period is 2π/√(2ηλ/(1+β) − ((1−β)/(1+β))²) = 99 steps.
OPTIONS = {"lr": 1e-3, "momentum": 0.99, "weight_decay": 4.0, "steps": 150, "batch_size": 16}
DATA = {"name": "synthetic", "shape": [3, 32, 32], "classes": 10, "size": 160}
LINES = 9


@styled
def draw(runs: Runs) -> Figure:
    """A row per net, a column per family."""
    figure = new_figure(11, 5.6)
    rows = figure.subplots(len(NETS), len(FAMILY_COLOURS), sharex=True)
    names = []
    for row, (title, arch) in zip(rows, NETS.items(), strict=True):
        model = {"name": "torchvision", "arch": arch}
        with runs.record(model=model, data=DATA, **OPTIONS) as record:
            for panel, (family, colour) in zip(row, FAMILY_COLOURS.items(), strict=True):
                names.append(f"{title}: {_charges(panel, record, family, colour)}")
    for panel in rows[-1]:
        panel.set_xlabel("training step")
    for panel, family in zip(rows.T.ravel(), [f for f in FAMILY_COLOURS for _ in NETS], strict=True):
        panel.set_ylabel(FORMS[family])
    letters(rows.ravel(), names)
    handles = [
        Line2D([], [], color=GREY, linewidth=2.4, alpha=0.65, label="measured: some charges of each family"),
        Line2D([], [], color=BLACK, linestyle=DASHED, label="theory: modified flow"),
    ]
    legend_below(figure, handles)
    return figure


def _charges(axes: Axes, record: Record, family: str, colour: str) -> str:
    """Draw some charges; says what they are."""
    if family not in record.families:
        axes.text(0.5, 0.5, "no norm, no scale charges", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return family
    laws = {"modified_flow": LAWS["modified_flow"]}
    curves = compare_family(record, family, laws, lines=LINES).curves
    for i, charge in enumerate(curves.chosen):
        axes.plot(curves.step, curves.measured[:, charge], color=colour, linewidth=2.4, alpha=0.6)
        axes.plot(curves.step, curves.theory["modified_flow"][:, i], color=BLACK, linestyle=DASHED, linewidth=0.9)
    return f"{len(record.charges(family)):,} {family}"
