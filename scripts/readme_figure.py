"""Draw the README's figure: train and analyse experiment=first_light, keep its rescale figure."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = Path(__file__).parents[1] / "docs" / "figures" / "first_light_rescale.png"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "neuralmech"]
        subprocess.run([*command, "train", "experiment=first_light", f"hydra.sweep.dir={folder}/sweep"], check=True)
        subprocess.run([*command, "analyze", f"{folder}/sweep"], check=True)
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder) / "sweep" / "analysis" / "rescale.png", TARGET)
    print(f"Written: {TARGET}")


if __name__ == "__main__":
    main()
