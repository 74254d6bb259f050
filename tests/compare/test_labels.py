"""The swept keys: columns of every table, whatever a record calls its keys and values."""

import pandas as pd
import pytest

from made_runs import config, job
from neuralmech.compare.folder import analyze_folder
from neuralmech.compare.gather.analysis import compare_runs
from neuralmech.compare.gather.labels import label_texts
from neuralmech.compare.gather.options import Options
from neuralmech.compare.gather.pushes import pushes
from neuralmech.compare.gather.runs import find_runs
from neuralmech.compare.measure.accounts import CAUSES
from neuralmech.compare.show.figures import save_figures
from neuralmech.compare.show.plots_accounts import budget_of_runs_figure

pytestmark = pytest.mark.usefixtures("found_once")


def test_keys_that_look_alike_have_a_column_and_a_figure_each(tmp_path):
    r"""`\x01` and `\x02` cannot be printed, and a file's name has neither `-` nor `β`."""
    swept = {r"a.\x01": (1, 2), r"a.\x02": (1, 3), "a.b-c": (1, 4), "a.b_c": (1, 5), "a.βγ": (1, 6)}
    for k in (0, 1):
        job(tmp_path / str(k), "".join(f'"{key}": {values[k]}\n' for key, values in swept.items()))
    found = compare_runs(find_runs(tmp_path), Options())
    assert found.keys == ("a.?", "a.?_2", "a.b-c", "a.b_c", "a.βγ")
    assert found.runs.set_index("job").loc["1", list(found.keys)].tolist() == [2, 3, 4, 5, 6]
    files = [
        path.name for path in save_figures(tmp_path, found, ["png"], for_page=False)[0] if path.match("error_*.png")
    ]
    assert files == [f"error_{name}.png" for name in ("a__", "a___2", "a_b_c", "a_b_c_2", "a___")]


def test_integers_and_floats_are_one_value(tmp_path):
    """lr=1 on the command line of a failed job is the others' 1.0, no difference."""
    job(tmp_path / "0", config(1.0, 0))
    job(tmp_path / "1", config(1.0, 1))
    (tmp_path / "2/.hydra").mkdir(parents=True)
    (tmp_path / "2/.hydra/config.yaml").write_text(config(1, 2))
    assert compare_runs(find_runs(tmp_path), Options()).keys == ("seed",)


TAKEN = ["site", "family", "law", "charges", "run", "job", "status", "error", "square", "x", "self", "discrete"]


def test_keys_that_are_called_as_columns_are_do_not_take_their_place(tmp_path):
    for name, value in (("0", 0.5), ("1", 1.5)):
        own = "".join(f"{key}: {value}\n" for key in TAKEN)
        nested = f"config: {{site: {value}}}\n../../evil: {value}\na/b.c: {10 ** (300 * int(value))}\n"
        job(tmp_path / "sweep" / name, f"data: {{batch_size: {value}}}\n{own}{nested}")
    found = analyze_folder(tmp_path / "sweep", Options(figures=False))
    assert set(found.comparison["site"]) == {"a"}
    assert set(found.comparison["family"]) == {"scale"}
    assert list(found.runs["job"]) == ["0", "1"]
    assert list(found.runs["status"]) == ["complete", "complete"]
    for key in ("../../evil", *(f"config.{key}" for key in (*TAKEN, "config.site"))):
        assert set(found.comparison[key]) == {0.5, 1.5}
        assert list(found.runs[key]) == [0.5, 1.5]
    assert {p.name for p in tmp_path.iterdir()} == {"sweep"}


def test_figures_of_keys_that_are_paths_stay_in_their_folder(tmp_path):
    for name in ("1", "2"):
        job(tmp_path / "sweep" / name, f"../../evil: {name}\nx: {name}\nmodel.w_2: {name}\n")
    found = analyze_folder(tmp_path / "sweep")
    assert {"error_______evil.png", "error_config_x.png", "error_model_w_2.png"} <= {p.name for p in found.files}
    assert {p.parent for p in found.files} == {tmp_path / "sweep/analysis"}


def test_integers_that_no_float_tells_apart_are_two_values(tmp_path):
    for name in ("0", "1"):
        job(tmp_path / name, f"seed: {2**60 + int(name)}\n")
    assert list(compare_runs(find_runs(tmp_path), Options()).runs["seed"]) == [2**60, 2**60 + 1]


def _said(folder, *words):
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {word}\n" for word in words))


OPTIMISERS = {
    "sgd": "{name: sgd, lr: 0.1, momentum: 0.0}",
    "adamw": "{name: adamw, lr: 0.001, betas: [0.9, 0.95]}",
    "muon": "{name: muon, lr: 0.001, momentum: 0.95, nesterov: true}",
}


def swept(tmp_path):
    for number, (name, seed) in enumerate((name, seed) for name in OPTIMISERS for seed in (0, 1)):
        job(tmp_path / str(number), f"optim: {OPTIMISERS[name]}\nseed: {seed}\n")
        _said(tmp_path / str(number), "model=mlp", f"optim={name}", f"+seed={seed}")
    return tmp_path


def test_runs_are_told_apart_by_what_was_swept(tmp_path):
    """Which optimiser it is brings a learning rate and a momentum with it, which nobody swept."""
    found = compare_runs(find_runs(swept(tmp_path)), Options())
    assert found.keys == ("optim.name", "seed")
    assert [panel.title for panel in found.panels] == [f"optim = {name}, seed = 0" for name in OPTIMISERS]


def test_words_that_do_not_tell_the_runs_apart_are_not_enough(tmp_path):
    swept(tmp_path)
    _said(tmp_path / "1", "model=mlp", "optim=sgd", "seed=0")  # somebody's own words, which are not true
    assert compare_runs(find_runs(tmp_path), Options()).keys == ("optim.name", "seed")
    for number in range(6):
        _said(tmp_path / str(number), f"experiment={number}")
    assert len(compare_runs(find_runs(tmp_path), Options()).keys) == 6
    (tmp_path / "3/.hydra/overrides.yaml").write_text("{no: list}")
    (tmp_path / "4/.hydra/overrides.yaml").write_bytes(b"\xff")
    assert len(compare_runs(find_runs(tmp_path), Options()).keys) == 6


def test_options_that_were_swept_within_a_group_are_told(tmp_path):
    for number, lr in enumerate((0.1, 0.2)):
        job(tmp_path / str(number), f"optim: {{lr: {lr}, momentum: {1 - lr}}}\n")
        _said(tmp_path / str(number), f"optim.lr={lr}")  # momentum follows from it, as ${...} does
    assert compare_runs(find_runs(tmp_path), Options()).keys == ("optim.lr",)


def test_long_values_keep_what_differs():
    long = "a/folder/with/a/name/that/goes/on/and/on"
    names = [f"{long}/{which}/{long}" for which in ("one", "two")]
    assert label_texts([{"data.file": name} for name in names]) == [
        "file = …one…",
        "file = …two…",
    ]
    (alone,) = label_texts([{"data.file": long}])
    assert alone == "file = a/folder/wi…es/on/and/on"
    middles = [f"{'a' * 3}{'b' * 20}{which}{'c' * 20}{'d' * 3}" for which in "12"] + ["another"]
    texts = label_texts([{"x": name} for name in middles])
    assert texts == [f"x = {name}" for name in middles]  # short ones would be the same


def test_bars_of_a_sweep_have_its_names(tmp_path):
    budget = pd.DataFrame(
        {**dict.fromkeys(CAUSES, 0.0), "weight_decay": -1.0, "motion": -1.0, "optim.name": [*OPTIMISERS]}
    ).assign(family="scale", site="a", reason="")
    (axis,) = budget_of_runs_figure(pushes(budget, ("optim.name",))).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == [f"optim = {name}" for name in OPTIMISERS]
