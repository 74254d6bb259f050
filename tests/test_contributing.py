"""What the pages for contributors say of files: they are there, hold what is said, and do it in that order."""

import re
import sys
import threading
from pathlib import Path

import pytest

import neuralmech
from conftest import config
from neuralmech.compare.folder import analyze_folder
from neuralmech.compare.gather.options import Options
from neuralmech.training.loop import train

PACKAGE = Path(neuralmech.__file__).parent
ROOT = PACKAGE.parent
CONTRIBUTING, DESIGN = ROOT / "CONTRIBUTING.md", ROOT / "docs/design.md"
PAGES = [CONTRIBUTING, DESIGN]
# `Name` (`file`), `Name` in `file`, (`file`, `Name`)
NAME_FIRST = re.compile(r"`([A-Za-z_][\w.]*)`\s+(?:\(|in\s+|of\s+)`([\w/]+\.py)`")
FILE_FIRST = re.compile(r"\(`([\w/]+\.py)`, `([A-Za-z_]\w*)`")
EXAMPLES = {"conf/data/waves.yaml"}  # files that a recipe tells to make
COMPILED = {"charges/cpu_kernels.py", "charges/cpu_rows.py"}  # whose calls Python does not see


def paths(text):
    """Files named between backticks as (word, path or None); a bare one is in the folder of the one before it."""
    for block in text.split("\n\n"):
        folder = PACKAGE
        for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", block):
            for word in re.findall(r"(?<![\w*<./])(?:[\w./-]+\.py|[\w.-]+/[\w./-]+\.(?:md|yaml))\b", span):
                found = next((p for p in (folder / word, PACKAGE / word, ROOT / word) if p.is_file()), None)
                folder = found.parent if found else folder
                yield word, found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_file_that_is_named_exists(page):
    found = [(word, path) for word, path in paths(page.read_text(encoding="utf-8")) if word not in EXAMPLES]
    assert len(found) >= 20
    missing = [word for word, path in found if path is None]
    assert not missing, f"{page.name} names files that are neither in neuralmech/ nor in the repository: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_name_is_in_the_file_it_is_said_to_be_in(page):
    text = page.read_text(encoding="utf-8")
    named = NAME_FIRST.findall(text) + [(name, file) for file, name in FILE_FIRST.findall(text)]
    assert len(named) >= 2
    for name, file in named:
        path = next((p for p in (PACKAGE / file, ROOT / file) if p.is_file()), None)
        assert path, f"{page.name}: {file}, which is said to hold {name}, does not exist"
        last = name.split(".")[-1]
        definition = rf"^\s*(?:def|class) {last}\b|^\s*(?:\w+, )*{last}\b(?:, \w+)*\s*(?::|=(?!=))"
        defined = re.search(definition, path.read_text(encoding="utf-8"), re.MULTILINE)
        assert defined, f"{page.name}: {file} does not define {name}; say where it is now"


def test_the_map_has_every_room():
    block = CONTRIBUTING.read_text(encoding="utf-8").split("## Map\n\n```\n")[1].split("\n```")[0]
    inside = re.findall(r"^  (\S.*?)  ", block, re.MULTILINE)
    entries = {word.rstrip("/") for words in inside for word in words.split() if re.match(r"\w", word)}
    assert entries >= {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()}
    assert not [e for e in entries if not (PACKAGE / e).exists()], "the map names rooms that do not exist"


def way(heading):
    """Files of a table of the way of one charge, in order."""
    table = DESIGN.read_text(encoding="utf-8").split(heading)[1].split("\n\n")[1]
    cells = "\n".join(row.split("|")[1] for row in table.splitlines())
    return [str(path.relative_to(PACKAGE)) for _, path in paths(cells) if path]


def called(work):
    """Files of the package, in the order of calls of their functions, in this thread and in those that start."""
    files, place = [], f"{PACKAGE}/"

    def note(frame, *_):  # at each call alone, for it returns nothing that is to be told of lines
        name = frame.f_code.co_filename
        if name.startswith(place) and files[-1:] != [name]:
            files.append(name)

    before = sys.gettrace()
    threading.settrace(note)
    sys.settrace(note)
    try:
        work()
    finally:
        sys.settrace(before)
        threading.settrace(before)
    return [name.removeprefix(place) for name in files]


def assert_in_order(wanted, found):
    rest = iter(found)
    for file in wanted:
        assert file in rest, f"docs/design.md: {file} is not on the way of a charge" + (
            " behind the files before it" if file in found else ""
        )


@pytest.mark.usefixtures("found_once")
def test_a_charge_goes_the_way_that_the_design_says(tmp_path):
    steps = {"steps": 2, "eval_every": 0, "verify": False}
    capture = called(lambda: train(config(train=steps, optim={"momentum": 0.9}), tmp_path))
    assert_in_order([file for file in way("Capture, from a step") if file not in COMPILED], capture)
    analysis = called(lambda: analyze_folder(tmp_path, Options(figures=False)))
    assert_in_order(way("Analysis, from the disk"), analysis)
    assert not {f for f in analysis if f.split("/")[0] in ("training", "track", "charges")}
