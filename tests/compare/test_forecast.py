"""Forecasts after a change of schedule, against runs that went on so."""

import numpy as np
import pytest

from neuralmech.compare.measure.forecast import forecast, plan_of
from neuralmech.errors import UserError
from neuralmech.record import RecordError, open_record

pytestmark = pytest.mark.usefixtures("found_once")

NET = {"name": "mlp", "width": 6, "depth": 2, "norm": "batch"}
DROP = {"lr": 0.1, "weight_decay": 5e-3, "schedule": {"name": "milestones", "milestones": [1500], "gamma": 0.1}}


@pytest.fixture(scope="module")
def dropped(finished):
    """A run whose learning rate falls tenfold, with half of the labels drawn anew at every step."""

    def start(**optim):
        data = {"label_noise": 0.5, "size": 512, "batch_size": 16}
        how = {"steps": 2600, "precision": "fp64", "verify": False}
        return finished(model=NET, data=data, optim={**DROP, **optim}, train=how)

    return start


@pytest.mark.parametrize(
    "optim", [{}, {"momentum": 0.9, "lr": 0.02}, {"name": "sgdw"}], ids=["plain", "momentum", "sgdw"]
)
def test_charges_after_a_drop_of_the_learning_rate_are_the_predicted_ones(dropped, optim):
    """Translation to rounding; the others as far as the drive's mean stays, which nothing but a rest of it moves."""
    with open_record(dropped(**optim)) as record:
        after = 0.1 * float(record.column("lr")[0])
        plan = plan_of(record, 500, lr=after, at=1500)
        found = forecast(record, plan).set_index("family")
        late = forecast(record, plan_of(record, 1000, lr=after, at=1500)).set_index("family")
        wrong = forecast(record, plan_of(record, 500, at=1499))
    assert (found.loc["translation", "error"].dropna() < 1e-6).all()
    assert (found.loc[["scale", "rescale"], "error"] < 0.02).all()
    assert (late.loc[["scale", "rescale"], "error"] < 0.04).all()
    moved = (found["measured"] / found["now"] - 1).abs()
    assert (moved[["scale"]] > 5 * found.loc[["scale"], "error"]).all()  # more than what "it stays" would be off by
    assert wrong["error"].isna().all()  # the run did not go on with the old learning rate
    effective = found.loc[["scale"], "effective_lr"].to_numpy()
    np.testing.assert_allclose(effective, plan.lr / found.loc[["scale"], "predicted"].to_numpy())


def test_the_exact_law_is_the_forecast_where_nothing_drives(dropped):
    """A translation charge's closed form, with momentum in motion: both roots of the discrete oscillator."""
    with open_record(dropped(momentum=0.9, lr=0.02)) as record:
        plan = plan_of(record, 700, lr=0.002, at=1500)
        found = forecast(record, plan)
        charge = record.charges("translation")
        end = charge.value[plan.row + 700].mean()
    table = found[found["family"] == "translation"]
    weighted = (table["predicted"] * table["charges"]).sum() / table["charges"].sum()
    assert weighted == pytest.approx(end, rel=1e-6)


def test_the_band_is_wider_where_drives_spread_more(dropped):
    with open_record(dropped()) as record:
        near, far = (forecast(record, plan_of(record, n, lr=0.01, at=1500)).set_index("family") for n in (50, 1000))
    width = [(f.loc["scale", "high"] - f.loc["scale", "low"]).to_numpy() for f in (near, far)]
    assert (width[0] > 0).all()
    assert (width[1] > width[0]).all()
    assert (near.loc["translation", "high"] == near.loc["translation", "low"]).all()


def test_rules_without_a_law_and_impossible_numbers_are_told(run):
    with open_record(run(optim={"name": "adamw", "lr": 1e-3})) as record:
        assert (forecast(record, plan_of(record, 10))["reason"] == "not derived for adamw").all()
        with pytest.raises(UserError, match="at=400 is no recorded step; the record has 0 to 39"):
            plan_of(record, 10, at=400)
        with pytest.raises(UserError, match="window=3 rows before the step are not there; 8 to 39 are"):
            plan_of(record, 10, window=3)
    with open_record(run(train={"steps": 5})) as record, pytest.raises(RecordError, match="a forecast needs 9 or more"):
        plan_of(record, 10)
