"""A record of an earlier version opens and is analysed, and says what it said then."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from neuralmech import analyze
from neuralmech.record import open_record

pytestmark = pytest.mark.usefixtures("found_once")

# By commit a709bce: an MLP of width 3 with BatchNorm on four made-up inputs, 12 steps with η = 0.1, β = 0.9, λ = 0.01.
OLD = Path(__file__).parent / "files/version1.h5"
ERRORS = {
    ("translation", "classifier.weight"): 4.538693e-08,
    ("scale", "features.0"): 6.595077e-08,
    ("scale", "features.3"): 8.443983e-08,
    ("rescale", "features.1 -> features.3"): 2.131760e-07,
    ("rescale", "features.4 -> classifier"): 2.314061e-07,
}


@pytest.fixture
def run_folder(tmp_path):
    shutil.copy(OLD, tmp_path / "record.h5")
    return tmp_path


def test_what_is_in_it_is_read(run_folder):
    with open_record(run_folder) as record:
        assert record.rows == 12
        assert record.families == ("translation", "scale", "rescale")
        assert record.rotations is None
        assert record.status == "complete"
        assert record.rule["name"] == "sgd"
        assert record.norms() is None
        assert np.isnan(record.column("gradient_norm")).all()
        assert set(record.column("ascent_norm")) == {0.0}
        assert set(record.column("clip")) == {1.0}
        assert record.charges("scale").value.shape == (12, 6)


def test_its_analysis_is_what_it_was(run_folder):
    """The discrete law with the residual, whose errors are rounding and so depend on every number."""
    found = analyze(run_folder)
    table = found.comparison[found.comparison["law"] == "discrete_broken"].set_index(["family", "site"])["error"]
    for site, error in ERRORS.items():
        assert table[site] == pytest.approx(error, rel=1e-5)
    assert (found.kinetic["keeps"] == "exactly").all()
    assert set(found.oscillator["regime"]) == {"over-damped"}
    assert found.noise_equilibrium.empty
    assert found.rotations.empty
    assert "oscillation" not in found.budget
