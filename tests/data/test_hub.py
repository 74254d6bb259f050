"""Data sets of Hugging Face's library, as it writes them."""

import builtins

import numpy as np
import pytest
import torch
from PIL import Image

from neuralmech.data import HubOptions, load_data
from neuralmech.data.dataset import measure
from neuralmech.errors import UserError


def options(folder, **more):
    chosen = HubOptions(path=str(folder), **{"batch_size": 2, **more})
    chosen.check()
    return chosen


def everything(part):
    return part[np.arange(len(part))]


@pytest.fixture
def hub():
    found = pytest.importorskip("datasets")
    found.disable_progress_bars()
    return found


def vectors(hub, count, seed=0):
    rng = np.random.default_rng(seed)
    columns = {"x": rng.normal(size=(count, 3)).tolist(), "kind": rng.integers(4, size=count).tolist()}
    features = {"x": hub.Sequence(hub.Value("float64")), "kind": hub.ClassLabel(names=["a", "b", "c", "d", "e"])}
    return columns, hub.Dataset.from_dict(columns, features=hub.Features(features))


def test_numbers_of_two_splits(hub, tmp_path):
    (train, first), (test, second) = vectors(hub, 9), vectors(hub, 4, 1)
    hub.DatasetDict(train=first, validation=second).save_to_disk(str(tmp_path / "own"))
    data = load_data(options(tmp_path / "own", inputs="x", targets="kind", heldout="validation"))
    assert (data.shape, data.classes) == ((3,), 5)
    for part, wanted in ((data.train, train), (data.test, test)):
        assert part.x.tolist() == wanted["x"]  # to the last bit of float64
        assert part.y.tolist() == wanted["kind"]


@pytest.mark.parametrize("has_splits", [False, True])
def test_a_share_of_one_split_is_held_out(hub, tmp_path, has_splits):
    columns, rows = vectors(hub, 20)
    (hub.DatasetDict(train=rows) if has_splits else rows).save_to_disk(str(tmp_path / "own"))
    data = load_data(options(tmp_path / "own", inputs="x", targets="kind", heldout=None if has_splits else "test"))
    assert (len(data.train), len(data.test)) == (16, 4)
    assert sorted([*data.train.x.tolist(), *data.test.x.tolist()]) == sorted(columns["x"])


def test_images(hub, tmp_path):
    arrays = np.random.default_rng(0).integers(256, size=(10, 12, 8, 3), dtype=np.uint8)
    images = [Image.fromarray(array if i else array[:, :, 0]) for i, array in enumerate(arrays)]
    features = hub.Features({"image": hub.Image(), "label": hub.Value("int64")})
    rows = hub.Dataset.from_dict({"image": images, "label": [i % 3 for i in range(10)]}, features=features)
    hub.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "own"))
    with pytest.raises(UserError, match=r"data=hf does not say how many classes there are; set data.classes"):
        load_data(options(tmp_path / "own"))
    data = load_data(options(tmp_path / "own", classes=3))
    x, y = everything(data.train)
    wanted = [np.asarray(image.convert("RGB")).transpose(2, 0, 1) for image in images]
    assert np.array_equal(x.numpy(), np.stack(wanted))
    assert y.tolist() == [i % 3 for i in range(10)]
    assert data.pixels == measure(x)
    assert load_data(options(tmp_path / "own", classes=3, size=6)).shape == (3, 6, 6)


def test_arrays_of_bytes_are_images(hub, tmp_path):
    x = np.random.default_rng(0).integers(256, size=(10, 1, 6, 6), dtype=np.uint8)
    features = hub.Features({"x": hub.Array3D((1, 6, 6), "uint8"), "label": hub.Value("int64")})
    rows = hub.Dataset.from_dict({"x": list(x), "label": [0, 1] * 5}, features=features)
    hub.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "own"))
    data = load_data(options(tmp_path / "own", inputs="x"))
    assert data.train.x.dtype == torch.uint8
    assert np.array_equal(data.train.x.numpy(), x)
    assert (data.classes, data.pixels) == (2, measure(torch.from_numpy(x)))
    hub.Dataset.from_dict(
        {"x": [[1, 2]] * 9}, features=hub.Features({"x": hub.Sequence(hub.Value("uint8"))})
    ).save_to_disk(str(tmp_path / "flat"))
    with pytest.raises(UserError, match=r"data=hf gives bytes of shape .2,.; images are .channels, height, width"):
        load_data(options(tmp_path / "flat", inputs="x", targets="x"))


def test_tokens_have_the_next_ones_as_targets(hub, tmp_path):
    ids = np.random.default_rng(0).integers(7, size=(12, 5)).tolist()
    hub.Dataset.from_dict({"input_ids": ids}).save_to_disk(str(tmp_path / "own"))
    data = load_data(options(tmp_path / "own", inputs="input_ids", targets=None, classes=11))
    x, y = (torch.cat([a, b]).tolist() for a, b in ((data.train.x, data.test.x), (data.train.y, data.test.y)))
    assert sorted([*first, second[-1]] for first, second in zip(x, y, strict=True)) == sorted(ids)
    assert [row[1:] for row in x] == [row[:-1] for row in y]
    assert (data.has_tokens, data.shape, data.classes) == (True, (4,), 11)
    assert load_data(options(tmp_path / "own", inputs="input_ids", targets=None)).classes == 7


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"inputs": "xs"}, r"data.inputs=xs is unknown \(did you mean x\?\); choose one of x, kind, words, ragged"),
        ({"targets": "label"}, r"data.targets=label is unknown; choose one of"),
        ({"inputs": "words"}, r"data.inputs=words holds no numbers \(Value\('string'\)\)"),
        ({"targets": "words"}, r"data.targets=words holds no numbers .*class_encode_column"),
        ({"inputs": "ragged"}, r"data.inputs=ragged holds lists of different lengths, or no numbers"),
        ({"targets": None}, r"data.targets=null: x holds no lists of tokens; name a column of targets"),
        ({"split": "trian"}, r"data.split=trian is unknown \(did you mean train\?\)"),
        ({"heldout": "val"}, r"data.heldout=val is not in .*own, which has train, test; choose one of these, or null"),
    ],
)
def test_what_a_column_lacks_is_told(hub, tmp_path, chosen, message):
    _, rows = vectors(hub, 6)
    rows = rows.add_column("words", ["a"] * 6).add_column("ragged", [[1] * (1 + i) for i in range(6)])
    hub.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "own"))
    with pytest.raises(UserError, match=message):
        load_data(options(tmp_path / "own", **{"inputs": "x", "targets": "kind", **chosen}))


def test_what_is_no_such_folder_is_told(hub, tmp_path):
    with pytest.raises(UserError, match=r"none is no folder that Dataset.save_to_disk wrote: there is none"):
        load_data(options(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no folder that Dataset.save_to_disk wrote \(Directory .*write it again"):
        load_data(options(tmp_path))
    vectors(hub, 6)[1].save_to_disk(str(tmp_path / "own"))
    (arrow,) = (tmp_path / "own").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:40])
    with pytest.raises(UserError, match=r"own is no folder that Dataset.save_to_disk wrote \(.*\); write it again"):
        load_data(options(tmp_path / "own", inputs="x", targets="kind"))


def test_without_the_library_a_line_says_how_to_have_it(tmp_path, monkeypatch):
    importing = builtins.__import__

    def refuse(name, *rest):
        if name == "datasets":
            raise ImportError("No module named 'datasets'")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"data=hf needs the library datasets .*; pip install 'neuralmech\[hf\]'"):
        load_data(options(tmp_path))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"path": None}, "data.path is missing; set data.path=FOLDER, which Dataset.save_to_disk wrote"),
        ({"size": 0}, "data.size=0 is too small"),
        ({"classes": 1}, "data.classes=1 is too small"),
        ({"heldout": "train"}, "data.heldout=train is data.split, too"),
    ],
)
def test_impossible_options_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        HubOptions(**{"path": "here", **wrong}).check()
