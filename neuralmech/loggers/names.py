"""Trackers by name, and whether one is installed."""

from __future__ import annotations

from importlib.util import find_spec

from neuralmech.checks import check_choice
from neuralmech.errors import UserError

LOGGERS = {"none": "", "csv": "", "tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # name → library


def check_installed(name: str) -> None:
    """Raise a `UserError` if there is no such tracker, or its library is not installed."""
    check_choice("logger", name, LOGGERS)
    library = LOGGERS[name]
    if library and find_spec(library) is None:
        raise UserError(f"logger={name} needs {library}; pip install 'neuralmech[{name}]', or use logger=csv")
