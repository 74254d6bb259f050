"""Resuming a run folder from somewhere else: it writes nowhere else, runs no code, believes no checkpoint."""

import os
import shutil
import zipfile

import h5py
import pytest
import torch
from torch import nn

from conftest import config
from neuralmech.errors import UserError
from neuralmech.record import RecordError
from neuralmech.record.safety import attribute
from neuralmech.training.begin import begin
from neuralmech.training.checkpoint import load_checkpoint, path_of
from neuralmech.training.loop import resume, train
from neuralmech.training.restore import restore
from train_twins import assert_twins

pytestmark = pytest.mark.usefixtures("found_once")

OPTIONS = {"train": {"steps": 20, "checkpoint": {"every": 10, "minutes": 0, "keep": None}}, "track": {"block": 7}}
LONGER = {"train.steps": 30}


@pytest.fixture
def elsewhere(tmp_path):
    """A file of somebody's that a link points to."""
    path = tmp_path / "elsewhere"
    path.write_text("precious")
    return path


@pytest.mark.parametrize("name", [".lock", "step-00000030.tmp"])
def test_links_among_the_checkpoints_are_not_followed(run, elsewhere, name):
    folder = run(**OPTIONS)
    link = folder / "checkpoints" / name
    link.unlink(missing_ok=True)
    link.symlink_to(elsewhere)
    if name == ".lock":
        with pytest.raises(UserError, match=r"\.lock is a link to another place; remove it"):
            resume(folder, LONGER)
    else:
        resume(folder, LONGER)
        assert not os.path.lexists(link)
    assert elsewhere.read_text() == "precious"


@pytest.mark.parametrize("name", ["checkpoints", "record.h5"])
def test_a_part_of_a_run_that_is_a_link_is_refused(run, tmp_path, name):
    folder = run(**OPTIONS)
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=f"{name} is a link to another place; put what it points to there"):
        resume(folder, LONGER)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_an_unfinished_record_that_is_a_link_is_not_followed(tmp_path, elsewhere):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "record.new").symlink_to(elsewhere)
    train(config(**OPTIONS), folder)
    assert elsewhere.read_text() == "precious"


def test_a_run_folder_may_be_a_link(run, tmp_path):
    folder = run(**OPTIONS)
    (tmp_path / "link").symlink_to(folder)
    resume(tmp_path / "link", LONGER)
    assert_twins(folder, run(**{**OPTIONS, "train": {**OPTIONS["train"], "steps": 30}}), 30)


def at(*keys, value):
    """Put a value into a checkpoint's content."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


NONSENSE = {
    "step": (at("step", value=-7), "its name says step 00000020, its content -7"),
    "a step that is none": (at("step", value="x"), "its name says step 00000020, its content x"),
    "rows": (at("record", "rows", value=-3), "nothing to continue from"),
    "fewer rows": (at("record", "rows", value=7), "does not come after 13 rows"),
    "evaluations": (at("record", "evaluations", value=1.5), "nothing to continue from"),
    "waiting rows": (at("record", "charges", "rescale", "value", value=torch.zeros(6, 5)), "its rows do not fit"),
    "waiting columns": (at("record", "steps", value={"step": torch.zeros(6)}), "its rows do not fit the record"),
    "waiting text": (at("record", "steps", value="x"), "nothing to continue from"),
    "time": (at("time", value="soon"), "its time is soon"),
    "momentum": (
        at("optimizer", "state", 0, "momentum_buffer", value=torch.zeros(3)),
        "optimizer's state is of another",
    ),
    "optimizer": (at("optimizer", value=5), "is not of this run"),
    "random numbers": (at("random", "cpu", value=torch.zeros(3)), "is not of this run"),
    "noise": (at("noise", value=(torch.zeros(3), torch.zeros(3))), "its noise is of another shape"),
    "last": (at("last", value=torch.zeros(3)), "last parameters are of another shape"),
    "config": (at("config", value="["), "is no plain YAML"),
    "no config": (at("config", value=5), "is not of this run"),
    "a run": (at("run", value="another"), "another run wrote it"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(config(**OPTIONS, optim={"momentum": 0.9}), folder)
    return folder


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_in_a_checkpoint_is_one_line_and_leaves_the_run_as_it_is(whole, tmp_path, capsys, kind):
    folder, (change, message) = tmp_path / "run", NONSENSE[kind]
    shutil.copytree(whole, folder)
    for step in (0, 10):
        path_of(folder / "checkpoints", step).unlink()
    path = path_of(folder / "checkpoints", 20)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    fresh = begin(config(**OPTIONS, optim={"momentum": 0.9}))
    try:
        assert restore(fresh, folder).rows == 0  # it is named, and none is left
    except UserError as error:
        said = [str(error)]
    else:
        said = capsys.readouterr().err.splitlines()[:-1]
    assert len(said) == len(said[0].splitlines()) == 1
    assert message in said[0]
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_checkpoint_that_is_a_pipe_or_a_bomb_is_passed_over(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    pipe, bomb = (path_of(folder / "checkpoints", step) for step in (20, 10))
    pipe.unlink()
    os.mkfifo(pipe)
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(1 << 20))
    resume(folder, {})
    said = capsys.readouterr().err
    assert "step-00000020.pt cannot be loaded (it is no file)" in said
    assert "step-00000010.pt cannot be loaded (it claims more than it holds)" in said


def test_a_checkpoint_under_another_name_is_no_checkpoint(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.copy(path_of(folder / "checkpoints", 0), path_of(folder / "checkpoints", 20))
    with pytest.raises(UserError, match="its name says step 00000020, its content 0"):
        load_checkpoint(folder / "checkpoints", nn.Linear(1, 1))
    resume(folder, {})
    assert "its name says step 00000020, its content 0" in capsys.readouterr().err
    assert_twins(folder, whole, 20)


def test_a_config_that_changed_in_the_record_is_named(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    with h5py.File(folder / "record.h5", "a") as f:
        text = attribute(f, "config")
        f.attrs["config"] = text.replace("lr: 0.1", "lr: 0.3").replace("\nseed: 0", "\nseed: 1")
    before = (folder / "record.h5").read_bytes()
    message = r"disagree about optim.lr \(0.1 here, 0.3 there\), seed \(0 here, 1 there\); restore a copy"
    with pytest.raises(UserError, match=message):
        resume(folder, LONGER)
    assert (folder / "record.h5").read_bytes() == before


def test_a_record_of_another_model_is_refused_before_it_is_cut(whole, run):
    other = run(**OPTIONS, optim={"momentum": 0.9}, model={"width": 5})
    before = (whole / "record.h5").read_bytes()
    shutil.copy(whole / "record.h5", other / "record.h5")
    with pytest.raises(RecordError, match=r"record.h5 does not hold the charges of the model in its config"):
        restore(begin(config(**OPTIONS, optim={"momentum": 0.9}, model={"width": 5})), other)
    assert (other / "record.h5").read_bytes() == before


def test_runs_from_before_runs_had_a_name_go_on(whole, tmp_path, run):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    with h5py.File(folder / "record.h5", "a") as f:
        del f.attrs["run_id"]
    for step in (0, 10, 20):
        path = path_of(folder / "checkpoints", step)
        content = torch.load(path, weights_only=True)
        del content["run"], content["config"]
        torch.save(content, path)
    resume(folder, LONGER)
    options = {**OPTIONS, "train": {**OPTIONS["train"], "steps": 30}}
    assert_twins(folder, run(**options, optim={"momentum": 0.9}), 30)


@pytest.mark.parametrize(("key", "options"), [("model", {"width": 2 * 10**9}), ("data", {"size": 10**14})])
def test_more_memory_than_there_is_is_one_line(tmp_path, key, options):
    with pytest.raises(UserError, match=f"{key} takes more memory than there is; make it smaller"):
        train(config(**{key: options}), tmp_path)
    assert not list(tmp_path.iterdir())
