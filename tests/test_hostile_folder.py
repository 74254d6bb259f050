"""Commands given inside a run folder from somewhere else: no file of it is code, unless the user names it."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from command_line import SMALL, unhurried

ROOT = Path(__file__).parents[1]
# Modules that Python, neuralmech, Hydra, pandas, matplotlib or multiprocessing import or try to import.
MODULES = [
    "hydra", "yaml", "h5py", "numpy", "torch", "typing", "email", "pathlib", "signal", "multiprocessing", "lxml",
    "tabulate", "brotli", "neuralmech_plugins", "sitecustomize", "hydra_plugins/evil", "importlib/metadata",
]  # fmt: skip
EVIL = "open({mark!r}, 'a').write(__name__ + chr(10))\nraise SystemExit(9)\n"
SCRIPT = "import sys; sys.path.pop(0); from neuralmech.cli import main; main()"  # as the console script starts it


@pytest.fixture(scope="module")
def received(tmp_path_factory):
    """A run folder with modules in it that leave a mark when they are imported."""
    folder = tmp_path_factory.mktemp("received") / "run"
    words = [*SMALL, "data.residency=loader", "data.workers=1", f"hydra.run.dir={folder}"]
    assert command([sys.executable, "-c", SCRIPT, "train", *words], folder.parent).returncode == 0
    for name in MODULES:
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(EVIL.format(mark=str(folder / "ran")))
    return folder


def command(words, folder):
    paths = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": paths}
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (["-c", SCRIPT], ["analyze", ".", "figures=false"]),
        (["-c", SCRIPT], ["train", "resume=.", "train.steps=40"]),
        pytest.param(["-m", "neuralmech"], ["verify", ".", "verify.sample=1"], marks=pytest.mark.slow),
    ],
    ids=lambda words: words[0],
)
def test_nothing_in_the_working_directory_is_imported(received, start, words):
    done = command([sys.executable, *start, *words], received)
    assert not (received / "ran").exists(), (received / "ran").read_text()
    assert (done.returncode, unhurried(done.stderr)) == (0, "")
