"""A text becomes windows of characters, each with the next one as its target."""

import pytest
import torch

from neuralmech.data import TextOptions, load_data
from neuralmech.data.text import SHIPPED, encoded, read_text
from neuralmech.errors import UserError


def options(path=None, **more):
    chosen = TextOptions(path=path and str(path), **{"batch_size": 2, **more})
    chosen.check()
    return chosen


def written(tokens, characters):
    return "".join(characters[i] for i in tokens)


def test_windows_lie_side_by_side_and_targets_are_the_next_characters(tmp_path):
    text = "Größe, «x» and ‘y’: " + "abcdefghij" * 20
    (tmp_path / "own.txt").write_text(text, encoding="utf-8")
    data = load_data(options(tmp_path / "own.txt", length=7))
    _, characters = encoded(text)
    assert characters == "".join(sorted(set(text)))
    assert (data.classes, data.shape, data.has_tokens) == (len(characters), (7,), True)
    cut = len(text) - round(0.2 * len(text))
    for part, of_it in ((data.train, text[:cut]), (data.test, text[cut:])):
        assert len(part.x) == (len(of_it) - 1) // 7
        x, y = (written(values.flatten().tolist(), characters) for values in (part.x, part.y))
        assert x == of_it[: len(x)]
        assert y == of_it[1 : len(x) + 1]


def test_windows_may_overlap(tmp_path):
    (tmp_path / "own.txt").write_text("abcdefghij" * 5)
    data = load_data(options(tmp_path / "own.txt", length=4, stride=1))
    assert data.train.x[:3].tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]
    assert data.train.y[:3].tolist() == [[1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert len(data.train.x) == 40 - 4


def test_a_byte_order_mark_is_no_character(tmp_path):
    for name, encoding in (("a", "utf-8"), ("b", "utf-8-sig")):
        (tmp_path / name).write_text("some text " * 20, encoding=encoding)
    a, b = (load_data(options(tmp_path / name, length=5)) for name in "ab")
    assert torch.equal(a.train.x, b.train.x)
    assert a.classes == b.classes


def test_sonnets_are_shipped():
    text = read_text(SHIPPED)
    sonnets = [sonnet.splitlines() for sonnet in text.strip().split("\n\n")]
    assert {len(lines) for lines in sonnets} == {14}
    assert "Shall I compare thee to a summer's day?" in [lines[0] for lines in sonnets]
    assert text.isascii()
    assert len(text) < 20_000
    data = load_data(options(batch_size=64))
    assert data.classes == len(set(text))
    assert len(data.train) >= 2 * 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"data.path: .*own.txt is no file; give a text file"),
        (b"Gr\xf6\xdfe" * 99, r"data.path: .*own.txt is not UTF-8 \(invalid start byte at byte 2\); save it so"),
        (b"", r"own.txt has 0 different characters; give a text with two or more"),
        (b"a" * 1000, r"own.txt has 1 different characters"),
        (b"ab" * 30, r"data.length=64: the training part of .*own.txt has 48 characters.*shorten data.length"),
        (b"ab" * 160, r"data.length=64: the held-out part of .*own.txt has 64 characters"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, content, message):
    if content is not None:
        (tmp_path / "own.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_data(options(tmp_path / "own.txt"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"path": ""}, "data.path is missing; set data.path=FILE"),
        ({"length": 0}, "data.length=0 is too small"),
        ({"stride": 0}, "data.stride=0 is too small"),
        ({"test_fraction": 0.0}, "data.test_fraction=0.0 is no fraction"),
    ],
)
def test_impossible_options_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        TextOptions(**wrong).check()
