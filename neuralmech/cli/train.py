"""``neuralmech train``: a run, a sweep, or the continuation of a run."""

from __future__ import annotations

import math
import shlex
import sys
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from neuralmech.cli.application import PROGRAM, Outcome, RefusedError, launch
from neuralmech.cli.ranks import placed, present, processes, trained
from neuralmech.errors import RunError, UserError
from neuralmech.imports import importing
from neuralmech.record import FAILURE_FILE, FILE_NAME, RecordError
from neuralmech.record.files import write_whole
from neuralmech.record.schema import held_out
from neuralmech.training.process import Interrupted
from neuralmech.words import folder_word, override_word, short

if TYPE_CHECKING:
    from neuralmech.cli.folders import Before


def run(words: list[str]) -> None:
    """Train as the words say, if need be with the other processes that torchrun started."""
    if (place := placed()) is not None and present() is None:
        trained(place, words, run)
    elif any(w.lstrip("+").startswith("resume=") for w in words):
        _resume(words)
    else:
        _launch(words)


def _launch(words: list[str]) -> None:
    """A run or a sweep as a Hydra application."""
    from neuralmech.cli.folders import kept_before

    with kept_before() as before:
        _launch_after(before, words)


def _launch_after(before: Before, words: list[str]) -> None:
    from neuralmech.cli.pool import register
    from neuralmech.sweeps.pool import none_left_open

    start = monotonic()
    begun: list[object] = []  # under a launcher that runs the jobs in other processes it is filled at the end

    def last(outcomes: list[Outcome]) -> None:
        begun.extend(outcomes)
        before.refused |= any(outcome.refused for outcome in outcomes)
        if before.is_sweep and before.folder and any(outcome.error is None for outcome in outcomes):
            _show_next(before.folder)

    register()
    try:
        with none_left_open():
            launch(partial(_task, before, begun, start), "train", words, last)
    except KeyboardInterrupt as error:
        raise _with_remedy(error, before.folder, words if before.is_sweep else None) from None
    except UserError:
        before.refused |= not begun
        raise
    except OSError as error:
        before.refused |= not begun
        if error.filename is not None or before.folder is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), short(before.folder)) from error  # Hydra's own file


def _task(before: Before, begun: list[object], start: float, raw: Any) -> float:
    """Train as a composed config says, if need be in a process that a launcher started and sent this to."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from neuralmech.cli.sweeping import swept

    folder = Path(HydraConfig.get().runtime.output_dir)
    begun.append(folder)
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if present() is not None and HydraConfig.get().job.chdir:
        before.refused = True
        raise UserError(
            "hydra.job.chdir=true moves one of the processes that torchrun started, not the others; use false"
        )
    if in_sweep:
        _show_job(HydraConfig.get(), before, monotonic() - start)
    work = partial(_job, raw, folder, in_sweep=in_sweep)
    try:
        result = swept(raw, folder, work) if in_sweep else work()
    except RefusedError:
        before.refused = True
        raise
    _show_result(result, folder)
    if not in_sweep:
        _show_next(folder)
    return _objective(result, folder)


def _job(raw: Any, folder: Path, *, in_sweep: bool) -> Any:
    """Train in a new folder; a job of a sweep that is there already is continued."""
    from neuralmech.cli.folders import claimed

    is_ours = False
    try:
        if in_sweep and folder.is_symlink():  # the sweep may come from somewhere else
            raise UserError(
                f"{folder} is a link to another place; remove it, or continue with resume= what it points to"
            )
        if in_sweep and (folder / FILE_NAME).exists():
            return _continued(raw, folder)
        with claimed(folder, raw):
            is_ours = True
            return _train_new(raw, folder, in_sweep=in_sweep)
    except UserError as error:
        if is_ours:
            raise
        raise RefusedError(str(error)) from error


def _continued(raw: Any, folder: Path) -> Any:
    """Go on with a job of a sweep that is there already."""
    from neuralmech.config import resolve
    from neuralmech.training.recorded import AnotherRunError, as_changes

    changes = as_changes(resolve(raw))
    with importing("torch", for_good=True):  # torch; not before the options are right
        from neuralmech.training.loop import resume

    try:
        return resume(folder, changes)
    except AnotherRunError as error:
        raise UserError(f"{error} with another hydra.sweep.dir=") from error


def _train_new(raw: Any, folder: Path, *, in_sweep: bool) -> Any:
    """Train in a folder that is this process's."""
    from neuralmech.config import resolve

    try:
        if (folder / FILE_NAME).exists():
            raise RecordError(
                f"{short(folder)} holds a record already; choose another run folder with hydra.run.dir=, "
                f"or continue it with {override_word('resume', short(folder))}"
            )
        config = resolve(raw)
        with importing("torch", for_good=True):  # torch; not before the options are right
            from neuralmech.training.loop import train_in

        return train_in(folder, config, processes())
    except Exception as error:
        if in_sweep and not (folder / FILE_NAME).exists():
            _leave_reason(folder, error)
        raise


def _leave_reason(folder: Path, error: Exception) -> None:
    """Say beside a sweep's other jobs why one has no record, so that `analyze` can."""
    kind = "" if isinstance(error, (UserError, RecordError, RunError)) else f"{type(error).__name__}: "
    write_whole(folder / FAILURE_FILE, f"{kind}{error}\n".encode())


def _with_remedy(error: KeyboardInterrupt, folder: Path | None, sweep: list[str] | None = None) -> Interrupted:
    """The interruption with the command that goes on: with the run in a folder, or with the `sweep` of these words."""
    stopped = error if isinstance(error, Interrupted) else Interrupted(None)
    if sweep and folder:
        kept = [w for w in sweep if not w.startswith("hydra.sweep.dir=")]
        again = f"{shlex.join([PROGRAM, 'train', *kept])} {override_word('hydra.sweep.dir', short(folder))}"
        stopped.remedy = f"{again} goes on with this job and those after it"
    elif folder and stopped.resumable:
        stopped.remedy = f"{PROGRAM} train {override_word('resume', short(folder))} continues"
    return stopped


def _resume(words: list[str]) -> None:
    """Continue a run in its own folder, without a Hydra job: the config is that of the record."""
    literal = [w for w in words if _is_literal(w)]
    changes = _changes([w for w in words if w not in literal])
    folder = Path(literal[-1].partition("=")[2]) if literal else Path(str(changes.pop("resume"))).expanduser()
    if not (folder / FILE_NAME).is_file():
        raise RecordError(f"{folder} holds no record; give resume= a run folder that `{PROGRAM} train` wrote")

    with importing("torch", for_good=True):
        from neuralmech.training.loop import resume

    try:
        _show_result(resume(folder, changes, processes()), folder)
    except KeyboardInterrupt as error:
        raise _with_remedy(error, folder) from None
    _show_next(folder)


def _is_literal(word: str) -> bool:
    """Whether a word names a run to resume as it stands, whatever Hydra would make of its characters."""
    key, _, value = word.lstrip("+").partition("=")
    return key == "resume" and (Path(value) / FILE_NAME).is_file()


def _changes(words: list[str]) -> dict[str, Any]:
    """Dotted keys and values of the words of ``train resume=RUN``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from neuralmech.cli.configs import explain

    if flags := [w for w in words if w.startswith("-")]:
        raise UserError(f"{flags[0]} does not go with resume=, which takes key=value only")
    try:
        parsed = OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise UserError(explain(error, f"{PROGRAM} train")) from error
    for override, word in zip(parsed, words, strict=True):
        if override.is_sweep_override():
            raise UserError(f"{word} names several values, which does not go with resume=; give one")
    changes = {o.key_or_group.replace("/", "."): o.value() for o in parsed}
    for key in changes:
        if key == "experiment" or key.startswith("hydra."):
            raise UserError(f"{key} does not go with resume=, which continues the run in its own folder as it was")
    return changes


def _show_job(hydra: Any, before: Before, elapsed: float) -> None:
    """Say which job of a sweep begins and, on a terminal, how far the sweep is."""
    number = int(hydra.job.num)
    own = [word for word in hydra.overrides.task if word.lstrip("+").partition("=")[0] in before.swept]
    of = f" ({number + 1} of {before.jobs})" if before.jobs else ""  # by its number, as its folder and its errors are
    print(f"Job {number}{of}: {' '.join(own or hydra.overrides.task)}", flush=True)
    if before.jobs and sys.stderr.isatty():
        from tqdm import tqdm

        print(tqdm.format_meter(number, before.jobs, elapsed, unit="job", ncols=80), file=sys.stderr)


def _show_result(result: Any, folder: Path) -> None:
    print(f"{result.rows} steps recorded; {held_out(result.loss, result.accuracy)}")
    print(f"Run folder: {short(folder)}")


def _show_next(folder: Path) -> None:
    print(f"Next: {PROGRAM} analyze {folder_word(short(folder))}")


def _objective(result: Any, folder: Path) -> float:
    """What a sweeper that looks for the best job compares: the loss held out, or in training if nothing is."""
    if result.loss is not None and not math.isnan(result.loss):
        return float(result.loss)
    from neuralmech.record import open_record  # takes pandas along

    with open_record(folder) as record:
        return float(record.column("loss", slice(record.rows - 1, record.rows))[0])
