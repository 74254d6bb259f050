"""The command line: ``neuralmech train | analyze | symmetries | verify``.

The only module that imports Hydra. Each command is a Hydra application of its own; `main` picks one and turns
errors into one line and an exit code: 0 done, 2 wrong usage or config, 1 failure while running.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from neuralmech.errors import RunError, UserError
from neuralmech.record import FAILURE_FILE, FILE_NAME, RecordError

PROGRAM = "neuralmech"
COMMANDS = {
    "train": "train a network and record its charges at every step",
    "analyze": "compare records with theory: tables and figures",
    "symmetries": "show which charges a model has, without training",
    "verify": "check every claimed symmetry on a real batch",
}
HELP = """neuralmech: predict how symmetric combinations of a network's parameters move, and measure how well.

Usage: neuralmech COMMAND [arguments]

Commands
{commands}

neuralmech COMMAND --help     options of a command
neuralmech --version          version
eval "$(neuralmech --shell-completion install=bash)"    completion for bash (or zsh, fish)

Start with: neuralmech train experiment=first_light"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _dispatch(words)
    except (UserError, RecordError) as error:
        _fail(error, 2)
    except RunError as error:
        _fail(error, 1)
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone (`neuralmech … | head`)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        where = error.filename or "a file"
        code = 1 if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) else 2
        _fail(f"{where} cannot be used ({error.strerror or error}); choose another path or make room", code)
    except KeyboardInterrupt as error:
        rows, number = getattr(error, "rows", None), getattr(error, "signal", signal.SIGINT)
        words = ["terminated" if number == signal.SIGTERM else "interrupted"]
        words += [f"the record holds {rows} steps"] if rows is not None else []
        words += [f"{PROGRAM} train resume=RUN continues"] if getattr(error, "resumable", False) else []
        _fail("; ".join(words), 128 + number)


def _fail(message: object, code: int) -> NoReturn:
    print(f"{PROGRAM}: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(code)


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        listing = "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())
        print(HELP.format(commands=listing))
    elif words[0] in ("--version", "-V"):
        from neuralmech import __version__

        print(f"{PROGRAM} {__version__}")
    elif words[0] in ("-sc", "--shell-completion"):
        _complete(words)
    elif words[0] in COMMANDS:
        sys.path.insert(0, str(Path.cwd()))  # a user's own model beside the shell, as model._target_=my_file.MyNet
        {"train": _train, "analyze": _analyze, "symmetries": _symmetries, "verify": _verify}[words[0]](words[1:])
    else:
        from neuralmech.checks import check_choice

        check_choice("command", words[0], COMMANDS)


def config_folder() -> Path:
    """The shipped config tree: the repository's own ``conf/`` if it stands beside the package, else the wheel's."""
    package = Path(__file__).resolve().parent
    beside = package.parent / "conf"
    return beside if (beside / "train.yaml").is_file() else package / "conf"


def _hydra(
    task: Callable[[Any], None], config_name: str, words: list[str], last: Callable[[], object] | None = None
) -> None:
    """Run `task` as a Hydra application on `words`; configuration errors become a `UserError`.

    A job's own errors are kept from Hydra, which would print a preamble and end a sweep at the first: the
    other jobs of a sweep go on, and the first error is raised at the end.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from neuralmech.hydra_errors import explain

    failures: list[Exception] = []

    def job(raw: Any) -> None:
        try:
            task(raw)
        except (UserError, RecordError, RunError) as error:
            failures.append(error)

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise instead of printing and exiting
    overrides = _overrides(words, config_name)
    # Hydra wants all overrides side by side; people put flags between them.
    sys.argv = [PROGRAM, *(w for w in words if w not in overrides), *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)(job)()
    except YAMLError as error:
        raise UserError(f"a config file is no valid YAML: {error}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, f"{PROGRAM} {config_name}")) from error
    if last:
        last()
    for failure in failures[1:]:
        print(f"{PROGRAM}: {failure}", file=sys.stderr)
    if failures:
        raise failures[0]


def _overrides(words: list[str], command: str) -> list[str]:
    """Return the words that are neither flags nor their values."""
    from hydra.main import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; see `{PROGRAM} {command} --help`")

    parser = get_args_parser()
    parser.error = refuse
    return parser.parse_intermixed_args(words).overrides


def _complete(words: list[str]) -> None:
    """Shell completion: first the command, then whatever Hydra offers for it."""
    if len(words) < 2:
        raise UserError("--shell-completion needs install=SHELL; SHELL is bash, zsh or fish")
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()[1:]
    command = typed[0] if typed and typed[0] in COMMANDS and (len(typed) > 1 or line.endswith(" ")) else None
    if any(w.startswith("query=") for w in words) and command is None:
        print(" ".join(c for c in COMMANDS if c.startswith(typed[0] if typed else "")))
        return
    if command:
        program, _, rest = line.partition(command)
        os.environ["COMP_LINE"] = program.rstrip() + rest
    _hydra(_nothing, command or "train", words)


def _nothing(_: Any) -> None:
    """Task of an application that only completes words."""


def _train(words: list[str]) -> None:
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

    _hydra(task, "train", words, lambda: [print(f"Next: {PROGRAM} analyze {sweep}") for sweep in sweeps[-1:]])


def _leave_reason(folder: Path, error: Exception) -> None:
    """Say beside a sweep's other jobs why one has no record, so that `analyze` can."""
    if not (folder / FILE_NAME).exists() and folder.is_dir():
        kind = "" if isinstance(error, (UserError, RecordError, RunError)) else f"{type(error).__name__}: "
        (folder / FAILURE_FILE).write_text(f"{kind}{error}\n", encoding="utf-8")


def _show_result(result: Any, folder: Path) -> None:
    print(f"{result.rows} steps recorded; held out: loss {result.loss:.4f}, accuracy {result.accuracy:.1%}")
    print(f"Run folder: {_short(folder)}")


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

    from neuralmech.hydra_errors import explain

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


def _refuse_existing(words: list[str]) -> None:
    """Refuse a folder that holds a record before Hydra writes its config there."""
    for word in words:
        key, _, value = word.partition("=")
        if key == "hydra.run.dir" and (Path(value) / FILE_NAME).exists():
            raise RecordError(f"{value} holds a record already; choose another run folder with hydra.run.dir=")


def _symmetries(words: list[str]) -> None:
    as_json = "--json" in words

    def task(raw: Any) -> None:
        from neuralmech.compare.terminal import show_symmetries
        from neuralmech.config import resolve
        from neuralmech.train.setup import prepare, summary

        found = summary(prepare(resolve(raw)))
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            show_symmetries(**found)

    _hydra(task, "symmetries", [w for w in words if w != "--json"])


def _verify(words: list[str]) -> None:
    runs = [w for w in _overrides(words, "verify") if "=" not in w]
    if len(runs) > 1:
        raise UserError("verify takes one run folder")

    def task(raw: Any) -> None:
        from omegaconf import OmegaConf

        from neuralmech.compare.terminal import show_verification
        from neuralmech.train.check import verify_fresh, verify_run

        own = OmegaConf.create({k: v for k, v in raw.items() if k not in ("verify", "checkpoint")})
        sample = int(raw.verify.sample)
        targets = {key: raw[key]["_target_"] for key in ("model", "data") if "_target_" in raw[key]}
        report = verify_run(Path(runs[0]), raw.checkpoint, sample, targets) if runs else verify_fresh(own, sample)
        show_verification(report.table)
        failed = report.table[~report.table["holds"]] if len(report.table) else report.table
        if len(failed):
            raise RunError(f"{len(failed)} claims fail: {', '.join(failed['site'])}; please report the model")

    _hydra(task, "verify", [w for w in words if w not in runs])


def _analyze(words: list[str]) -> None:
    runs = [w for w in _overrides(words, "analyze") if Path(w).exists() or "=" not in w]
    rest = [w for w in words if w not in runs]
    if not runs and not any(w.startswith("-") for w in rest):
        raise UserError("analyze needs a run folder: neuralmech analyze RUN [RUN ...]")

    def task(raw: Any) -> None:
        from neuralmech.compare.analysis import options
        from neuralmech.compare.files import analyze_folder
        from neuralmech.compare.live import follow
        from neuralmech.compare.runs import find_runs
        from neuralmech.compare.terminal import show_analysis

        chosen = options(dict(raw))
        for found in [find_runs(Path(run), live=chosen.live) for run in runs]:  # all are there before the first
            if chosen.live:
                follow(found.folder, chosen, show_analysis)
            else:
                show_analysis(analyze_folder(found.folder, chosen))

    _hydra(task, "analyze", rest)


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


def _short(path: Path) -> str:
    """Path relative to the working directory where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
