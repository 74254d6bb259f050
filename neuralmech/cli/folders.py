"""The folder of a run, from Hydra's making it to the record: what is written there first, and taken back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from neuralmech.cli.application import BlockedError
from neuralmech.cli.sweeping import Planned, jobs_of
from neuralmech.errors import UserError
from neuralmech.record import FAILURE_FILE, FILE_NAME, RecordError
from neuralmech.record.files import write_whole
from neuralmech.training.place import placed
from neuralmech.training.process import locked
from neuralmech.words import hydra_value

COMPOSED = ".hydra"
SWEEP_FILE = "multirun.yaml"  # Hydra's own, which it writes over before any job can refuse
ASIDE = ".multirun.yaml.before"


class Before(Callback):
    """Keeps what is there before Hydra makes the folder of a run or a sweep, so that a refused one leaves no trace.

    Hydra alone knows the folder's name, which it composes; it makes the folder and writes a sweep's file before any job
    can refuse. Its callback is the one moment before that.

    Attributes
    ----------
    folder
        Of the run or the sweep; None as long as Hydra has not named it.
    is_sweep
        Which of them.
    found
        Those of it and the folders above it that were there.
    jobs, swept
        Number of a sweep's jobs, None where only its sweeper knows, and keys in which they differ.
    refused
        Whether the sweep was not taken up, or a job of it: what described the sweep that is there is put back.
    is_first, aside
        Whether nothing described a sweep there before; where that is meanwhile.
    planned
        The sweep's manifest.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.is_sweep = False
        self.found: tuple[Path, ...] = ()
        self.jobs: int | None = None
        self.swept: tuple[str, ...] = ()
        self.refused = False
        self.is_first = False
        self.aside: Path | None = None
        self.planned: Planned | None = None

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """A single run; one whose folder is named after the time gets a folder that no other has."""
        before = there_above(config.hydra.run.dir)
        is_new = own_folder(config, "run")
        self._note(config.hydra.run.dir, is_sweep=False, before=before if is_new else None)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """A sweep; one named after the time gets a folder that no other has.

        Its file is set aside, which also keeps Hydra from writing through a link.
        """
        if place := placed():
            raise BlockedError from UserError(
                f"--multirun starts its own processes, and torchrun started {place.count}; use one of them, such as "
                "hydra/launcher=pool without torchrun"
            )
        jobs, self.swept = jobs_of(config)
        self.jobs = None if jobs is None else len(jobs)
        before = there_above(config.hydra.sweep.dir)
        is_new = own_folder(config, "sweep")
        self._note(config.hydra.sweep.dir, is_sweep=True, before=before if is_new else None)
        folder = Path(config.hydra.sweep.dir).absolute()
        path, aside = folder / SWEEP_FILE, folder / ASIDE
        if not os.path.lexists(path):
            if _is_file(aside):  # a process that had set it aside was killed
                self.aside = aside
            self.is_first = self.aside is None
        elif _is_file(path):
            try:
                self.aside = path.replace(aside)
            except OSError as error:
                raise BlockedError from error
        try:
            self.planned = Planned.of(config, jobs or [])
        except (RecordError, OSError) as error:
            self.refused = True
            raise BlockedError from error

    def tidy(self) -> None:
        """Put the file of a sweep back that was not taken up; remove the folders that were made and are empty."""
        if self.folder is None:
            return
        path = self.folder / SWEEP_FILE
        if self.planned:
            self.planned.tidy(refused=self.refused or not os.path.lexists(path))
        if self.aside and (self.refused or not os.path.lexists(path)):
            with suppress(FileNotFoundError):  # another process had the same in hand
                self.aside.replace(path)
        elif self.aside:
            _remove([self.aside])
        elif self.refused and self.is_first:
            _remove([path])
        _remove([], *(p for p in (self.folder, *self.folder.parents) if p not in self.found))

    def _note(self, name: str, *, is_sweep: bool, before: tuple[Path, ...] | None) -> None:
        self.folder, self.is_sweep = Path(name).absolute(), is_sweep
        self.found = there_above(self.folder) if before is None else before


_present: ContextVar[Before] = ContextVar("before")


@contextmanager
def kept_before() -> Iterator[Before]:
    """What is there before the launch of a run or sweep; tidied at the end."""
    before = Before()
    token = _present.set(before)
    try:
        yield before
    finally:
        _present.reset(token)
        before.tidy()


def before() -> Before:
    """What ``hydra.callbacks`` names: Hydra calls it and hands nothing over, so the launch's own is looked up here.

    In a process that a launcher started, where Hydra has a job only and makes no folder, it is an idle one.
    """
    return _present.get(None) or Before()


def there_above(name: str | Path) -> tuple[Path, ...]:
    """Which of a folder and those above it are there."""
    folder = Path(name).absolute()
    return tuple(p for p in (folder, *folder.parents) if p.exists())


def own_folder(config: DictConfig, kind: str) -> bool:
    """Make the folder of a run or sweep that is named after the time, and number it if another began in that second.

    Returns whether it was made.
    """
    pattern = OmegaConf.to_container(config.hydra[kind], resolve=False)
    if not isinstance(pattern, dict) or "${now:" not in str(pattern["dir"]):
        return False
    name = str(config.hydra[kind].dir)
    try:
        made = next(path for path in _numbered(name) if _is_made(path))
    except OSError as error:
        raise BlockedError from error
    if str(made) != name:
        override = f"hydra.{kind}.dir={hydra_value(str(made))}"  # for the jobs of a sweep, which are composed anew
        with read_write(config), open_dict(config):
            config.hydra[kind].dir = str(made)
            config.hydra.overrides.hydra.append(override)
    return True


def _numbered(name: str) -> Iterator[Path]:
    yield Path(name)
    yield from (Path(f"{name}-{number}") for number in count(2))


def _is_made(path: Path) -> bool:
    """Make a folder; returns whether it was not there. A job that was refused may remove those above it meanwhile."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            return False
        except FileNotFoundError:
            continue
        return True


@contextmanager
def claimed(folder: Path, config: Any) -> Iterator[None]:
    """Hold a run folder and write into ``.hydra`` how the job was composed, as Hydra does, but only once it is ours.

    That is taken back unless there is a record at the end, or the reason why there is none.

    Raises
    ------
    UserError
        If another process holds it, or a part of it is a link; what is there stays as it is.
    """
    if (folder / COMPOSED).is_symlink():
        raise UserError(f"{folder / COMPOSED} is a link to another place; remove it")
    was_there = {name: (folder / name).exists() for name in (COMPOSED, "checkpoints")}
    with locked(folder):
        try:
            if not (folder / FILE_NAME).exists():
                (folder / FAILURE_FILE).unlink(missing_ok=True)
                _write_composed(folder / COMPOSED, config)
            yield
        finally:
            if not any((folder / name).exists() for name in (FILE_NAME, FAILURE_FILE)):
                if not was_there[COMPOSED]:
                    _remove((folder / COMPOSED).glob("*.yaml"), folder / COMPOSED)
                if not was_there["checkpoints"]:
                    _remove([folder / "checkpoints/.lock"], folder / "checkpoints")


def _write_composed(folder: Path, config: Any) -> None:
    hydra = HydraConfig.instance().cfg
    files = {"config": config, "hydra": hydra, "overrides": HydraConfig.get().overrides.task}
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        write_whole(folder / f"{name}.yaml", OmegaConf.to_yaml(content).encode())


def _is_file(path: Path) -> bool:
    """Whether it is there and no folder; a link is one by itself, wherever it leads."""
    return os.path.lexists(path) and (path.is_symlink() or not path.is_dir())


def _remove(files: Iterable[Path], *folders: Path) -> None:
    """Remove files, then folders as far as they are empty and let themselves be removed."""
    with suppress(OSError):
        for file in files:
            file.unlink()
        for folder in folders:
            folder.rmdir()
