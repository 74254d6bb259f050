"""Numbers for MLflow: at MLFLOW_TRACKING_URI, by default in ``mlruns/`` in the run's folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BATCH = 1000  # numbers that MLflow takes at once


class Logger:
    """A run of MLflow, through a client of its own: what the program does with MLflow besides is not touched."""

    def __init__(self, folder: Path, config: Mapping[str, Any], project: str) -> None:
        # newer versions refuse a folder without this, and a data base would need more than is installed
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        self._metric = Metric
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlruns").resolve().as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(project)
        experiment = found.experiment_id if found else self._client.create_experiment(project)
        self._run = self._client.create_run(experiment, run_name=folder.name).info.run_id
        for group, options in config.items():
            self._client.log_param(self._run, group, str(options)[:500])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step; MLflow's names have letters, digits and ``_-. /`` only."""
        now = int(1000 * time.time())
        found = [self._metric(_name(name), value, now, step) for name, value in values.items()]
        for start in range(0, len(found), BATCH):
            self._client.log_batch(self._run, found[start : start + BATCH])

    def close(self) -> None:
        """Say that the run has finished."""
        self._client.set_terminated(self._run)


def _name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_\-. /]", "_", name.replace("->", "to"))
