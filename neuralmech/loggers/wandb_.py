"""Numbers for Weights & Biases, in ``wandb/`` in the run's folder: ``wandb sync`` uploads, or WANDB_MODE=online."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Logger:
    """A run of W&B; nothing leaves the machine unless WANDB_MODE says so."""

    def __init__(self, folder: Path, config: Mapping[str, Any], project: str) -> None:
        import wandb  # pyright: ignore[reportMissingImports]  # which may not be installed

        self._run = wandb.init(
            project=project,
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True, console="off"),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
