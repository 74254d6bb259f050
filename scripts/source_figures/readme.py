"""The README's figure: what `neuralmech analyze` draws of experiment=first_light."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory


def write(target: Path) -> None:
    """Train and analyse the experiment through the command line, keep its rescale figure."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "neuralmech"]
        subprocess.run([*command, "train", "experiment=first_light", f"hydra.sweep.dir={folder}/sweep"], check=True)
        subprocess.run([*command, "analyze", f"{folder}/sweep"], check=True)
        shutil.copy(Path(folder) / "sweep" / "analysis" / "rescale.png", target)
