"""The training runs behind the figures: each made once, by neuralmech's own training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepping import after_each_step
from torch import Tensor

from neuralmech.config import Config, resolve
from neuralmech.record import Record, open_record
from neuralmech.training.loop import train
from neuralmech.training.run import Run

NET = {"_target_": "source_figures.net.MixedNet"}
LR = 0.1
STEPS = 2000
SMALL = 1_000_000  # parameters: of larger nets they are not kept


@dataclass
class Runs:
    """Runs of one net on digits in a folder; asking twice for the same options trains once."""

    folder: Path
    _paths: dict[str, Path] = field(default_factory=dict)
    _parameters: dict[str, list[Tensor]] = field(default_factory=dict)

    def config(self, **options: Any) -> Config:
        """Return a run's configuration: options of the optimiser, and `steps`, `batch_size`, `model`, `data`."""
        steps, batch_size = options.pop("steps", STEPS), options.pop("batch_size", 32)
        return resolve(
            {
                "model": options.pop("model", NET),
                "data": {**options.pop("data", {"name": "digits"}), "batch_size": batch_size},
                "optim": {"lr": LR, **options},
                "track": {},
                "train": {"steps": steps, "eval_every": 0},
                "device": "cpu",
            }
        )

    def record(self, **options: Any) -> Record:
        """Train if need be, and open the record; the caller closes it."""
        name = self._name(options)
        if name not in self._paths:
            path = self.folder / f"run-{len(self._paths)}"
            path.mkdir()
            kept: list[Tensor] = []

            def keep(run: Run) -> None:
                if run.flat.layout.size <= SMALL:
                    kept.append(run.flat.theta.detach().clone())

            with after_each_step(keep):
                train(self.config(**options), path)
            self._paths[name], self._parameters[name] = path, kept
        return open_record(self._paths[name])

    def parameters(self, **options: Any) -> list[Tensor]:
        """θ_1, θ_2, … of a run, flat, in the order of `neuralmech.training.flat.FlatParameters`."""
        self.record(**options).close()
        return self._parameters[self._name(options)]

    @staticmethod
    def _name(options: dict[str, Any]) -> str:
        return repr(sorted(options.items()))
