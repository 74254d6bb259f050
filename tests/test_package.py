"""The wheel works by itself: built from the sdist, installed into an environment of its own, run from elsewhere."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pandas as pd

# Without a PYTHONPATH that would put the source tree before the wheel.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
ROOT = Path(__file__).parents[1]


def run(*words, cwd):
    done = subprocess.run(
        [str(w) for w in words], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_trains_and_analyses_from_another_folder(tmp_path):
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "neuralmech/conf/train.yaml" in names
    assert not [n for n in names if n.startswith(("tests/", "conf/"))]

    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env/bin/python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # Borrow the dependencies; .pth files in there (an editable install) are not followed.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)

    work = tmp_path / "work"
    work.mkdir()
    where = run(python, "-c", "import neuralmech; print(neuralmech.__file__)", cwd=work)
    assert Path(where.strip()).is_relative_to(tmp_path / "env")
    command = tmp_path / "env/bin/neuralmech"
    run(command, "train", "model=mlp", "train.steps=20", "device=cpu", "hydra.run.dir=run", cwd=work)
    assert "discrete" in run(command, "analyze", "run", cwd=work)
    assert len(pd.read_csv(work / "run/analysis/comparison.csv"))
