"""The command that fetches data sets ahead of a run, checks their files, and says what is there."""

from __future__ import annotations

from typing import Any

from neuralmech.cli.application import launch, overrides_in
from neuralmech.data.sources import ABOUT, DECODED, REMOTES, About
from neuralmech.errors import UserError
from neuralmech.words import byte_count


def data(words: list[str]) -> None:
    """Fetch and check the data sets among the words; without any, list all."""
    names = [word for word in overrides_in(words, "data") if "=" not in word]
    _check_names(names)

    def task(raw: Any) -> None:
        if raw.folder is not None and not isinstance(raw.folder, str):
            raise UserError(f"folder={raw.folder} must be a path, such as folder=~/data")
        if not names:
            _show_all(raw.folder)
        for name in names:
            if name in REMOTES:
                _show_fetched(name, raw.folder)
            else:
                print(_without_files(name, ABOUT[name]))

    launch(task, "data", [word for word in words if word not in names])


def _check_names(names: list[str]) -> None:
    from neuralmech.checks import check_choice

    for name in names:
        check_choice("data", name, ABOUT)


def _without_files(name: str, about: About) -> str:
    """What there is to say of a data set that is not downloaded."""
    if about.is_missing:
        raise UserError(f"data={name} needs {about.library}, which is not there; {about.install}")
    own = f"; it needs {about.key}=…" if about.key else ""
    return f"{name}: {about.what}; there is nothing to download{own}"


def _show_fetched(name: str, folder: str | None) -> None:
    """Fetch and check the files of a data set, decode what is kept decoded, and say what is there."""
    from neuralmech.imports import importing

    with importing("torch", for_good=True):
        from neuralmech.data import ImageOptions, load_data
        from neuralmech.data.download import fetch
    options = ImageOptions(name=name, folder=folder, batch_size=2)  # any set has as many
    decoded = options.files / DECODED.get(name, "")
    if decoded.is_file():  # which is all that is read; else every file is compared when it is
        for remote in REMOTES[name]:
            if (options.files / remote.name).exists():
                fetch(remote, options.files)
    found = load_data(options)
    print(f"{name} in {options.files}")
    there = [options.files / remote.name for remote in REMOTES[name]]
    for path in [p for p in there if p.is_file()]:
        print(f"  {path.name}  {byte_count(path.stat().st_size)}  SHA-256 as published")
    if decoded.is_file():
        print(f"  {decoded.name}  {byte_count(decoded.stat().st_size)}  decoded, checksums right")
    shape = "×".join(map(str, found.shape))
    print(f"  {len(found.train):,} + {len(found.test):,} examples {shape} of {found.classes} classes")


def _show_all(folder: str | None) -> None:
    """A line for each data set."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    for heading in ("data", "examples", "shape", "size", "needs", "there"):
        rows.add_column(heading, no_wrap=heading == "examples", overflow="fold")
    for name, about in ABOUT.items():
        needs = about.needs or about.key or "-"
        rows.add_row(name, about.examples, about.shape, about.size, needs, _is_there(name, about, folder))
    Console().print(rows)


def _is_there(name: str, about: About, folder: str | None) -> str:
    """Whether a data set's files are where a run looks for them; their checksums are not compared."""
    if name not in REMOTES:
        return "no" if about.is_missing else "-" if about.key else "yes"
    from neuralmech.data.download import data_folder

    place = data_folder(folder, name)
    if name in DECODED and (place / DECODED[name]).is_file():
        return "decoded"
    there = sum((place / remote.name).is_file() for remote in REMOTES[name])
    return "yes" if there == len(REMOTES[name]) else f"{there} of {len(REMOTES[name])}" if there else "no"
