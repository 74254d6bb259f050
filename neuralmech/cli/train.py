"""``neuralmech train``: a run, a sweep, or the continuation of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuralmech.cli.application import PROGRAM, launch
from neuralmech.errors import RunError, UserError
from neuralmech.record import FAILURE_FILE, FILE_NAME, RecordError


def run(words: list[str]) -> None:
    """Train as the words say."""
    if any(w.lstrip("+").startswith("resume=") for w in words):
        _resume(words)
        return
    _refuse_existing(words)
    sweeps: list[str] = []

    def task(raw: Any) -> None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from neuralmech.config import resolve
        from neuralmech.train.loop import train

        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            result = train(resolve(raw), folder)
        except BaseException as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN and isinstance(error, Exception):
                _leave_reason(folder, error)
            elif isinstance(error, (UserError, RecordError, KeyboardInterrupt)):
                _withdraw(folder)
            raise
        _show_result(result, folder)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            sweeps.append(HydraConfig.get().sweep.dir)
        else:
            print(f"Next: {PROGRAM} analyze {_short(folder)}")

    launch(task, "train", words, lambda: [print(f"Next: {PROGRAM} analyze {sweep}") for sweep in sweeps[-1:]])


def _refuse_existing(words: list[str]) -> None:
    """Refuse a folder that holds a record before Hydra writes its config there."""
    for word in words:
        key, _, value = word.partition("=")
        if key == "hydra.run.dir" and (Path(value) / FILE_NAME).exists():
            raise RecordError(f"{value} holds a record already; choose another run folder with hydra.run.dir=")


def _leave_reason(folder: Path, error: Exception) -> None:
    """Say beside a sweep's other jobs why one has no record, so that `analyze` can."""
    if not (folder / FILE_NAME).exists() and folder.is_dir():
        kind = "" if isinstance(error, (UserError, RecordError, RunError)) else f"{type(error).__name__}: "
        (folder / FAILURE_FILE).write_text(f"{kind}{error}\n", encoding="utf-8")


def _withdraw(folder: Path) -> None:
    """Remove what Hydra made for a run that never started; a folder with a record stays."""
    if not folder.is_dir() or any(p.name != ".hydra" for p in folder.iterdir()):
        return
    for file in (folder / ".hydra").glob("*.yaml"):
        file.unlink()
    if (folder / ".hydra").is_dir():
        (folder / ".hydra").rmdir()
    for empty in (folder, *folder.parents):
        if empty == Path.cwd() or not empty.is_relative_to(Path.cwd()) or any(empty.iterdir()):
            break
        empty.rmdir()


def _resume(words: list[str]) -> None:
    """Continue a run in its own folder, without a Hydra job: the config is that of the record."""
    changes = _changes(words)
    folder = Path(str(changes.pop("resume")))
    if not (folder / FILE_NAME).is_file():
        raise RecordError(f"{folder} holds no record; give resume= a run folder that `{PROGRAM} train` wrote")

    from neuralmech.train.loop import resume

    _show_result(resume(folder, changes), folder)
    print(f"Next: {PROGRAM} analyze {_short(folder)}")


def _changes(words: list[str]) -> dict[str, Any]:
    """Dotted keys and values of the words of ``train resume=RUN``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from neuralmech.cli.hydra_errors import explain

    if flags := [w for w in words if w.startswith("-")]:
        raise UserError(f"{flags[0]} does not go with resume=, which takes key=value only")
    try:
        parsed = OverridesParser.create().parse_overrides(words)
        changes = {o.key_or_group.replace("/", "."): o.value() for o in parsed}
    except HydraException as error:
        raise UserError(explain(error, f"{PROGRAM} train")) from error
    for key in changes:
        if key == "experiment" or key.startswith("hydra."):
            raise UserError(f"{key} does not go with resume=, which continues the run in its own folder as it was")
    return changes


def _show_result(result: Any, folder: Path) -> None:
    print(f"{result.rows} steps recorded; held out: loss {result.loss:.4f}, accuracy {result.accuracy:.1%}")
    print(f"Run folder: {_short(folder)}")


def _short(path: Path) -> str:
    """Path relative to the working directory where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
