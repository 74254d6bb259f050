"""A record that was analysed before and is as it was is not read again; whatever else is there is not believed."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest

from made_runs import config, job
from neuralmech.compare.folder import analyze_folder
from neuralmech.compare.gather import job as of_a_job
from neuralmech.compare.gather import kept, runs
from neuralmech.compare.gather.analysis import analyze
from neuralmech.compare.gather.job import TABLES, compare_job
from neuralmech.compare.gather.options import Options
from neuralmech.compare.gather.plain import packed, unpacked
from neuralmech.compare.measure import batches
from neuralmech.record import RecordError

pytestmark = pytest.mark.usefixtures("found_once")
ALONE = {"jobs": 1, "figures": False}


@pytest.fixture
def opened(monkeypatch):
    """Names of the runs whose record was opened."""
    names = []
    for module in (of_a_job, runs, batches):

        def counted(path, real=module.open_record):
            names.append(path.name)
            return real(path)

        monkeypatch.setattr(module, "open_record", counted)
    return names


@pytest.fixture
def sweep(tmp_path):
    for number in range(6):
        job(tmp_path / "sweep" / str(number), config(0.01 * (1 + number // 2), number % 2))
    job(tmp_path / "sweep/6", config(0.5, 0), status="not finite at step 12")
    return tmp_path / "sweep"


def files(sweep):
    return {path.name: path.read_bytes() for path in (sweep / "analysis").iterdir() if path.is_file()}


def test_a_second_analysis_opens_no_record_and_gives_the_same_bytes(sweep, opened):
    analyze_folder(sweep, Options(jobs=1))
    assert set(opened) == set("0123456")
    first = files(sweep)
    assert {"report.html", "scale.svg"} <= set(first)
    opened.clear()
    analyze_folder(sweep, Options(jobs=1))
    assert opened == []
    assert files(sweep) == first


def test_processes_give_the_same_bytes(sweep):
    analyze_folder(sweep, Options(jobs=1))
    first = files(sweep)
    shutil.rmtree(sweep / "analysis")
    analyze_folder(sweep, Options(jobs=3))
    assert files(sweep) == first


def test_a_record_that_was_touched_is_read_again_alone(sweep, opened):
    analyze_folder(sweep, Options(**ALONE))
    opened.clear()
    os.utime(sweep / "3/record.h5")
    analyze_folder(sweep, Options(**ALONE))
    assert set(opened) == {"3"}


@pytest.mark.parametrize("changed", [{"lines": 3}, {"block": 7}, {"laws": ["discrete"]}], ids=str)
def test_other_options_read_the_records_again(sweep, opened, changed):
    analyze_folder(sweep, Options(**ALONE))
    opened.clear()
    analyze_folder(sweep, Options(**ALONE, **changed))
    assert set(opened) == set("0123456")
    opened.clear()
    analyze_folder(sweep, Options(**ALONE, **changed, runs=["5"]))  # whose curves were not kept
    assert opened == ["5"]


def test_other_code_reads_the_records_again(sweep, opened, monkeypatch):
    analyze_folder(sweep, Options(**ALONE))
    monkeypatch.setattr(kept, "_code", lambda: "of tomorrow")
    opened.clear()
    analyze_folder(sweep, Options(**ALONE))
    assert set(opened) == set("0123456")


def test_a_job_more_changes_the_labels_of_those_that_are_kept(sweep, opened):
    analyze_folder(sweep, Options(**ALONE))
    job(sweep / "7", "optim: {lr: 0.01, momentum: 0.5}\nseed: 0\n")
    opened.clear()
    found = analyze_folder(sweep, Options(**ALONE))
    assert set(opened) == {"7"}
    assert found.keys == ("optim.lr", "optim.momentum", "seed")
    assert set(found.comparison["optim.momentum"]) == {0.5, 0.9}
    shutil.rmtree(sweep / "7")
    analyze_folder(sweep, Options(**ALONE))
    names = [path.name for path in (sweep / "analysis/.kept").iterdir()]
    assert len([name for name in names if name.startswith("compared-")]) == 6


def _flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damaged", "least"),
    [(lambda _: b"", 7), (lambda content: content[:-9], 7), (lambda _: b"\x80\x04N.", 7), (_flipped, 1)],
    ids=["empty", "cut short", "a pickle", "a bit"],  # which may be one that says nothing
)
def test_what_is_damaged_is_made_anew(sweep, opened, damaged, least):
    analyze_folder(sweep, Options(**ALONE))
    first = files(sweep)
    for path in (sweep / "analysis/.kept").iterdir():
        path.write_bytes(damaged(path.read_bytes()))
    opened.clear()
    analyze_folder(sweep, Options(**ALONE))
    assert len(set(opened)) >= least
    assert files(sweep) == first
    opened.clear()
    analyze_folder(sweep, Options(**ALONE))
    assert opened == []
    assert files(sweep) == first


def test_what_is_of_another_job_or_another_folder_is_not_believed(sweep, opened):
    analyze_folder(sweep, Options(**ALONE))
    names = sorted((sweep / "analysis/.kept").glob("compared-*"))
    names[0].write_bytes(names[1].read_bytes())
    opened.clear()
    analyze_folder(sweep, Options(**ALONE))
    assert len(opened) == 1
    shutil.copytree(sweep, sweep.parent / "copy")
    opened.clear()
    analyze_folder(sweep.parent / "copy", Options(**ALONE))
    assert set(opened) == set("0123456")


def test_python_reads_what_is_kept_and_writes_nothing(sweep, opened):
    analyze(sweep, jobs=1)
    assert not (sweep / "analysis").exists()
    analyze_folder(sweep, Options(**ALONE))
    opened.clear()
    analyze(sweep, jobs=1)
    assert opened == []


def test_nothing_is_kept_behind_a_link_or_where_nothing_was_found(sweep, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (sweep / "analysis").mkdir()
    (sweep / "analysis/.kept").symlink_to(tmp_path / "elsewhere")
    analyze_folder(sweep, Options(**ALONE))
    assert not list((tmp_path / "elsewhere").iterdir())
    job(tmp_path / "empty/0", config(0.1, 0), count=0)
    with pytest.raises(RecordError, match="holds no run to analyse"):
        analyze_folder(tmp_path / "empty", Options(**ALONE))
    assert not (tmp_path / "empty/analysis").exists()


def test_what_is_packed_comes_back_to_the_bit(run):
    """Of a run with momentum, translation and all signals: every table, curve and note."""
    folder = run(
        model={"name": "mlp", "width": 4, "norm": "batch"}, optim={"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2}
    )
    found = compare_job(runs.look(folder), Options())
    back = unpacked(packed(found, "key"), "key")
    for name in TABLES:
        for one, other in zip(getattr(found, name), getattr(back, name), strict=True):
            pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert found.row.keys() == back.row.keys()
    assert found.notes == back.notes
    assert found.config == back.config
    assert list(found.panel.curves) == list(back.panel.curves)
    for family, curves in found.panel.curves.items():
        np.testing.assert_array_equal(curves.measured, back.panel.curves[family].measured)
        assert curves.names == back.panel.curves[family].names
    assert packed(back, "key") == packed(found, "key")
    assert unpacked(packed(found, "key"), "another") is None
    with pytest.raises(TypeError, match="complex is nothing"):
        packed([1j], "key")
