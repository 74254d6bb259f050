import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D

from conftest import record as record_of
from neuralmech.compare.measure.curves import Curves
from neuralmech.compare.measure.errors import compare_family
from neuralmech.compare.measure.training import training_curve
from neuralmech.compare.show.ends import in_short
from neuralmech.compare.show.plots_accounts import BARS, budget_figure
from neuralmech.compare.show.plots_charges import (
    DRAWN,
    effective_rate_figure,
    family_figure,
    parameters_figure,
)
from neuralmech.compare.show.plots_sweeps import sweep_figure
from neuralmech.compare.show.plots_training import training_figure
from neuralmech.compare.show.style import FLOOR
from neuralmech.laws import LAWS
from neuralmech.record import open_record

pytestmark = pytest.mark.usefixtures("found_once")


@pytest.mark.parametrize("runs", [1, 2, 4])
def test_the_legend_lies_inside_the_figure(runs):
    step = np.arange(5)
    measured = np.linspace(1, 2, 5)[:, None] * np.ones((1, 3))
    curves = Curves(
        step,
        np.ones(5),
        measured,
        np.array([0]),
        dict.fromkeys(LAWS, measured[:, :1]),
        dict.fromkeys(LAWS, measured[:, 0]),
    )
    figure = family_figure("scale", [("", curves)] * runs)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_a_parameter_and_its_charge_have_one_colour(run):
    """And the lines are the recorded numbers."""
    with open_record(run(model={"name": "mlp", "width": 6, "depth": 3, "norm": "batch"})) as record:
        curves = {family: compare_family(record, family).curves for family in record.families}
        figure = parameters_figure(list(curves.items()))
        upper, lower, names = np.array(figure.axes).reshape(3, -1)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        for place, panels in zip(names, zip(upper, lower, strict=True), strict=True):
            box = place.get_legend().get_window_extent(canvas.get_renderer())
            assert not any(box.overlaps(panel.get_window_extent()) for panel in panels)  # no legend lies on curves
            assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
        for family, above, below in zip(curves, upper, lower, strict=True):
            charges = record.charges(family)
            lines = list(zip(above.lines, below.lines, charges.parameter_index.itertuples(index=False), strict=True))
            assert lines
            for i, (single, charge, (_, _, column)) in enumerate(lines):
                assert single.get_color() == charge.get_color()
                np.testing.assert_array_equal(single.get_ydata(), charges.parameters[:, i])
                np.testing.assert_array_equal(charge.get_ydata(), charges.value[:, int(column)])


def look(line):
    return line.get_color(), str(line._unscaled_dash_pattern), line.get_linewidth()


def test_a_law_looks_the_same_in_every_panel_and_in_the_legend(run):
    """And no two laws do: where they coincide, dashes and widths let both be seen."""
    with open_record(run(model={"name": "mlp", "width": 6, "depth": 3, "norm": "batch"})) as record:
        curves = compare_family(record, "scale").curves
    figure = family_figure("scale", [("", curves)])
    upper, lower = figure.axes
    legend = {h.get_label(): look(h) for h in figure.legends[0].legend_handles if isinstance(h, Line2D)}
    keys = {n: legend[law.label] for n, law in LAWS.items() if law.label in legend}
    assert len(keys) > 5
    shown = [n for n in curves.error if (curves.error[n] > FLOOR).any()]
    assert [look(line) for line in lower.lines] == [keys[n] for n in shown]
    assert {look(line) for line in upper.lines} & set(keys.values()) == {keys[n] for n in DRAWN if n in keys}
    assert len({dashes for _, dashes, _ in keys.values()}) == len(keys)


def test_markers_of_a_sweep_are_the_legends_where_a_law_is_missing():
    rows = [
        {"family": family, "site": "a", "law": law, "optim.lr": lr, "error": 0.1 * lr, "reason": ""}
        for family, laws in (("scale", list(LAWS)), ("translation", ["gradient_flow", "discrete", "discrete_broken"]))
        for law in laws
        for lr in (0.1, 0.2)
    ]
    figure = sweep_figure(pd.DataFrame(rows), "optim.lr")
    keys = {(h.get_color(), h.get_marker()) for h in figure.legends[0].legend_handles}
    assert len(keys) == len(LAWS)
    for panel, count in zip(figure.axes, (len(LAWS), 3), strict=True):
        drawn = {(line.get_color(), line.get_marker()) for line in panel.lines}
        assert len(drawn) == count
        assert drawn <= keys


def test_effective_learning_rates_have_the_colour_of_their_theory(run):
    with open_record(run(model={"name": "mlp", "width": 6, "depth": 3, "norm": "batch"})) as record:
        curves = compare_family(record, "scale").curves
    (axis,) = effective_rate_figure([("", curves)]).axes
    pairs = list(zip(axis.lines[::2], axis.lines[1::2], strict=True))
    assert len(pairs) == len(curves.chosen) > 4
    for i, (measured, theory) in enumerate(pairs):
        assert measured.get_color() == theory.get_color()
        assert theory.is_dashed()
        np.testing.assert_allclose(theory.get_ydata(), curves.lr / curves.theory["noether"][:, i])
    assert len({theory.get_color() for _, theory in pairs}) == len(pairs)
    named = set(zip(in_short(curves.names), [theory.get_color() for _, theory in pairs], strict=True))
    assert {(text.get_text(), text.get_color()) for text in axis.texts} == named
    (legend,) = effective_rate_figure([("", curves)], narrow=True).legends  # no room beside the curves
    keys = zip(legend.get_texts()[:-2], legend.get_lines()[:-2], strict=True)
    assert {(text.get_text(), line.get_color()) for text, line in keys} == named
    usual = max(measured.get_ydata().max() for measured, _ in pairs[1:])
    dead = curves.chosen[0]  # it gets no gradient any more, and decays: the others stay in view
    curves.measured[:, dead] = np.geomspace(1.0, 1e-22, len(curves.measured))
    (axis,) = effective_rate_figure([("", curves)]).axes
    assert axis.get_ylim()[1] == pytest.approx(1.5 * usual)


def test_a_family_for_which_no_law_holds_has_no_empty_panels(run):
    folder = run(model={"name": "mlp", "width": 6, "norm": "batch"}, optim={"name": "adam", "lr": 1e-3})
    with open_record(folder) as record:
        curves = compare_family(record, "scale").curves
    figure = family_figure("scale", [("", curves)] * 4)
    panels = [axis for axis in figure.axes if axis.axison]
    assert len(panels) == 4
    assert all(axis.lines for axis in panels)
    assert all(axis.get_xlabel() == "step $k$" for axis in panels)


def test_every_panel_of_a_budget_names_its_axis():
    row = {**dict.fromkeys(BARS, 0.1), "site": "a", "charges": 3, "motion": 0.8, "moved": 0.8}
    figure = budget_figure([("scale", pd.DataFrame([row] * n)) for n in (1, 2, 30)])
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert all("change of the charge" in label for label in labels)
    assert len(labels) == 3


def test_training_curves_are_means_and_what_was_not_measured_has_no_panel(run):
    folder = run(train={"steps": 40, "eval_every": 20})
    with open_record(folder) as record:
        curve = training_curve(record)
        loss, step = record.column("loss"), record.column("step")
        measured = (np.nan_to_num(record.column("gradient_norm")) > 0).any()
    np.testing.assert_array_equal(curve.step, step)  # fewer rows than points: each is one
    np.testing.assert_allclose(curve.loss.mean, loss)
    figure = training_figure([("", curve)])
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert [label.split()[0] for label in labels] == [
        "loss",
        "accuracy",
        *(["gradient"] if measured else []),
        "learning",
    ]
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_xdata(), curve.held_out["step"])


def test_long_training_is_read_in_parts(tmp_path):
    rows = 5000
    loss = np.linspace(5, 1, rows)
    with record_of(tmp_path, np.ones((rows, 2)), loss=loss) as record:
        curve = training_curve(record)
    assert len(curve.step) == 400
    parts = np.split(loss, np.linspace(0, rows, 401).astype(int)[1:-1])
    np.testing.assert_allclose(curve.loss.mean, [p.mean() for p in parts])
    np.testing.assert_allclose(curve.loss.high, [p.max() for p in parts])
    assert not curve.gradient_norm.is_there


def test_curves_have_their_sites_names_in_their_colours(run):
    with open_record(run(model={"name": "mlp", "width": 6, "depth": 3, "norm": "batch"})) as record:
        curves = compare_family(record, "rescale").curves
    upper = family_figure("rescale", [("", curves)]).axes[0]
    names = {(text.get_text(), text.get_color()) for text in upper.texts}
    drawn = [line.get_color() for line in upper.lines[: len(curves.chosen)]]
    assert names == set(zip(in_short(curves.names), drawn, strict=True))
    places = sorted(text.get_position()[1] for text in upper.texts)
    assert np.diff(places).min() > 0.05  # none lies on another
