"""Recording less: site sums obey the laws, samples are columns of the whole, and a full disk is foreseen."""

import shutil

import numpy as np
import pytest

from conftest import config
from neuralmech.compare.measure.errors import compare_family
from neuralmech.errors import UserError
from neuralmech.record import open_record
from neuralmech.training.loop import train

pytestmark = pytest.mark.usefixtures("found_once")

MODEL = {"name": "mlp", "width": 6, "depth": 3, "norm": "batch"}
LINEAR = {"name": "mlp", "width": 4, "depth": 2, "activation": "none"}
OPTIM = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}
SIGNALS = ("value", "drive_update", "drive_gradient", "residual")


@pytest.fixture
def records(run):
    """The same run, recorded whole and in part."""

    def start(model, **track):
        parts = {"model": model, "optim": OPTIM, "train": {"precision": "fp64"}}
        return open_record(run(**parts)), open_record(run(**parts, track=track))

    return start


def test_site_sums_are_sums_and_obey_the_exact_law(records):
    whole, sums = records(MODEL, charges="site")
    assert sums.families == whole.families
    for family in whole.families:
        all_of, each = whole.charges(family), sums.charges(family)
        for k, site in enumerate(each.index["site"]):
            columns = (all_of.index["site"] == site).to_numpy()
            for signal in SIGNALS:
                expected = getattr(all_of, signal)[:][:, columns].sum(axis=1)
                np.testing.assert_allclose(getattr(each, signal)[:][:, k], expected, rtol=1e-12, atol=1e-13)
        error = compare_family(sums, family).table.set_index("law").loc["discrete_broken", "error"]
        assert np.max(error) < 1e-12


def test_the_sum_of_a_matrix_is_its_trace(records):
    whole, sums = records(LINEAR, charges="site")
    index, value = whole.charges("linear").index, whole.charges("linear").value[:]
    traces = sums.charges("linear")
    for k, site in enumerate(traces.index["site"]):
        diagonal = ((index["channel"] == index["partner"]) & (index["site"] == site)).to_numpy()
        np.testing.assert_allclose(traces.value[:][:, k], value[:, diagonal].sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(sums.charges("linear").frobenius[:], whole.charges("linear").frobenius[:])


def test_a_sample_is_columns_of_the_whole(records):
    whole, some = records(MODEL, charges="sample", sample=2)
    for family in whole.families:
        frame, part = whole.charges(family).to_pandas(), some.charges(family).to_pandas()
        assert part.columns.isin(frame.columns).all()
        assert np.array_equal(frame[part.columns].to_numpy(), part.to_numpy())
        assert part.columns.get_level_values("site").value_counts().max() == 2


def test_a_record_that_does_not_fit_is_refused_before_the_first_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 5000))
    with pytest.raises(
        UserError, match=r"record may need .*, its checkpoints .*, and .* has 5 kB left; record less by track"
    ):
        train(config(), tmp_path)
    assert not list(tmp_path.iterdir())
    assert "charges at 40 steps: at most" in capsys.readouterr().out
