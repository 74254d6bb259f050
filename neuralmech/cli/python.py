"""``neuralmech.train``: a run from Python, configured as on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from neuralmech.cli.application import config_folder
from neuralmech.compare.findings import Findings, analyze
from neuralmech.errors import UserError
from neuralmech.record import FILE_NAME, Record, open_record
from neuralmech.record.schema import held_out
from neuralmech.training.place import placed


@dataclass(frozen=True)
class Trained:
    """A run that `train` finished: its folder, rows in its record, last loss and accuracy on held-out data."""

    folder: Path
    rows: int
    loss: float
    accuracy: float

    def record(self) -> Record:
        """The record, opened for reading; a ``with`` block closes it."""
        return open_record(self.folder)

    def analyze(self, **chosen: Any) -> Findings:
        """Compare with theory, see `neuralmech.analyze`."""
        return analyze(self.folder, **chosen)

    def __repr__(self) -> str:
        return f"<run in {self.folder}: {self.rows:,} rows; {held_out(self.loss, self.accuracy)}>"


def train(config: Mapping[str, Any] | Sequence[str] = (), folder: str | Path | None = None) -> Trained:
    """Train and record a run, as ``neuralmech train`` does.

    Parameters
    ----------
    config
        What differs from the defaults: overrides as on the command line, ``["model=mlp", "optim.lr=0.1"]``, or a
        mapping, ``{"model": "mlp", "optim": {"lr": 0.1}}`` or ``{"model": "mlp", "optim.lr": 0.1}``.
    folder
        Of the run; by default one named after the time, in ``outputs/``.

    Raises
    ------
    UserError
        If the config is wrong; nothing is written then.
    RecordError
        If there is a record already.
    RunError, Interrupted
        If the run cannot be finished; the rows before that are in the record.

    Examples
    --------
    ``neuralmech.train({"model": "mlp", "train.steps": 500}).analyze().plot("rescale")``
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from neuralmech.cli.configs import explain
    from neuralmech.config import resolve
    from neuralmech.record import RecordError
    from neuralmech.training.loop import train as carry_out

    if place := placed():
        raise UserError(
            f"neuralmech.train is for one process, and torchrun started {place.count}; use torchrun -m neuralmech train"
        )
    if isinstance(config, str):
        raise UserError(f"train: {config!r} is one text; give a list of overrides, [{config!r}], or a mapping")
    words = list(_words(config)) if isinstance(config, Mapping) else list(config)
    if odd := [w for w in words if not isinstance(w, str) or w.startswith("-")]:
        raise UserError(f"train: {odd[0]!r} is no override; give key=value, such as optim.lr=0.1")
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            raw = compose("train", words)
        resolved = resolve(raw)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, "neuralmech train")) from error
    place = _by_time() if folder is None else Path(folder)
    if (place / FILE_NAME).exists():
        raise RecordError(f"{place} holds a record already; choose another folder")
    place.mkdir(parents=True, exist_ok=True)
    result = carry_out(resolved, place)
    return Trained(place, result.rows, result.loss, result.accuracy)


def _words(config: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Overrides that a mapping stands for; a group's ``name`` chooses it, ``_target_`` the user's own code."""
    from neuralmech.cli.configs import as_value
    from neuralmech.config import OWN

    for key, value in config.items():
        name = f"{above}{key}"
        if name in (*OWN, "logger") and isinstance(value, Mapping):
            rest = dict(value)
            if "_target_" in rest:
                yield f"{name}=custom"
            elif "name" in rest:
                yield f"{name}={rest.pop('name')}"
            yield from _words(rest, f"{name}.")
        elif isinstance(value, Mapping):
            yield from _words(value, f"{name}.")
        else:
            yield (
                f"{name}={as_value(value)}"
                if name in (*OWN, "track", "logger", "experiment")
                else f"++{name}={as_value(value)}"
            )


def _by_time() -> Path:
    """A folder named after the time that is not there yet."""
    name = datetime.now().strftime("outputs/%Y-%m-%d/%H-%M-%S")
    return next(p for p in (Path(name if i == 1 else f"{name}-{i}") for i in count(1)) if not p.exists())
