"""Data flows one way, and so do imports."""

import ast
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
    "losses": {"errors", "checks", "targets"},
    "outputs": {"errors"},
    "signals": set(),
    "jit": set(),
    "words": set(),
    "record": {"jit", "words"},
    "laws": {"record"},
    "compare": {"laws", "record", "errors", "checks"},
    "balance": {"losses", "outputs", "errors"},
    "models": {"errors", "checks", "targets"},
    "data": {"errors", "checks", "losses", "targets", "signals"},
    "symmetry": {"models", "data", "losses", "outputs", "errors", "checks", "jit", "words"},
    "track": {"symmetry", "record"},
    "config": {"models", "data", "losses", "symmetry", "record", "schedules", "errors", "checks"},
    "train": {
        "config",
        "track",
        "symmetry",
        "models",
        "data",
        "losses",
        "outputs",
        "record",
        "schedules",
        "errors",
        "checks",
        "signals",
        "words",
    },
    "cli": {"train", "compare", "config", "record", "errors", "checks", "words"},
    "__main__": {"cli"},
    "__init__": {"record", "symmetry", "compare"},
}
WITHOUT_TORCH = ("record", "laws", "compare", "errors", "checks", "words")


def modules():
    return [p for p in sorted(ROOT.rglob("*.py")) if "conf" not in p.relative_to(ROOT).parts]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


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


def test_every_part_is_listed():
    assert {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in modules()} <= set(ALLOWED)


def test_the_analysis_half_runs_without_torch():
    code = (
        "import sys, neuralmech, neuralmech.compare.analysis, neuralmech.compare.terminal, neuralmech.laws\n"
        "import neuralmech.compare.files, neuralmech.compare.live\n"
        "neuralmech.load, neuralmech.analyze\n"
        "sys.exit(bool({'torch', 'hydra', 'omegaconf', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
