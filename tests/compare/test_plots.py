import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from neuralmech.compare.curves import Curves
from neuralmech.compare.errors import compare_family
from neuralmech.compare.plots import family_figure
from neuralmech.compare.plots_parameters import parameters_figure
from neuralmech.laws import LAWS
from neuralmech.record import open_record


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
        upper, lower = np.array(figure.axes).reshape(2, -1)
        for family, above, below in zip(curves, upper, lower, strict=True):
            charges = record.charges(family)
            lines = list(zip(above.lines, below.lines, charges.parameter_index.itertuples(index=False), strict=True))
            assert lines
            for i, (single, charge, (_, _, column)) in enumerate(lines):
                assert single.get_color() == charge.get_color()
                np.testing.assert_array_equal(single.get_ydata(), charges.parameters[:, i])
                np.testing.assert_array_equal(charge.get_ydata(), charges.value[:, int(column)])
