import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from neuralmech.compare.errors import Curves
from neuralmech.compare.plots import family_figure
from neuralmech.laws import LAWS


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
