"""Data flows one way, and so do imports."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import neuralmech

ROOT = Path(neuralmech.__file__).parent
# Each part may import itself and the parts after the colon.
ALLOWED = {
    "errors": {"words"},
    "checks": {"errors"},
    "schedules": set(),
    "targets": {"errors", "words"},
    "losses": {"errors", "checks", "targets", "words"},
    "outputs": {"errors"},
    "signals": set(),
    "jit": set(),
    "words": set(),
    "imports": set(),
    "machine": set(),
    "rules": {"record"},
    "provenance": set(),
    "record": {"words"},
    "loggers": {"record", "errors", "checks", "words"},
    "laws": set(),
    "compare": {"laws", "record", "errors", "checks", "words", "machine"},
    "balance": {"losses", "outputs", "errors"},
    "models": {"errors", "checks", "targets", "words"},
    "data": {"errors", "checks", "losses", "targets", "signals", "words"},
    "symmetry": {"words"},
    "discovery": {"symmetry", "data", "losses", "outputs", "errors", "imports"},
    "charges": {"symmetry", "jit"},
    "verification": {"discovery", "symmetry", "data", "losses", "outputs", "errors", "checks", "words"},
    "track": {"charges", "symmetry", "record", "words"},
    "attachment": {
        "provenance",
        "loggers",
        "rules",
        "track",
        "charges",
        "discovery",
        "symmetry",
        "verification",
        "losses",
        "outputs",
        "record",
        "errors",
        "checks",
        "words",
    },
    "lightning": {"attachment", "errors"},
    "transformers": {"attachment"},
    "config": {
        "loggers",
        "models",
        "data",
        "losses",
        "symmetry",
        "record",
        "schedules",
        "targets",
        "errors",
        "checks",
        "words",
    },
    "training": {
        "provenance",
        "config",
        "loggers",
        "track",
        "charges",
        "discovery",
        "symmetry",
        "verification",
        "models",
        "data",
        "losses",
        "outputs",
        "record",
        "rules",
        "schedules",
        "errors",
        "signals",
        "targets",
        "words",
        "imports",
    },
    "sweeps": {"training", "compare", "record", "errors", "words", "machine"},
    "cli": {
        "sweeps",
        "training",
        "verification",
        "compare",
        "config",
        "data",
        "laws",
        "record",
        "errors",
        "checks",
        "words",
        "imports",
        "machine",
        "signals",
    },
    "__main__": {"cli"},
    "__init__": {"attachment", "record", "discovery", "verification", "compare", "cli"},
}
# So with the rooms of compare: what was measured is gathered, what was gathered is shown.
ALLOWED_IN_COMPARE = {
    "measure": set(),
    "gather": {"measure"},
    "show": {"measure", "gather"},
    "folder": {"measure", "gather", "show"},
    "looks": set(),
    "watch": {"looks", "measure", "gather", "show"},
    "live": {"watch", "show"},
    "findings": {"gather", "show"},
    "__init__": set(),
}
WITHOUT_TORCH = ("record", "laws", "compare", "errors", "checks", "words", "machine")


def modules():
    return [p for p in sorted(ROOT.rglob("*.py")) if "conf" not in p.relative_to(ROOT).parts]


def name_of(path):
    return ".".join(("neuralmech", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


NAMES = {name_of(p) for p in modules()}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def needed(path):
    """Modules that a module imports, at its start or when a function is called, but not for types alone."""
    tree = ast.parse(path.read_text())
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    for_types = {id(n) for block in typing for n in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in for_types:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and id(node) not in for_types:
            modules_of_it = {f"{node.module}.{alias.name}" for alias in node.names} & NAMES
            yield from modules_of_it or {node.module}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "neuralmech" and rest:
            target = rest.split(".")[0]
            assert target == part or target in ALLOWED[part], f"{path} imports {name}"
        if part in WITHOUT_TORCH:
            assert top not in ("torch", "torchvision", "hydra", "omegaconf"), f"{path} imports {name}"
        if part != "cli":
            assert top != "hydra", f"{path} imports hydra; only cli does"


def used():
    """Pairs (part, part that it imports)."""
    for path in modules():
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for name in imported(path):
            top, _, rest = name.partition(".")
            if top == "neuralmech" and rest and rest.split(".")[0] != part:
                yield part, rest.split(".")[0]


def test_every_part_is_listed_and_may_import_only_what_it_does():
    assert {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in modules()} == set(ALLOWED)
    assert set(used()) == {(part, target) for part, targets in ALLOWED.items() for target in targets}


def test_the_rooms_of_compare_import_only_what_they_may():
    found = {room: set() for room in ALLOWED_IN_COMPARE}
    for path in (ROOT / "compare").rglob("*.py"):
        room = path.relative_to(ROOT / "compare").parts[0].removesuffix(".py")
        targets = {name.removeprefix("neuralmech.compare.") for name in imported(path) if "compare" in name.split(".")}
        assert "neuralmech.compare" not in targets, f"{path}: name the room"
        found[room] |= {target.split(".")[0] for target in targets} - {room}
    assert found == ALLOWED_IN_COMPARE


def test_verification_knows_discovery_by_its_entry_alone():
    names = {n for p in modules() if p.parent.name == "verification" for n in imported(p) if "discovery" in n}
    assert names == {"neuralmech.discovery.discover"}


def test_no_imports_go_in_a_circle():
    graph = {name_of(p): set(needed(p)) for p in modules()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_the_analysis_half_runs_without_torch():
    code = (
        "import sys, neuralmech, neuralmech.compare.folder, neuralmech.compare.show.terminal, neuralmech.laws\n"
        "import neuralmech.compare.gather.analysis, neuralmech.compare.show.claims, neuralmech.compare.live\n"
        "neuralmech.load, neuralmech.analyze\n"
        "sys.exit(bool({'torch', 'hydra', 'omegaconf', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
