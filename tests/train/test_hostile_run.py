"""Resuming a run folder from somewhere else: it writes nowhere else, runs no code, believes no checkpoint."""

import os

import pytest

from conftest import config
from neuralmech.errors import UserError
from neuralmech.train.loop import resume, train
from train_twins import assert_twins

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
