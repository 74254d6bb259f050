"""Figures on paper, on a desk and on a phone: all of their text can be read and lies inside, whatever they show."""

import shutil
from functools import partial
from itertools import pairwise, product

import h5py
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from made_runs import config, job
from made_tables import KEYS, tables
from neuralmech.compare.findings import analyze
from neuralmech.compare.measure.curves import BatchCurve
from neuralmech.compare.show.drawing import NARROW, SMALLEST, styled
from neuralmech.compare.show.figures import drawings, save_figures
from neuralmech.compare.show.plots_maps import map_figure
from neuralmech.compare.show.plots_sweeps import batch_figure

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


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Two numbers and a third key swept, with seeds; and figures of more cells and more batch sizes than that."""
    folder = tmp_path_factory.mktemp("searched")
    settings = product((0.01, 0.02, 0.05), (0.0, 0.1), ("relu", "gelu"), (0, 1))
    for number, (lr, decay, activation, seed) in enumerate(settings):
        more = f"model: {{activation: {activation}}}\n"
        job(folder / str(number), config(lr, seed).replace("momentum: 0.9", f"weight_decay: {decay}") + more)
    found = drawings(analyze(folder))
    assert {"map_scale", "error_optim_lr", "error_optim_weight_decay"} <= set(found)
    rates, decays = (tuple(float(f"{x:.2g}") for x in np.geomspace(1e-4, 0.3, n)) for n in (12, 9))
    verdict, runs = tables(rates, decays)
    runs["reason"] = runs["reason"].where(runs["optim.lr"] < 0.2, "the loss was not finite at step 12")
    kept = verdict[(verdict["optim.lr"] < 0.2) & ((verdict["optim.lr"] > 1e-3) | (verdict["seed"] == 1))]
    error = np.array([0.1, 0.2])
    pairs = [(a, b) for a in (8, 16, 32, 64) for b in (8, 16, 32, 64) if a != b]
    curves = [BatchCurve(family, *pair, error, error) for family in ("scale", "rescale") for pair in pairs]
    return found | {
        "map_of_many": partial(map_figure, kept, runs, "scale", KEYS),
        "batches": partial(batch_figure, curves),
    }


@pytest.fixture(scope="module")
def depths(finished, tmp_path_factory):
    """Two nets whose layers differ, side by side."""
    folder = tmp_path_factory.mktemp("depths")
    for depth in (2, 4):
        shutil.copytree(
            finished(model={"name": "mlp", "width": 6, "depth": depth, "norm": "layer"}), folder / str(depth)
        )
    return drawings(analyze(folder))


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("which", ["single", "adams", "sweeps", "searched", "depths"])
def test_all_text_is_large_enough_and_inside(which, narrow, request):
    found = request.getfixturevalue(which)
    assert {"training", "budget", "batches"} & set(found)
    for name, draw in found.items():
        with styled(narrow=narrow):
            figure = draw(narrow=True) if narrow else draw()
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
        assert not narrow or figure.get_figwidth() == NARROW
        sizes = {text.get_text(): text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}
        assert sizes
        assert min(sizes.values()) >= SMALLEST, (name, sizes)
        for axes in figure.axes:
            ticks = [t.get_window_extent() for t in axes.get_xticklabels() if t.get_text() and t.get_visible()]
            assert not any(a.overlaps(b) for a, b in pairwise(ticks)), name
        box, whole = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
        assert -MARGIN <= box.x0 < box.x1 <= whole[0] + MARGIN, name
        assert -MARGIN <= box.y0 < box.y1 <= whole[1] + MARGIN, name


def lines(figure):
    return sorted(np.asarray(line.get_xydata(), float).tobytes() for axes in figure.axes for line in axes.lines)


def cells(figure):
    """Of a map: colours and numbers, wherever they stand."""
    colours = sorted(patch.get_facecolor() for axes in figure.axes for patch in axes.patches)
    return colours, sorted(text.get_text() for axes in figure.axes for text in axes.texts if text.get_text()[0] in "$0")


@pytest.mark.parametrize("which", ["single", "searched", "depths"])
def test_the_narrow_one_shows_the_same_numbers(which, request):
    for name, draw in request.getfixturevalue(which).items():
        shown = cells if name.startswith("map_") else lines
        assert shown(draw()) == shown(draw(narrow=True)) != [], name


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
def test_layers_of_each_net_are_named_in_their_colours(depths, narrow):
    """Of nets whose layers differ each has names of its own, and no name is missing."""
    figure = depths["norms"](narrow=narrow)
    assert not figure.legends
    named = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    panels = [axes for axes in figure.axes if axes.lines]
    assert len(named) == 2
    assert len(panels) == 4
    for legend, depth in zip(named, (2, 4), strict=True):
        names = [text.get_text() for text in legend.get_texts()]
        assert names == [*(f"features.{3 * i}" for i in range(depth)), "classifier",
                         *(f"features.{1 + 3 * i}" for i in range(depth))]  # fmt: skip
        looks = [(line.get_color(), line.get_linestyle()) for line in legend.get_lines()]
        assert len(set(looks)) == len(looks) == len(names)
        own = [axes for axes in panels if len(axes.lines) == len(looks)]
        assert len(own) == 2
        for axes in own:
            assert [(line.get_color(), line.get_linestyle()) for line in axes.lines] == looks


def test_files_are_those_of_the_formats_asked_for(finished, tmp_path):
    found = analyze(finished(model={"name": "mlp", "width": 6, "norm": "batch"}))
    files, pictures = save_figures(tmp_path, found, ["pdf"], for_page=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in files)
    assert {path.suffix for path in files} == {".pdf"}
    assert all(path.read_bytes().startswith(b"%PDF") for path in files)
    assert [picture.name for picture in pictures] == [path.stem for path in files] == list(drawings(found))
    assert all(b"<svg" in picture.wide for picture in pictures)  # the page has them all the same
    assert all(b"<svg" in picture.narrow for picture in pictures)


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
