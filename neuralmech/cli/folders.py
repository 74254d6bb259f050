"""The folder of a run, from Hydra's making it to the record: what is written there first, and taken back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from neuralmech.record import FAILURE_FILE, FILE_NAME
from neuralmech.train.lock import locked

COMPOSED = ".hydra"


class Before(Callback):
    """Notes what is there before Hydra makes the folder of a run or a sweep; ``hydra.callbacks`` names it.

    Attributes
    ----------
    folder
        Of the run or the sweep that this process started; None if another process did.
    is_sweep
        Which of them.
    found
        Those of it and the folders above it that were there.
    """

    folder: Path | None = None
    is_sweep: bool = False
    found: tuple[Path, ...] = ()

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """A single run."""
        self._note(config.hydra.run.dir, is_sweep=False)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """A sweep."""
        self._note(config.hydra.sweep.dir, is_sweep=True)

    @classmethod
    def tidy(cls) -> None:
        """Remove the folders that were made since, as far as they are empty."""
        if cls.folder is not None:
            _remove([], *(p for p in (cls.folder, *cls.folder.parents) if p not in cls.found))

    def _note(self, name: str, *, is_sweep: bool) -> None:
        folder = Path(name).absolute()
        Before.folder, Before.is_sweep = folder, is_sweep
        Before.found = tuple(p for p in (folder, *folder.parents) if p.exists())


@contextmanager
def claimed(folder: Path, config: Any) -> Iterator[None]:
    """Hold a run folder and write into ``.hydra`` how the job was composed, as Hydra does, but only once it is ours.

    That is taken back unless there is a record at the end, or the reason why there is none.

    Raises
    ------
    UserError
        If another process holds it; what is there stays as it is.
    """
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
        path = folder / f"{name}.yaml"
        try:
            path.write_text(OmegaConf.to_yaml(content), encoding="utf-8")
        except OSError as error:  # a full disk does not say of which file
            raise OSError(error.errno, error.strerror, str(path)) from error


def _remove(files: Iterable[Path], *folders: Path) -> None:
    """Remove files, then folders as far as they are empty and let themselves be removed."""
    with suppress(OSError):
        for file in files:
            file.unlink()
        for folder in folders:
            folder.rmdir()
