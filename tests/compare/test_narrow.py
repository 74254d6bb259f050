"""Figures on paper, on a desk and on a phone: all of their text can be read and lies inside, whatever they show."""

import h5py
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from made_runs import config, job
from neuralmech.compare.findings import analyze
from neuralmech.compare.show.drawing import NARROW, SMALLEST, styled
from neuralmech.compare.show.figures import AS_WIDE, drawings, save_figures

pytestmark = pytest.mark.usefixtures("found_once")

MARGIN = 0.03  # inches, for the rounding of glyphs


@pytest.fixture(scope="module")
def single(finished):
    folder = finished(
        model={"name": "mlp", "width": 6, "norm": "batch"},
        optim={"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        track={"sides": True},
    )
    return drawings(analyze(folder))


@pytest.fixture(scope="module")
def adams(finished):
    folder = finished(model={"name": "convnet", "width": 2}, data={"shape": [1, 8, 8]}, optim={"name": "adam"})
    return drawings(analyze(folder))


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for number in range(4):
        job(folder / str(number), config(0.01 * (1 + number), 0))
    return drawings(analyze(folder))


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("which", ["single", "adams", "sweeps"])
def test_all_text_is_large_enough_and_inside(which, narrow, request):
    found = request.getfixturevalue(which)
    assert {"training", "budget"} & set(found)
    for name, draw in found.items():
        if narrow and draw.func in AS_WIDE:
            continue
        with styled(narrow=narrow):
            figure = draw(narrow=True) if narrow else draw()
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
        assert not narrow or figure.get_figwidth() == NARROW
        sizes = {text.get_text(): text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}
        assert sizes
        assert min(sizes.values()) >= SMALLEST, (name, sizes)
        box, whole = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
        assert -MARGIN <= box.x0 < box.x1 <= whole[0] + MARGIN, name
        assert -MARGIN <= box.y0 < box.y1 <= whole[1] + MARGIN, name


def lines(figure):
    return sorted(np.asarray(line.get_xydata(), float).tobytes() for axes in figure.axes for line in axes.lines)


def test_the_narrow_one_shows_the_same_numbers(single):
    for name, draw in single.items():
        assert lines(draw()) == lines(draw(narrow=True)) != [], name


def test_files_are_those_of_the_formats_asked_for(finished, tmp_path):
    found = analyze(finished(model={"name": "mlp", "width": 6, "norm": "batch"}))
    files, pictures = save_figures(tmp_path, found, ["pdf"], for_page=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in files)
    assert {path.suffix for path in files} == {".pdf"}
    assert all(path.read_bytes().startswith(b"%PDF") for path in files)
    assert [picture.name for picture in pictures] == [path.stem for path in files] == list(drawings(found))
    assert all(b"<svg" in picture.wide for picture in pictures)  # the page has them all the same
    assert all(b"<svg" in (picture.narrow or b"") for picture in pictures)


def test_norms_are_of_layers_in_the_order_of_the_network(finished):
    """Their squares are sums over the tensors of a layer; what a step moves is what the parameters do."""
    folder = finished(model={"name": "mlp", "width": 6, "norm": "batch"}, optim={"lr": 0.1, "momentum": 0.9})
    found = analyze(folder)
    curve = found.panels[0].training.norms
    assert curve.layers == ("features.0", "features.3", "classifier", "features.1", "features.4")
    assert curve.weighted == 3
    with h5py.File(folder / "record.h5") as file:
        names = [name.decode() for name in file["norms/index"]["name"]]
        rows = len(curve.step)
        assert rows == 40
        gradient, update, parameter = (file[f"norms/{of}"][:rows] for of in ("gradient", "update", "parameter"))
    for i, layer in enumerate(curve.layers):
        mine = [k for k, name in enumerate(names) if name.rpartition(".")[0] == layer]
        assert len(mine) == (1 if layer in ("features.0", "features.3") and len(names) < 9 else 2)
        size = {of: np.linalg.norm(v[:, mine], axis=1) for of, v in (("u", update), ("p", parameter))}
        np.testing.assert_allclose(curve.gradient[:, i], np.linalg.norm(gradient[:, mine], axis=1), rtol=1e-12)
        np.testing.assert_allclose(curve.relative[:, i], 0.1 * size["u"] / size["p"], rtol=1e-12)
    figure = found.plot("norms")
    gradients, steps = figure.axes
    for axes, values in ((gradients, curve.gradient), (steps, curve.relative)):
        np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], values.T)
    assert [line.get_linestyle() for line in gradients.lines] == ["-", "-", "-", "--", "--"]


def test_many_layers_are_a_map(finished):
    found = analyze(finished(model={"name": "mlp", "width": 16, "depth": 12}))
    curve = found.panels[0].training.norms
    assert len(curve.layers) == 13
    above, below = found.plot("norms").axes[:2]
    for axes, values in ((above, curve.gradient), (below, curve.relative)):
        (mesh,) = axes.collections
        drawn = np.ma.filled(mesh.get_array(), np.nan).reshape(values.T.shape)
        np.testing.assert_array_equal(drawn, np.where(values.T > 0, values.T, np.nan))
        assert np.isfinite(drawn).mean() > 0.9
        assert axes.yaxis_inverted()
        assert [label.get_text() for label in axes.get_yticklabels()] == list(curve.layers)
