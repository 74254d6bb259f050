"""Runs on files of the user's own: a record does not say where they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import neuralmech
from command_line import refused, there

TEXT = ["data=text", "model=transformer", "model.width=8", "model.heads=2", "model.depth=1", "data.length=16"]
TRAIN = ["data.batch_size=8", "device=cpu", "hydra.run.dir=run", "train.verify=false"]


@pytest.fixture
def photos(tmp_path):
    for label, name in enumerate(("ant", "cat")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.random.default_rng(10 * label + i).integers(256, size=(12, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.jpg")
    return ["data=imagefolder", "data.path=photos", "data.size=8", "model=mlp", "model.width=4", "data.workers=1"]


def test_images_in_folders_are_trained_on_and_a_resumed_run_wants_their_place_again(command, tmp_path, photos):
    code, _, err = command("train", *photos, *TRAIN, "train.steps=3", "data.residency=loader")
    assert code == 0, err
    before = there(tmp_path)
    refused(command("train", "resume=run", "train.steps=5"), r"data.path is missing; set data.path=FOLDER")
    assert there(tmp_path) == before
    again = command("train", "resume=run", "train.steps=5", "data.path=photos", "data.residency=device")
    assert again[0] == 0, again
    with neuralmech.load("run") as record:
        assert len(record.column("loss")) == 5
        assert np.isfinite(record.column("loss")[:]).all()


def test_an_image_that_is_damaged_is_one_line(command, tmp_path, photos):
    (tmp_path / "photos/cat/3.jpg").write_bytes(b"none")
    refused(command("train", *photos, *TRAIN), r"photos/cat/3.jpg cannot be read as an image .*mend it or remove it")
    assert not (tmp_path / "run").exists()


def test_a_text_is_trained_on_and_is_never_taken_for_the_shipped_one(command, tmp_path):
    (tmp_path / "own.txt").write_text("the cat sat on the mat. " * 40)
    code, _, err = command("train", *TEXT, "data.path=own.txt", *TRAIN, "train.steps=3")
    assert code == 0, err
    refused(command("train", "resume=run", "train.steps=4"), r"data.path is missing; set data.path=FILE")
    code, _, err = command("train", "resume=run", "train.steps=4", "data.path=own.txt")
    assert code == 0, err
    refused(command("verify", "run"), r"data.path is missing; set data.path=FILE")
    refused(command("verify", "run", "data=imagefolder", "data.path=here"), r"run has data=text; name these")
    code, out, err = command("verify", "run", "data=text", "data.path=own.txt", "verify.sample=1", "conditions=[own]")
    assert code == 0, err
    assert "all claims hold" in out


def test_sonnets_are_trained_on_without_a_file(command, tmp_path):
    assert command("train", *TEXT, *TRAIN, "train.steps=2")[0] == 0
    (tmp_path / "own.txt").write_text("the cat sat on the mat. " * 40)
    message = r"run cannot be resumed with another data.path \(the run has None\); start a new run"
    refused(command("train", "resume=run", "train.steps=3", "data.path=own.txt"), message)
    assert command("train", "resume=run", "train.steps=3")[0] == 0


def test_a_relative_path_is_where_the_command_was_given(command, tmp_path):
    (tmp_path / "own.txt").write_text("the cat sat on the mat. " * 40)
    words = [*TEXT, "data.path=own.txt", *TRAIN, "train.steps=2", "hydra.job.chdir=true"]
    code, _, err = command("train", *words)
    assert code == 0, err
    assert Path("run/record.h5").is_file() or (tmp_path / "run/record.h5").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=imagefolder", "data.path=none"], "data.path=none is no folder"),
        (["data=imagefolder"], "data.path is missing; set data.path=FOLDER"),
        ([*TEXT, "data.path=none"], "data.path: .*none is no file; give a text file"),
        (["data=text"], "model=convnet needs real numbers, data has tokens; use model=transformer"),
        (["data=hf", "data.path=none"], "needs the library datasets|is no folder that Dataset.save_to_disk wrote"),
        (["data=text", "data.lenght=3"], "data.lenght is no option; did you mean data.length"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(command, tmp_path, words, message):
    refused(command("train", *words), message)
    assert not list(tmp_path.iterdir())
