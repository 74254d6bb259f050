"""Numbers for TensorBoard, in ``tensorboard/`` in the run's folder: ``tensorboard --logdir outputs``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


class Logger:
    """An event file."""

    def __init__(self, folder: Path, config: Mapping[str, Any], project: str) -> None:
        from torch.utils.tensorboard import SummaryWriter  # which may not be installed

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("config", f"```yaml\n{yaml.safe_dump(dict(config), sort_keys=False)}```")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._writer.close()
