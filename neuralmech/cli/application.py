"""A command as a Hydra application: its config tree, its words, its errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from neuralmech.errors import RunError, UserError
from neuralmech.record import RecordError

PROGRAM = "neuralmech"


def config_folder() -> Path:
    """The shipped config tree: the repository's own ``conf/`` if it stands beside the package, else the wheel's."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "conf"
    return beside if (beside / "train.yaml").is_file() else package / "conf"


def launch(
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

    from neuralmech.cli.hydra_errors import explain

    failures: list[Exception] = []

    def job(raw: Any) -> None:
        try:
            task(raw)
        except (UserError, RecordError, RunError, MemoryError, OSError) as error:
            failures.append(error)

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise instead of printing and exiting
    overrides = overrides_in(words, config_name)
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
        print(f"{PROGRAM}: {one_line(failure)}", file=sys.stderr)
    if failures:
        raise failures[0]


def one_line(error: object) -> str:
    """An error in one line; what it quotes of a record does not steer the terminal."""
    from neuralmech.record.safety import printable  # takes h5py along

    return printable(" ".join(str(error).split()))


def overrides_in(words: list[str], command: str) -> list[str]:
    """Return the words that are neither flags nor their values."""
    from hydra.main import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; see `{PROGRAM} {command} --help`")

    parser = get_args_parser()
    parser.error = refuse
    return parser.parse_intermixed_args(words).overrides
