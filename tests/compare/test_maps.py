"""Maps over two swept numbers: each cell has the mean over its seeds, or says why it has none."""

import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from made_tables import DECAYS, KEYS, tables
from neuralmech.compare.measure.curves import BatchCurve
from neuralmech.compare.show.plots_maps import map_figure, mapped
from neuralmech.compare.show.plots_sweeps import batch_figure


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_cells_are_in_the_order_of_their_values_with_means_over_seeds():
    verdict, runs = tables()
    forecast, best = map_figure(verdict, runs, "scale", KEYS).axes[:2]
    assert [tick.get_text() for tick in forecast.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert [tick.get_text() for tick in forecast.get_yticklabels()] == ["0", "0.01"]
    numbers = [r"$1.5\cdot10^{-3}$", "0.015", "0.15"]  # 1.5 is the mean of both seeds' factors
    laws = ["weight decay", "weight decay", "gradient flow"]
    assert texts(forecast)[::2] == [number for number in numbers for _ in DECAYS]
    assert texts(forecast)[1::2] == [law for law in laws for _ in DECAYS]
    assert texts(best)[-2:] == [r"$1.0\cdot10^{-7}$", "discrete"]
    red, _, blue = to_rgb(forecast.patches[-1].get_facecolor())
    assert red > blue  # does not suffice
    red, _, blue = to_rgb(best.patches[-1].get_facecolor())
    assert blue > red


def test_cells_without_a_number_say_why():
    verdict, runs = tables()
    runs["reason"] = runs["reason"].where(runs["optim.lr"] != 0.1, "not finite at step 12")
    verdict = verdict[verdict["optim.lr"] != 0.1]
    gone = (runs["optim.lr"] == 1e-3) & (runs["optim.weight_decay"] == 0)
    verdict = verdict[~((verdict["optim.lr"] == 1e-3) & (verdict["optim.weight_decay"] == 0))]
    half = (verdict["optim.lr"] == 1e-2) & (verdict["optim.weight_decay"] == 0) & (verdict["seed"] == 1)
    figure = map_figure(verdict[~half], runs[~gone].astype({"optim.lr": object}), "scale", KEYS)
    found = texts(figure.axes[0])
    assert found[0] == "not run"
    assert found.count("not finite at\nstep 12") == 2
    assert "weight decay\n1 of 2 runs" in found
    assert "0.010" in found  # of one seed
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 3


def test_settings_of_other_keys_have_a_map_each_six_at_most():
    parts = [tables() for _ in range(9)]
    verdict, runs = (
        pd.concat([part[i].assign(**{"model.width": n}) for n, part in enumerate(parts)], ignore_index=True)
        for i in range(2)
    )
    keys = (*KEYS, "model.width")
    figure = map_figure(verdict, runs, "scale", keys)
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_title(loc="left")]
    assert [title.split(",")[0] for title in titles] == ["λ = 0", "λ = 0.01"]  # keys with more values are the axes
    letters = verdict.assign(**{"model.width": verdict["model.width"].map("abcdefghi".__getitem__)})
    named = map_figure(letters, runs.assign(**{"model.width": letters["model.width"]}), "scale", keys)
    titles = [axis.get_title(loc="left") for axis in named.axes if axis.get_title(loc="left")]
    assert [title.split(",")[0][-1] for title in titles] == list("acdfgi")  # evenly spread


@pytest.mark.parametrize(
    "made",
    [
        tables(decays=(0.0,)),  # one number
        tables(rates=tuple(range(1, 14))),  # more values than there is room for
        tables(kind="account", forecast="", forecast_error=float("nan")),  # no forecast
    ],
    ids=["one number", "many values", "no forecast"],
)
def test_sweeps_without_a_map(made):
    assert mapped(*made, ["scale"], KEYS) == []
    verdict, runs = tables()
    alone = runs["optim.lr"] * 7 + runs["optim.weight_decay"]  # as a search draws them
    assert mapped(verdict.assign(**{"optim.lr": alone}), runs.assign(**{"optim.lr": alone}), ["scale"], KEYS)
    drawn = {"optim.lr": list(range(12)), "optim.weight_decay": list(range(12))}
    assert mapped(verdict.assign(**drawn), runs.assign(**drawn), ["scale"], KEYS) == []


def test_a_figure_of_batch_sizes_is_bounded():
    error = pd.Series([0.1, 0.2]).to_numpy()
    curves = [BatchCurve("scale", a, b, error, error) for a in range(8) for b in range(8) if a != b for _ in range(20)]
    (axis,) = batch_figure(curves).axes
    assert len(axis.lines) == 12 * 6
