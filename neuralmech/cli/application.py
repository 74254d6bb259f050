"""A command as a Hydra application: its config tree, its words, its errors, and what became of its jobs."""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import Any, ClassVar, NoReturn, Self

from neuralmech.cli.output import never_fail
from neuralmech.errors import NotFiniteError, RunError, UserError
from neuralmech.record import RecordError
from neuralmech.words import is_plainly_path, own_words, printable, set_given_in

TOLD = (UserError, RecordError, RunError, MemoryError, OSError)  # what is said in one line


PROGRAM = "neuralmech"
LAUNCHERS = ("joblib", "submitit", "concurrent")
WITH_HELP = ("--help", "-h", "--multirun", "-m", "--resolve")  # flags that help is given without
FOR_HELP = ("hydra.mode=RUN", "hydra.run.dir=.", "hydra.output_subdir=null")  # nothing is written


def config_folder() -> Path:
    """The shipped config tree: the repository's own ``conf/`` if it stands beside the package, else the wheel's."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "conf"
    return beside if (beside / "train.yaml").is_file() else package / "conf"


def launch(
    task: Callable[[Any], Any],
    config_name: str,
    words: list[str],
    last: Callable[[list[Outcome]], object] | None = None,
) -> None:
    """Run `task` as a Hydra application on `words`; configuration errors become a `UserError`.

    A job's own errors are kept from Hydra, which would print a preamble and end a sweep at the first: the
    other jobs of a sweep go on, `last` is called with what became of all, and the first error is raised at the end.
    A sweeper that looks for the best job gets what `task` returns, infinity for a job whose loss was not finite, and
    NaN for one that failed otherwise.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from neuralmech.cli.configs import check_strays, explain, use_own_sources

    if not {"--help", "-h"}.isdisjoint(words):
        from neuralmech.cli.explained import show_help

        task, last = show_help, None
        words = [*(w for w in words if w not in WITH_HELP), *FOR_HELP]
    outcomes: list[Outcome] = []
    Outcome.arrived.clear()
    job = partial(_job, task, outcomes, os.getpid())
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise instead of printing and exiting
    overrides = overrides_in(words, config_name)
    # Hydra wants all overrides side by side; people put flags between them.
    use_own_sources()
    sys.argv = [PROGRAM, *(w for w in words if w not in overrides), *overrides]
    try:
        with _launchers_errors():
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)(job)()
    except YAMLError as error:
        raise UserError(f"a config file is no valid YAML: {error}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, f"{PROGRAM} {config_name}")) from error
    except BlockedError as error:
        raise error.__cause__ or error from None
    if {"--cfg", "-c"}.intersection(words):
        check_strays()
    outcomes += [Outcome.arrived[number] for number in sorted(Outcome.arrived)]
    if last:
        last(outcomes)
    _tell_failures(outcomes)


def _tell_failures(outcomes: list[Outcome]) -> None:
    """Raise what a run failed with; of a sweep say each job's words and cause, and exit with the first one's code."""
    codes = []
    for outcome, own in zip(outcomes, own_words([outcome.words for outcome in outcomes]), strict=True):
        if outcome.error is None:
            continue
        if not outcome.words:
            raise outcome.error
        text, code = told(outcome.error)
        print(f"{PROGRAM}: job {outcome.number}{f' ({own})' if own else ''}: {one_line(text)}", file=sys.stderr)
        codes.append(code)
    if codes:
        sys.exit(codes[0])


def told(error: Exception) -> tuple[str, int]:
    """What to say of an error that people can do something about, and the exit code: 2 wrong usage, 1 failure."""
    if isinstance(error, OSError):
        where = error.filename or "a file"
        is_full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        text = f"{where} cannot be used ({error.strerror or error}); choose another path or make room"
        return text, 1 if is_full else 2
    if isinstance(error, MemoryError):
        what = f" ({error})" if str(error) else ""
        return f"memory is short{what}; free some, or take a smaller model, batch, record or block=", 1
    return str(error), 1 if isinstance(error, RunError) else 2


def _job(task: Callable[[Any], Any], outcomes: list[Outcome], here: int, raw: Any) -> Outcome:
    outcome = _carry_out(task, raw, is_here=os.getpid() == here)
    outcomes.append(outcome)  # of a copy, in another process
    return outcome


def _carry_out(task: Callable[[Any], Any], raw: Any, *, is_here: bool) -> Outcome:
    """Do a job, if need be in a process that a launcher started."""
    if is_here:
        return _outcome(task, raw)
    never_fail()
    return _outcome(task, raw)


def _outcome(task: Callable[[Any], Any], raw: Any) -> Outcome:
    """What becomes of a job, or of its config files."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from neuralmech.cli.configs import check_effect

    hydra = HydraConfig.get()
    in_sweep = hydra.mode == RunMode.MULTIRUN
    number, words = (hydra.job.num, tuple(hydra.overrides.task)) if in_sweep else (0, ())
    set_given_in(hydra.runtime.cwd, works_elsewhere=bool(hydra.job.chdir))
    try:
        check_effect(raw)
    except UserError as error:
        return Outcome(number, error, refused=True, words=words)
    try:
        return Outcome(number, value=task(raw), words=words)
    except TOLD as error:
        value = math.inf if isinstance(error, NotFiniteError) else None
        return Outcome(number, error, refused=isinstance(error, RefusedError), value=value, words=words)


@contextmanager
def _launchers_errors() -> Iterator[None]:
    """What a launcher says of a job that it could not begin, or whose process is gone, becomes a line."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if _package(type(error).__module__) in LAUNCHERS:
            raise RunError(
                f"hydra/launcher: a job could not be begun or its process ended without a word ({reason}); "
                "the same command with the same hydra.sweep.dir= goes on"
            ) from error
        if _package(_module_of(error)) in LAUNCHERS and not isinstance(error, TOLD):
            raise UserError(
                f"hydra/launcher: no job can be begun ({reason}); take another one, such as hydra/launcher=pool"
            ) from error
        raise


def _package(module: str) -> str:
    return module.partition(".")[0]


def _module_of(error: BaseException) -> str:
    """Name of the module whose code raised an error."""
    found = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return str(found[-1]) if found else ""


def run_folders(words: list[str], command: str, is_run: Callable[[Path], bool]) -> list[str]:
    """Return the words that are paths: as they begin, as they have no ``=``, or as there is a run of that name."""
    found = overrides_in(words, command)
    return [w for w in found if is_plainly_path(w) or "=" not in w or is_run(Path(w))]


def overrides_in(words: list[str], command: str) -> list[str]:
    """Return the words that are neither flags nor their values."""
    from hydra.main import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; see `{PROGRAM} {command} --help`")

    parser = get_args_parser()
    parser.error = refuse
    return parser.parse_intermixed_args(words).overrides


def one_line(error: object) -> str:
    """An error in one line; what it quotes of a record does not steer the terminal."""
    return printable(" ".join(str(error).split()))


class RefusedError(UserError):
    """A job that is not taken up, because of what its folder holds or who has it: nor is the sweep that it is of."""


class BlockedError(BaseException):
    """What Hydra would make a warning of if it were an `Exception`; the cause is what is wrong."""


class Outcome(float):
    """What a job of a sweep gives back: its error, if it had one, and whether that refused the sweep as a whole.

    It is a number for a sweeper that looks for the best job.

    A launcher that runs jobs in other processes, or on other computers, brings the outcome to the one that the user
    looks at, and there Hydra drops it. So it leaves word where it is unpickled.

    Attributes
    ----------
    arrived
        Outcomes from elsewhere, by the number of their job.
    """

    arrived: ClassVar[dict[int, Outcome]] = {}

    number: int
    error: Exception | None
    refused: bool
    words: tuple[str, ...]

    def __new__(
        cls,
        number: int,
        error: Exception | None = None,
        *,
        refused: bool = False,
        value: float | None = None,
        words: tuple[str, ...] = (),
    ) -> Self:
        """Make one; `value` is the number, NaN if there is none, `words` those of a job of a sweep."""
        self = super().__new__(cls, math.nan if value is None else value)
        self.number, self.error, self.refused, self.words = number, error, refused, words
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how it is unpickled."""
        return _arrive, (self.number, self.error, self.refused, float(self), self.words)


def _arrive(number: int, error: Exception | None, refused: bool, value: float, words: tuple[str, ...]) -> Outcome:
    Outcome.arrived[number] = Outcome(number, error, refused=refused, value=value, words=words)
    return Outcome.arrived[number]
