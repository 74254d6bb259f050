"""A job of a sweep: whether it is to be done, and its line in the sweep's manifest, under every launcher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from neuralmech.cli.application import RefusedError
from neuralmech.errors import RunError, UserError
from neuralmech.record import FILE_NAME, RecordError
from neuralmech.sweeps.manifest import Entry, Manifest, this_process
from neuralmech.words import kind_and_line


class FailedBeforeError(RunError):
    """A job that failed when the sweep was carried out before, and is not tried again."""


@dataclass
class Planned:
    """A sweep's manifest as it is before and after the jobs, in the process that launches them."""

    manifest: Manifest
    before: dict[int, Entry] = field(default_factory=dict)

    @classmethod
    def of(cls, config: DictConfig, jobs: list[list[str]]) -> Planned:
        """Enter the jobs that a composed sweep is going to have, as far as they are known."""
        planned = cls(Manifest(Path(config.hydra.sweep.dir).absolute()))
        planned.before = planned.manifest.read()
        planned.manifest.plan(dict(enumerate(jobs)), this_process())
        return planned

    def tidy(self, *, refused: bool) -> None:
        """At the end: of a sweep that was not taken up, nothing stays that was not begun."""
        if refused:
            self.manifest.take_back(self.before)


def jobs_of(config: DictConfig) -> tuple[list[list[str]] | None, tuple[str, ...]]:
    """Words of each job of a sweep, None where only its sweeper knows them, and keys in which they differ."""
    sweeper = config.hydra.sweeper
    words = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*words, *config.hydra.overrides.task])
    swept = tuple(override.key_or_group for override in parsed if override.is_sweep_override())
    if not str(sweeper["_target_"]).endswith(".BasicSweeper"):
        return None, swept
    try:
        return [list(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch], swept
    except HydraException:  # a pattern, such as model=glob(*), of which only the sweeper knows the names
        return None, swept


def swept(raw: Any, folder: Path, work: Callable[[], Any]) -> Any:
    """Do a job of a sweep, unless it is done or failed before; its result.

    Raises
    ------
    FailedBeforeError
        If it failed before, and is not to be tried again.
    """
    retry = raw.get("sweep", {}).get("retry", False)
    if not isinstance(retry, bool):
        raise UserError(f"sweep.retry={retry} must be true or false")
    hydra = HydraConfig.get()
    manifest, words = Manifest(Path(hydra.sweep.dir).absolute()), list(hydra.overrides.task)
    fresh = Entry(int(hydra.job.num), folder=str(hydra.sweep.subdir))
    manifest.plan({fresh.number: words})
    entry = replace(manifest.read()[fresh.number], folder=fresh.folder)
    if found := _over(raw, folder):
        manifest.change(lambda jobs: jobs | {fresh.number: replace(entry, state="done", error=None, process=None)})
        return found
    if entry.state == "failed" and not retry:
        raise FailedBeforeError(f"failed before, and sweep.retry=true tries it again: {entry.error}")
    return _noted(manifest, entry, work)


def _over(raw: Any, folder: Path) -> Any:
    """Result of a job that is done; None if it is not, or somebody else is asked to say what is wrong with it."""
    if folder.is_symlink() or not (folder / FILE_NAME).is_file():
        return None
    from neuralmech.config import resolve
    from neuralmech.training.finished import finished
    from neuralmech.training.recorded import as_changes

    try:
        return finished(folder, as_changes(resolve(raw)))
    except UserError:
        return None


def _noted(manifest: Manifest, entry: Entry, work: Callable[[], Any]) -> Any:
    """Let a job be done, and note that it begins and how it ends."""
    start = monotonic()

    def note(state: str, error: str | None = None, process: str | None = None) -> None:
        spent = (entry.seconds or 0.0) + monotonic() - start
        seconds = entry.seconds if state in ("running", "refused") else round(spent, 3)
        manifest.change(
            lambda jobs: (
                jobs | {entry.number: replace(entry, state=state, error=error, process=process, seconds=seconds)}
            )
        )

    note("running", process=this_process())
    try:
        result = work()
    except RefusedError:
        note("refused")
        raise
    except KeyboardInterrupt:
        note("stopped")
        raise
    except BaseException as error:
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):  # handed in once more
            note("stopped")
            raise
        note("failed", described(error))
        raise
    note("done")
    return result


def described(error: BaseException) -> str:
    """An error in one line; what nobody foresaw with its kind and the place in the user's code."""
    if isinstance(error, UserError | RecordError | RunError):
        return " ".join(str(error).split())
    from neuralmech.errors import users_line

    place = users_line(error)
    return kind_and_line(error) + (f" at {place}" if place else "")
