"""The oscillator of a charge against the roots of the exact update, and what tables say of runs."""

import numpy as np
import pytest

from neuralmech.compare.measure.oscillator import oscillator_table
from neuralmech.laws import LAWS
from neuralmech.laws.oscillator import oscillator
from neuralmech.laws.system import Hyperparameters
from neuralmech.record import open_record


@pytest.mark.parametrize("translation", [True, False])
@pytest.mark.parametrize(("momentum", "decay"), [(0.99, 0.032), (0.95, 0.1), (0.9, 1e-3), (0.0, 1e-2)])
def test_period_and_relaxation_are_those_of_the_exact_update(translation, momentum, decay):
    """Its roots r: a period is 2π/arg r, the slower motion falls by e in −1/ln|r| steps; to first order in η."""
    h = Hyperparameters.steady(lr=0.02, momentum=momentum, weight_decay=decay)
    found = oscillator(h, translation=translation)
    roots = np.linalg.eigvals(LAWS["discrete"].matrices(h, translation=translation)[0][0])
    slowest = roots[np.abs(roots).argmax()]
    assert found.relaxation[0] == pytest.approx(-1 / np.log(np.abs(slowest)), rel=0.03)
    if found.regime == ["under-damped"]:
        assert found.period[0] == pytest.approx(2 * np.pi / abs(np.angle(slowest)), rel=0.03)
    else:
        assert np.isinf(found.period[0])
        assert np.angle(slowest) == 0


def test_regimes():
    """γ = ω where (1−β)² = 4λη(1+β), of a translation 2λη(1+β); without a spring nothing oscillates."""
    critical = 0.1**2 / (4 * 0.1 * 1.9)
    for factor, regime in ((0.9, "over-damped"), (1.0, "critically damped"), (1.1, "under-damped")):
        h = Hyperparameters.steady(lr=0.1, momentum=0.9, weight_decay=factor * critical)
        assert oscillator(h, translation=False).regime == [regime]
        assert oscillator(h, translation=True).regime == ["over-damped"]
    decoupled = Hyperparameters.steady(lr=0.1, momentum=0.9, weight_decay=0.01, decoupled=True)
    found = oscillator(decoupled, translation=False)
    assert found.regime == ["no spring"]
    assert found.relaxation == pytest.approx(1 / (2 * 0.1 * 0.01))


def test_tables_say_it_for_each_family_and_at_both_ends_of_a_schedule(run):
    optim = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    with open_record(run(optim=optim)) as r:
        table = oscillator_table(r)
    assert list(table["family"]) == ["translation", "rescale"]
    assert set(table["steps"]) == {"all"}
    assert table["omega"].to_numpy() == pytest.approx(np.sqrt([2 * 0.01 / 0.095, 4 * 0.01 / 0.095]))
    with open_record(run(optim={**optim, "schedule": {"name": "cosine"}})) as r:
        assert list(oscillator_table(r)["steps"]) == ["0", "39"] * 2
    with open_record(run(optim={"name": "adamw", "lr": 1e-3})) as r:
        table = oscillator_table(r)
    assert (table["reason"] == "not derived for adamw").all()
    assert table["gamma"].isna().all()
