"""Errors against hand-made records whose answer is known in closed form."""

import numpy as np
import pytest
from torch import nn

from conftest import record
from neuralmech.compare.measure.errors import compare_family
from neuralmech.compare.measure.verdict import law_scores
from neuralmech.laws import LAWS
from neuralmech.laws.system import AT_REST
from neuralmech.record import RecordError, open_record


def test_measures_are_their_definitions(tmp_path):
    """Gradient flow predicts Q₀ throughout; the rest is arithmetic."""
    value = np.array([[1.0, 2.0, 5.0], [2.0, 2.0, 5.0], [3.0, 4.0, 5.0]])
    with record(tmp_path, value) as r:
        table = compare_family(r, "scale", {"gradient_flow": LAWS["gradient_flow"]}).table.set_index("site")
    scale = np.sqrt((1 + 4 + 9 + 4 + 4 + 16) / 6)
    assert table.loc["a", "error"] == pytest.approx(np.sqrt((1 + 4 + 4) / 6) / scale)
    assert table.loc["a", "unexplained"] == pytest.approx(1)
    assert table.loc["a", "max_error"] == pytest.approx(2 / scale)
    assert table.loc["a", "final_error"] == pytest.approx(2 / scale)
    assert table.loc["a", "charges"] == 2
    assert table.loc["b", "error"] == 0
    assert np.isnan(table.loc["b", "unexplained"])  # it did not move: nothing to explain


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_do_not_change_the_result(tmp_path, block):
    value = np.exp(-0.002 * np.arange(64))[:, None] * np.array([[1.0, 3.0]])
    with record(tmp_path, value, weight_decay=0.01) as r:
        table = compare_family(r, "scale", block=block).table
    assert table.loc[table["law"] == "weight_decay", "error"].max() < 1e-12


def test_an_empty_record_is_named(tmp_path):
    with record(tmp_path, np.zeros((0, 2))) as r, pytest.raises(RecordError, match="no committed rows"):
        compare_family(r, "scale")


def test_laws_that_do_not_hold_say_why(tmp_path):
    """A missing signal, momentum, the family: a dash with the reason, and numbers for the other laws."""
    with record(tmp_path, np.ones((4, 2)), momentum=0.9, nesterov=1) as r:
        table = compare_family(r, "scale").table.set_index("law")
    dashed = table[table["error"].isna()]["reason"].to_dict()
    assert "drive_buffer" in dashed["discrete"]
    assert dashed["modified_loss"] == "derived without momentum"
    assert "Nesterov" in dashed["noether"]
    assert "gradient_mean" in dashed["stochastic"]
    assert not set(dashed) & {"gradient_flow", "weight_decay"}
    assert (table[table["error"].notna()]["reason"] == "").all()


def test_quantiles_are_over_the_charges_of_a_site(tmp_path):
    """Charge c moves from 0 to c at once and stays: gradient flow is off by c throughout, but for row 0."""
    value = np.arange(1.0, 13.0)[None, :] * np.array([[0.0], [1.0], [1.0], [1.0]])
    with record(tmp_path, value) as r:
        table = compare_family(r, "scale", {"gradient_flow": LAWS["gradient_flow"]}, block=3).table.set_index("site")
    each = np.arange(1.0, 12.0) * np.sqrt(3 / 4)
    scale = np.sqrt(np.mean(value[:, :-1] ** 2))
    for name, level in (("q10", 0.1), ("median", 0.5), ("q90", 0.9)):
        assert table.loc["a", name] == pytest.approx(np.quantile(each, level) / scale)
    assert table.loc["b", "median"] == pytest.approx(1)


def test_matrices_get_a_row_for_their_norm(run):
    """Gradient flow predicts the first norm throughout; the record holds the same norm."""
    model = {"name": "mlp", "width": 4, "depth": 2, "activation": "none"}
    with open_record(run(model=model, track={"norms": 1})) as r:
        table = compare_family(r, "linear", block=9).table.set_index(["site", "law"])
        charges = r.charges("linear")
        assert charges.norm_sites
        for i, site in enumerate(charges.norm_sites):
            norm = charges.frobenius[:][:, i]
            expected = np.sqrt(np.mean((norm - norm[0]) ** 2) / np.mean(norm**2))
            assert table.loc[(f"{site} |Q|", "gradient_flow"), "error"] == pytest.approx(expected, rel=1e-9)
            assert table.loc[(f"{site} |Q|", "gradient_flow"), "charges"] == 1
            assert table.loc[(f"{site} |Q|", "discrete"), "error"] < 1e-5


def test_norms_of_large_matrices_decay_as_weight_decay_says_and_drives_are_dashed(run):
    """Closed form: with a frozen direction of motion nothing but λ acts, so |Q| = |Q₀| exp(−2ληk) up to the drive."""
    parts = {"model": {"name": "mlp", "width": 6, "depth": 2, "activation": "none"}, "train": {"precision": "fp64"}}
    optim = {"lr": 1e-3, "weight_decay": 1.0}
    with open_record(run(**parts, optim=optim, track={"full": 2, "norms": 7, "steps": [[0, 10], [20, 40]]})) as r:
        charges = r.charges("linear")
        table = compare_family(r, "linear", block=9).table.set_index(["law", "site"])
        kept = np.flatnonzero(np.isfinite(charges.frobenius[:]).all(axis=1))
        assert r.column("step", kept).tolist() == [0, 7, 20, 27, 34]
        for i, site in enumerate(charges.norm_sites):
            norm, row = charges.frobenius[:][kept, i], f"{site} |Q|"
            step = np.array([0, 7, 0, 7, 14])
            off = norm[[0, 0, 2, 2, 2]] * np.exp(-2e-3 * step) - norm
            expected = np.sqrt(np.mean(off**2) / np.mean(norm**2))
            assert table.loc[("weight_decay", row), "error"] == pytest.approx(expected, rel=1e-6)
            assert table.loc[("weight_decay", row), "error"] < table.loc[("gradient_flow", row), "error"] / 5
            assert "track.full" in table.loc[("discrete", row), "reason"]


def zero_biases(shape, classes):
    """As in VGG: biases start at zero, those before a norm get no gradient but rounding."""
    net = nn.Sequential(
        nn.Linear(shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Linear(8, classes),
    )  # fmt: skip
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    return net


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_what_starts_at_zero_and_moves_by_rounding_says_nothing_of_laws(run, precision):
    """Every law would be off by all of it. The classifier's biases start at zero too, sums of them stay there."""
    model = {"_target_": f"{__name__}.zero_biases", "shape": [5], "classes": 3}
    train = {"precision": precision, "steps": 200}
    with open_record(run(model=model, optim={"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}, train=train)) as r:
        largest = np.abs(r.charges("translation").value[:]).max(axis=0)
        sites = r.charges("translation").index["site"].to_numpy()
        table = compare_family(r, "translation").table
    at_rest = {site for site in set(sites) if largest[sites == site].max() < 1e-4}
    assert at_rest == {"0.bias", "3.bias", "6.bias"}
    assert (table[table["site"].isin(at_rest)]["reason"] == AT_REST).all()
    assert table[table["site"].isin(at_rest)]["error"].isna().all()
    others = table[~table["site"].isin(at_rest)].set_index("law")["error"]
    assert others["discrete"] < 1e-5
    assert {"gradient_flow", "discrete"} <= set(law_scores(table).index)  # what rests keeps none from answering


@pytest.mark.parametrize(("size", "rests"), [(1e-9, True), (1e-4, False)])
def test_a_charge_at_rest_is_told_from_a_small_one(tmp_path, size, rests):
    """Of degree two: parameters of 3e-5 are rounding, of 1e-2 are not. The other charge of the site is as it was."""
    value = np.array([[size, 1.0, 1.0], [0.0, 1.0, 1.0], [size, 0.9, 1.0]]) * [1 if not rests else 1e-3, 1, 1]
    with record(tmp_path, value) as r:
        table = compare_family(r, "scale", {"gradient_flow": LAWS["gradient_flow"]}).table.set_index("site")
    assert (table.loc["a", "reason"] == f"of 1 of the 2 charges; of the others: {AT_REST}") == rests
    assert table.loc["b", "reason"] == ""
