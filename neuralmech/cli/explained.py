"""``--help`` of a command: every option with its value, and what its YAML file says of it in a comment."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from string import Template
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from neuralmech.cli.configs import as_value, read

WIDEST = 120  # columns of a terminal
KEYS = 36  # columns that keys and values may take before the comment goes below
# What commands that compose a run's config take of it; all of their own file besides.
TAKEN = {
    "symmetries": ("model", "data", "loss", "optim", "seed", "device"),
    "verify": ("model", "data", "loss", "train.precision", "seed", "device"),
}
HIDDEN = ("name", "_target_")  # what chooses the option of a group says these


def show_help(config: Any) -> None:
    """Task of a Hydra application: print the help of its command, with the values that the words give."""
    hydra = HydraConfig.get()
    command = str(hydra.job.config_name)
    listed = {"APP_CONFIG_GROUPS": _groups(command), "CONFIG": _options(config, command)}
    print(Template(hydra.help.template).safe_substitute(listed).rstrip())


def comments_in(text: str) -> tuple[str, dict[str, str]]:
    r"""What a YAML file says in comments: of itself, before its first key, and of its keys, beside them.

    Examples
    --------
    >>> comments_in("# A net.\nwidth: 8  # neurons\naugment:   # of images\n  crop: 0  # pixels; 0: none\n")
    ('A net.', {'width': 'neurons', 'augment': 'of images', 'augment.crop': 'pixels; 0: none'})
    """
    lines = text.splitlines()
    head = [line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines) if "@package" not in line]
    found = {name: _comment(lines, key, value) for name, key, value in _keys(yaml.compose(text, yaml.SafeLoader), "")}
    return " ".join(head), {name: comment for name, comment in found.items() if comment}


def _keys(node: Any, above: str) -> Iterator[tuple[str, Any, Any]]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        name = f"{above}{key.value}"
        yield name, key, value
        yield from _keys(value, f"{name}.")


def _comment(lines: list[str], key: Any, value: Any) -> str:
    """The comment at the end of a key's line; a value that begins on the next line has nothing before it."""
    is_block = value.start_mark.line > key.end_mark.line or value.end_mark.line > key.end_mark.line
    mark = key.end_mark if is_block else value.end_mark
    found = re.match(r":?\s*#\s*(.*)", lines[mark.line][mark.column :])
    return found[1].strip() if found else ""


def _groups(command: str) -> str:
    """The options of every group that a command takes, and what their files say of themselves."""
    sources = HydraConfig.get().runtime.config_sources
    folders = [Path(source.path) for source in sources if source.schema == "file"]
    files = sorted({file.relative_to(folder): file for folder in folders for file in folder.glob("*/*.yaml")}.items())
    rows, last = [], ""
    for name, file in files:
        group = str(name.parent)
        if group != "hydra" and _is_of(group, TAKEN.get(command)):
            rows.append(("" if group == last else group, name.stem, comments_in(file.read_text("utf-8-sig"))[0]))
            last = group
    wide = max(len(group) for group, _, _ in rows)
    entries = [_entry(f"  {group:<{wide}}  {option}", says, 2 + wide + 2 + 14) for group, option, says in rows]
    return "\n".join(entries) + "\n"


def _options(config: Any, command: str) -> str:
    """Each option with its value and comment: those of the command's own file first."""
    says: dict[str, str] = {}
    own: set[str] = set()
    for path, package, text in read:
        comments = {f"{package}{key}": comment for key, comment in comments_in(text)[1].items()}
        says = {**comments, **says}  # a file is read before those that its defaults list names
        if path == command:
            own = {name for name, _, _ in _keys(yaml.compose(text, yaml.SafeLoader), package)}
    values = dict(_leaves(OmegaConf.to_container(config, resolve=False), ""))
    first = [key for key in values if key in own]
    rest = [key for key in values if key not in own and _is_of(key, TAKEN.get(command))]
    lines, above = [], ""
    for key in [*first, *rest]:
        group = key.rpartition(".")[0]
        if group != above and says.get(group):
            lines.append(_entry(f"  {group}", says[group], KEYS))
        above = group
        lines.append(_entry(f"  {key}={as_value(values[key])}", says.get(key, ""), KEYS))
    return "\n".join(lines)


def _leaves(config: Any, above: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items() if isinstance(config, Mapping) else ():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{key}.")
        elif key not in HIDDEN or not above or above.count(".") > 1:
            yield f"{above}{key}", value


def _is_of(key: str, taken: tuple[str, ...] | None) -> bool:
    return taken is None or any(key == one or key.startswith(f"{one}.") for one in taken)


def _entry(what: str, says: str, column: int) -> str:
    """A line of help, wrapped; what is too long for its column has a line of its own."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    room = max(width - column, 30)
    lines = textwrap.wrap(says, room, break_on_hyphens=False) or [""]
    begin = [f"{what:<{column}}{lines[0]}"] if len(what) < column else [what, " " * column + lines[0]]
    return "\n".join(line.rstrip() for line in [*begin, *(" " * column + line for line in lines[1:])] if line.strip())
