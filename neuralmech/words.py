"""Commands and messages for people: paths quoted for the shell and for Hydra, the folder they are typed in, errors."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Sequence
from dataclasses import MISSING, fields
from html import escape
from pathlib import Path

_PLAIN = re.compile(r"(?!(true|false|null|nan|inf)$)[A-Za-z_./][A-Za-z0-9_./-]*", re.IGNORECASE)  # to Hydra
_given_in: list[Path] = []  # one or none
_in_full: list[bool] = [False]


def set_given_in(folder: str | Path, *, works_elsewhere: bool = False) -> None:
    """Remember where the command was given.

    A job that works in another folder (``hydra.job.chdir``) names folders in full: where its own messages are read,
    and by whom, a relative one may mean either.
    """
    _given_in[:] = [Path(folder)]
    _in_full[:] = [works_elsewhere]


def given_in() -> Path:
    """The folder that the command was given in."""
    return _given_in[0] if _given_in else Path.cwd()


def short(path: str | Path) -> str:
    """Path relative to the folder that the command was given in, where it lies in there; in full if jobs leave it."""
    if _in_full[0]:
        return str(Path(path).resolve())
    try:
        return str(Path(path).resolve().relative_to(given_in().resolve()))
    except ValueError:
        return str(path)


def folder_word(path: str | Path) -> str:
    """A path as a word of a shell command, which is taken for no ``key=value`` and no flag.

    Examples
    --------
    >>> [folder_word(p) for p in ("outputs/run", "a b", "lr=0.1,m=0", "/tmp/lr=1", "-x")]
    ['outputs/run', "'a b'", './lr=0.1,m=0', '/tmp/lr=1', './-x']
    """
    text = str(path)
    odd = "=" in text or text.startswith(("-", "+", "~"))
    return shlex.quote(f"./{text}" if odd and not is_plainly_path(text) else text)


def is_plainly_path(word: str) -> bool:
    """Whether a word begins as a path and as nothing else."""
    return word.startswith(("/", "./", "../"))


def override_word(key: str, value: str | Path) -> str:
    r"""``key=value`` as a word of a shell command, quoted for Hydra first.

    Examples
    --------
    >>> print(override_word("resume", "outputs/run"), override_word("resume", "a b"))
    resume=outputs/run 'resume='"'"'a b'"'"''
    """
    return shlex.quote(f"{key}={hydra_value(str(value))}")


def hydra_value(text: str) -> str:
    r"""Text as a value of Hydra's override grammar, quoted where it has to be.

    Examples
    --------
    >>> print(*map(hydra_value, ("outputs/run", "lr=0.1,m=0", "it's", "1e3")))
    outputs/run 'lr=0.1,m=0' 'it\'s' '1e3'
    """
    if _PLAIN.fullmatch(text):
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (r"\'" if m[2] else ""), text).replace("${", r"\${")
    return f"'{escaped}'"


def own_words(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Of each of several jobs the words that not all have, in a line.

    Examples
    --------
    >>> own_words([["model=mlp", "seed=0"], ["model=mlp", "seed=1"]]), own_words([["seed=0"]])
    (['seed=0', 'seed=1'], ['seed=0'])
    """
    common = set(jobs[0]).intersection(*jobs[1:]) if len(jobs) > 1 else set()
    return [" ".join(word for word in words if word not in common) for words in jobs]


def first_line(error: BaseException) -> str:
    """First line of an error's message, or its kind."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)  # its str() has quotes
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def kind_and_line(error: BaseException) -> str:
    """An error that nobody foresaw in one line.

    Examples
    --------
    >>> kind_and_line(KeyError("missing")), kind_and_line(ValueError())
    ('KeyError: missing', 'ValueError')
    """
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


def byte_count(count: float) -> str:
    """A number of bytes for people, in powers of ten.

    Examples
    --------
    >>> byte_count(1234567), byte_count(999_600)
    ('1.23 MB', '1 MB')
    """
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if count < 999.5:  # what three digits still show
            break
        count, unit = count / 1000, larger
    return f"{count:.3g} {unit}"


def printable(text: str) -> str:
    r"""Text without characters that steer a terminal.

    Examples
    --------
    >>> printable("conv\x1b[2J -> fc")
    'conv?[2J -> fc'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


class Differing:
    """For a dataclass of options, ``@dataclass(repr=False)``, that shows what differs from its defaults.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(repr=False)
    ... class Two(Differing):
    ...     a: int = 1
    ...     b: int = 2
    >>> Two(b=3), Two()
    (Two(b=3), Two())
    """

    def __repr__(self) -> str:
        shown = []
        for field in fields(self):  # type: ignore[arg-type]
            value, default = getattr(self, field.name), field.default
            if default is MISSING and field.default_factory is not MISSING:
                default = field.default_factory()
            if repr(value) != repr(default):  # equality of arrays is an array
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


MAX_ROWS = 30  # of a table in a notebook


def table_of(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A small table in HTML, for notebooks; of many rows the first.

    Examples
    --------
    >>> table_of(["n"], [["<1>"]], "one")
    '<p>one</p><table><tr><th>n</th></tr><tr><td>&lt;1&gt;</td></tr></table>'
    """
    lines = [f"<tr>{''.join(f'<th>{escape(h)}</th>' for h in headings)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows[:MAX_ROWS]]
    more = f"<p>… and {len(rows) - MAX_ROWS:,} more</p>" if len(rows) > MAX_ROWS else ""
    return f"<p>{escape(caption.strip('<>'))}</p><table>{''.join(lines)}</table>{more}"


def signal_name(number: int) -> str:
    """What a signal is called, also one that has no name here.

    Examples
    --------
    >>> signal_name(9), signal_name(120)
    ('SIGKILL', 'signal 120')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
