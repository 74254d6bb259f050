"""The wheel works by itself: built from the sdist, installed into an environment of its own, run from elsewhere."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pandas as pd
import pytest

# Without a PYTHONPATH that would put the source tree before the wheel.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
ROOT = Path(__file__).parents[1]


def run(*words, cwd):
    done = subprocess.run(
        [str(w) for w in words], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the sdist, which is built from the source tree."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def env(wheel, tmp_path_factory):
    """An environment with the wheel in it, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("env")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin/python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # .pth files in there (an editable install) are not followed.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder


def test_the_wheel_has_all_there_is_and_no_more(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    kept = {str(path.relative_to(ROOT)) for room in ("neuralmech", "conf") for path in (ROOT / room).rglob("*.*")}
    kept = {f"neuralmech/{n}" if n.startswith("conf/") else n for n in kept if "__pycache__" not in n}
    assert {n for n in names if ".dist-info/" not in n} == kept >= {"neuralmech/py.typed", "neuralmech/conf/train.yaml"}
    (metadata,) = (n for n in names if n.endswith("/METADATA"))
    said = zipfile.ZipFile(wheel).read(metadata).decode()
    assert re.search("^Author: The neuralmech authors$", said, flags=re.M)
    assert "authors:\n  - name: The neuralmech authors\n" in (ROOT / "CITATION.cff").read_text()


def test_the_wheel_finds_symmetries_from_another_folder(env, tmp_path):
    where = run(env / "bin/python", "-c", "import neuralmech; print(neuralmech.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(env)
    assert "rescale" in run(env / "bin/neuralmech", "symmetries", "model=mlp", cwd=tmp_path)


@pytest.mark.slow  # it compiles all kernels anew
def test_the_wheel_trains_and_analyses_from_another_folder(env, tmp_path):
    command = env / "bin/neuralmech"
    run(command, "train", "model=mlp", "train.steps=20", "device=cpu", "hydra.run.dir=run", cwd=tmp_path)
    assert "discrete" in run(command, "analyze", "run", cwd=tmp_path)
    assert len(pd.read_csv(tmp_path / "run/analysis/comparison.csv"))
