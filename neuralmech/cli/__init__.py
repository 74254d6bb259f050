"""The command line: ``neuralmech train | analyze | sweep | watch | forecast | symmetries | verify``.

The only part that imports Hydra. Each command is a Hydra application of its own; they import what they need when they
run, so that help and completion come at once.
"""

from neuralmech.cli.application import config_folder
from neuralmech.cli.entry import main

__all__ = ["config_folder", "main"]
