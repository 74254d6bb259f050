"""A record that is open for reading; `record/opening.py` opens it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64, Shaped
from numpy.typing import NDArray

from neuralmech.record.charges import Charges, Checked, Norms
from neuralmech.record.safety import attribute, naming_damage, plain_yaml, printable
from neuralmech.record.schema import (
    EVALUATION_COLUMNS,
    LATER_COLUMNS,
    LOG_FILE,
    NORMS,
    ROTATIONS,
    RULE_COLUMNS,
    RULES,
    STEP_COLUMNS,
    RecordError,
    stored,
    tables,
)
from neuralmech.words import first_line, table_of

GROUPS = ("model", "data", "optim", "track", "train")  # of a config


class Record:
    """A record opened for reading; use `open_record`."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self.path = path
        self.rows = file["committed"][()].item()
        self.status = printable(attribute(file, "status", "running"))
        self.identity = attribute(file, "run_id")  # what it shares with the checkpoints of its run alone
        self._found: dict[str, Checked | None] = {}

    def __repr__(self) -> str:
        if not self._file:
            return f"<Record of {self.path}: closed>"
        counts = [f"{family} {self._file['charges'][family]['index'].shape[0]:,}" for family in self.families]
        return f"<Record of {self.path}: {self.rows:,} rows, {self.status}; charges: {', '.join(counts) or 'none'}>"

    def _repr_html_(self) -> str:
        """For notebooks: a row for each family."""
        if not self._file:
            return table_of((), (), repr(self))
        rows = [(f, f"{len(c):,}", ", ".join(c.signals)) for f, c in ((f, self.charges(f)) for f in self.families)]
        return table_of(("family", "charges", "signals"), rows, repr(self))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run."""
        with naming_damage(self.path):
            loaded = plain_yaml(attribute(self._file, "config"))
            config = loaded if isinstance(loaded, dict) else {}
            if odd := [group for group in GROUPS if not isinstance(config.get(group, {}), dict)]:
                raise ValueError(f"{odd[0]} in its config is no group of options")
        return config

    @cached_property
    def rule(self) -> dict[str, Any]:
        """The learning rule: ``name``, whether it is ``decoupled``, ``parts`` (names by their numbers in an index).

        Of a class of the user's own also the ``options``: numbers that it was made with.
        """
        with naming_damage(self.path):
            found = json.loads(attribute(self._file, "rule", "{}"))
            if not isinstance(found, dict):
                raise ValueError("its rule is no table")
        name = (self.config.get("optim") or {}).get("name", "sgd")  # older records
        return {"name": name, "decoupled": name in ("sgdw", "adamw"), "parts": [], "rounds_decay": False, **found}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Git revision, library versions, seed and device of the run."""
        with naming_damage(self.path):
            there = [k for k in ("git_revision", "seed", "device") if k in self._file.attrs]
            rest = {k: _whole_number(self._file.attrs[k]) if k == "seed" else attribute(self._file, k) for k in there}
            return {**rest, "versions": json.loads(attribute(self._file, "versions", "{}"))}

    @property
    def columns(self) -> set[str]:
        """Names of the columns of ``/steps`` that are in the file."""
        return {name for name in STEP_COLUMNS if stored(name, self._file["steps"])}

    @property
    def widths(self) -> dict[str, dict[str, int]]:
        """Columns of each family's datasets, and of those of norms."""
        groups = tables(self._file).items()
        return {f: {k: d.shape[1] for k, d in g.items() if not k.endswith("index")} for f, g in groups}

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the recorded families of charges."""
        order = ("translation", "scale", "rescale", "linear")
        found = [name for name in self._file["charges"] if name != ROTATIONS]
        return tuple(sorted(found, key=lambda f: order.index(f) if f in order else len(order)))

    def charges(self, family: str) -> Charges:
        """Return the charges of a family.

        Raises
        ------
        KeyError
            If the record holds no such family.
        """
        if family not in self.families:
            raise KeyError(f"{self.path} holds no {family!r} charges; it holds {', '.join(self.families)}")
        with naming_damage(self.path):
            return Charges(family, self._file["charges"][family], self.rows)

    @property
    def rotations(self) -> Charges | None:
        """Angular momenta of rotations, if they were recorded; ``partner`` is the other channel."""
        if ROTATIONS not in self._file["charges"]:
            return None
        with naming_damage(self.path):
            return Charges(ROTATIONS, self._file["charges"][ROTATIONS], self.rows)

    def norms(self) -> Norms | None:
        """Norms of each parameter tensor, its gradient and its update, if they were recorded."""
        if NORMS not in self._file:
            return None
        with naming_damage(self.path):
            return Norms(self._file[NORMS], self.rows)

    def rules(
        self, rows: slice | Int64[NDArray, " rows"] | None = None
    ) -> dict[str, Float64[NDArray, "rows rules"]] | None:
        """Hyperparameters under each rule, where groups of parameters have schedules of their own; see `column`."""
        if RULES not in self._file:
            return None
        rows = slice(self.rows) if rows is None else rows
        return {name: Checked(self._file[RULES][name])[rows] for name in RULE_COLUMNS}

    def steps(
        self, start: int = 0, stop: int | None = None, names: Iterable[str] = STEP_COLUMNS
    ) -> dict[str, Shaped[NDArray, " rows"]]:
        """Columns of ``/steps``, or some of them, between two rows."""
        end = self.rows if stop is None else min(stop, self.rows)
        return {name: self.column(name, slice(start, end)) for name in names}

    def column(self, name: str, rows: slice | Int64[NDArray, " rows"] | None = None) -> Shaped[NDArray, " rows"]:
        """One column of ``/steps`` at some rows (a slice, or numbers in ascending order) or at all."""
        rows = slice(self.rows) if rows is None else rows
        found = self._column(name)
        if found is None:
            return np.full_like(self.column("step", rows), LATER_COLUMNS[name], dtype=STEP_COLUMNS[name])
        return found[rows]

    def _column(self, name: str) -> Checked | None:
        """A column's dataset, None where there was none yet; to find one takes longer than to read a block of it."""
        if name not in self._found:
            group = self._file["steps"]
            there = stored(name, group)
            self._found[name] = None if name in LATER_COLUMNS and there is None else Checked(group[there or name])
        return self._found[name]

    def evaluation(self) -> pd.DataFrame:
        """Step, loss and accuracy on held-out data."""
        group = self._file["evaluation"]
        end = group["committed"][()].item()
        return pd.DataFrame({name: Checked(group[name])[:end] for name in EVALUATION_COLUMNS})

    def logged(self) -> pd.DataFrame:
        """What the user logged in a loop of their own, a row for each step at which they did; NaN where they did not.

        Raises
        ------
        RecordError
            If the file beside the record is damaged.
        """
        path = self.path.parent / LOG_FILE
        if not path.is_file():
            return pd.DataFrame({"step": np.zeros(0, dtype=np.int64)})
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        try:
            found = pd.DataFrame([json.loads(line) for line in lines])
            return found.groupby("step", as_index=False).last()  # of a step that was taken again, as it was then
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{path} is damaged ({first_line(error)}); repair or remove it") from None

    def steps_frame(self) -> pd.DataFrame:
        """``/steps`` as a frame."""
        return pd.DataFrame(self.steps())

    @cached_property
    def in_use(self) -> frozenset[str]:
        """Which of momentum, dampening and nesterov any step has."""
        return frozenset(name for name in ("momentum", "dampening", "nesterov") if self.column(name).any())

    @cached_property
    def windows(self) -> tuple[slice, ...]:
        """Row ranges without a gap: one, unless the record was restricted to windows of steps, or has segments."""
        every = (self.config.get("track") or {}).get("every", 1)
        gaps = np.diff(self.column("step")) > (every if isinstance(every, int) else 1)
        cuts = np.flatnonzero(gaps | (np.diff(self.column("segment")) != 0)) + 1
        edges = [0, *cuts.tolist(), self.rows]
        return tuple(slice(a, b) for a, b in pairwise(edges))

    def blocks(self, rows: int = 1024) -> Iterator[slice]:
        """Consecutive row ranges that cover the record."""
        for start in range(0, self.rows, rows):
            yield slice(start, min(start + rows, self.rows))

    def finite_rows(self) -> int:
        """Rows before the first in which the loss, where it was told, or a charge is not finite."""
        end = self.rows
        for rows in self.blocks() if self.config.get("loss_told", True) else ():
            bad = np.flatnonzero(~np.isfinite(self.column("loss", rows)))
            if bad.size:
                end = rows.start + int(bad[0])
                break
        signals = [getattr(c, s) for c in map(self.charges, self.families) for s in c.signals]
        while end and not all(np.isfinite(d[end - 1]).all() for d in signals):
            end -= 1  # a gradient that is not finite comes a row before such a loss
        return end

    def cut(self, rows: int) -> None:
        """Read on as if the record ended after so many rows."""
        self.rows = min(self.rows, rows)
        for of_all_rows in ("in_use", "windows"):
            vars(self).pop(of_all_rows, None)

    def readable_rows(self) -> int:
        """Rows before the first that is missing in the file or does not match its checksum. Reads everything."""
        columns = [dataset for name, dataset in self._file["steps"].items() if name in STEP_COLUMNS]
        rows = self.rows
        for dataset in [*columns, *self._signals()]:
            rows = min(rows, _readable(dataset, rows))
        return rows

    def readable_evaluations(self) -> int:
        """Evaluations before the first that is missing in the file or does not match its checksum."""
        rows = self._file["evaluation"]["committed"][()].item()
        return min(_readable(self._file["evaluation"][name], rows) for name in EVALUATION_COLUMNS)

    def _signals(self) -> list[h5py.Dataset]:
        return [d for g in tables(self._file).values() for k, d in g.items() if not k.endswith("index")]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _whole_number(value: Any) -> int:
    if not isinstance(value, (int, np.integer)):
        raise ValueError("its seed is no whole number")
    return int(value)


def _readable(dataset: h5py.Dataset, rows: int) -> int:
    """Rows before the first chunk that is not there or does not match its checksum."""
    if dataset.chunks is None:
        return rows
    for start in range(0, rows, dataset.chunks[0]):
        try:
            starts = [range(0, n, c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
            places = [dataset.id.get_chunk_info_by_coord((start, *rest)) for rest in product(*starts)]
            if any(place.byte_offset is None for place in places):
                return start
            dataset[start : min(start + dataset.chunks[0], rows)]
        except (OSError, RuntimeError):
            return start
    return rows
