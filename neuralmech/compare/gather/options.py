"""Options of an analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from neuralmech.checks import check_at_least, check_choice
from neuralmech.errors import UserError
from neuralmech.laws import LAWS
from neuralmech.words import Differing

FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True, repr=False)
class Options(Differing):
    """Options of ``neuralmech analyze``; see ``conf/analyze.yaml``."""

    laws: list[str] | None = None
    runs: list[str] | None = None
    figures: bool = True
    formats: list[str] = field(default_factory=lambda: ["png", "svg"])
    report: bool = True
    lines: int = 6
    block: int = 256
    jobs: int | None = None
    live: bool = False
    every: float = 10.0

    def check(self) -> None:
        """Raise a `UserError` for unknown laws or impossible numbers."""
        if self.laws is not None and not self.laws:
            raise UserError("laws=[] leaves nothing to compare; name laws or use laws=null for all")
        for name in self.laws or ():
            check_choice("laws", name, LAWS)
        if self.runs is not None and not self.runs:
            raise UserError("runs=[] leaves nothing to draw; name runs of the sweep or use runs=null")
        for key in ("figures", "report", "live"):
            if not isinstance(getattr(self, key), bool):
                raise UserError(f"{key}={getattr(self, key)} must be true or false")
        for suffix in self.formats:
            check_choice("formats", suffix, FORMATS)
        for key, value in (("lines", self.lines), ("block", self.block), ("jobs", self.jobs)):
            if key == "jobs" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise UserError(f"{key}={value} must be a whole number")
            check_at_least(key, value, 1)
        if not isinstance(self.every, (int, float)) or not 0 < self.every < float("inf"):
            raise UserError(f"every={self.every} must be a positive number of seconds")


def options(values: Mapping[str, Any]) -> Options:
    """Checked options out of a composed config."""
    names = [f.name for f in fields(Options)]
    if unknown := [str(key) for key in values if key not in names]:
        raise UserError(f"{unknown[0]} is no option of analyze; it has {', '.join(names)}")
    known: dict[str, Any] = {f.name: values[f.name] for f in fields(Options) if f.name in values}
    for key in ("laws", "runs", "formats"):
        if known.get(key) is not None:
            several = not isinstance(known[key], (str, int))
            known[key] = [str(name) for name in (known[key] if several else [known[key]])]
    chosen = Options(**known)
    chosen.check()
    return chosen
