"""Analyse a run folder or a multirun folder: read, compare, write tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from neuralmech.checks import check_at_least, check_choice
from neuralmech.compare.errors import FamilyComparison, compare_family
from neuralmech.compare.runs import Runs, differences, find_runs
from neuralmech.compare.tables import MEASURES, markdown
from neuralmech.errors import UserError
from neuralmech.laws import LAWS
from neuralmech.record import Record, RecordError, open_record

MAX_PANELS = 6  # runs beside each other in one figure


@dataclass(frozen=True)
class Options:
    """Options of ``neuralmech analyze``; see ``conf/analyze.yaml``."""

    laws: list[str] | None = None
    figures: bool = True
    lines: int = 6
    block: int = 1024

    def check(self) -> None:
        """Raise a `UserError` for unknown laws or impossible numbers."""
        if self.laws is not None and not self.laws:
            raise UserError("laws=[] leaves nothing to compare; name laws or use laws=null for all")
        for name in self.laws or ():
            check_choice("laws", name, LAWS)
        if not isinstance(self.figures, bool):
            raise UserError(f"figures={self.figures} must be true or false")
        for key, value in (("lines", self.lines), ("block", self.block)):
            if not isinstance(value, int):
                raise UserError(f"{key}={value} must be a whole number")
            check_at_least(key, value, 1)


def options(values: Mapping[str, Any]) -> Options:
    """Checked options out of a composed config."""
    known: dict[str, Any] = {f.name: values[f.name] for f in fields(Options) if f.name in values}
    if known.get("laws") is not None:
        known["laws"] = [known["laws"]] if isinstance(known["laws"], str) else list(known["laws"])
    chosen = Options(**known)
    chosen.check()
    return chosen


@dataclass(frozen=True)
class Analysis:
    """What an analysis found and wrote.

    Attributes
    ----------
    table
        One row per run, family, site and law; swept keys as columns.
    keys
        The swept keys (or ``run``, if several runs share one config).
    evaluation
        Last loss and accuracy on held-out data, one row per run.
    """

    folder: Path
    table: pd.DataFrame
    keys: tuple[str, ...]
    evaluation: pd.DataFrame
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = field(default=())


def analyze_folder(folder: Path, chosen: Options | None = None) -> Analysis:
    """Analyse a run or multirun folder and write ``analysis/`` into it.

    Raises
    ------
    RecordError
        If there is no readable record.
    UserError
        If the folder cannot be written.
    """
    chosen = chosen or Options()
    found = find_runs(folder)
    folder = found.folder
    with ExitStack() as stack:
        records = [stack.enter_context(open_record(path)) for path in found.runs]
        labels = _labels(found, records)
        broken = [note for record in records for note in _cut_at_nan(record)]
        compared = [_compare(record, chosen) for record in records]
        notes = _notes(found, records) + broken
        evaluation = pd.DataFrame([{**label, **_last_evaluation(r)} for label, r in zip(labels, records, strict=True)])
    table = pd.concat(
        [_labelled(f.table, label) for label, families in zip(labels, compared, strict=True) for f in families],
        ignore_index=True,
    )
    keys = tuple(labels[0])
    files = _publish(
        folder / "analysis", lambda scratch: _files(scratch, found, table, labels, compared, notes, chosen)
    )
    return Analysis(folder, table, keys, evaluation, tuple(files), tuple(notes))


def _publish(folder: Path, write: Callable[[Path], list[Path]]) -> list[Path]:
    """Let `write` fill a scratch folder, then move its files into `folder`: all of them, or none."""
    if folder.is_symlink():
        raise UserError(f"{folder} is a link to another place; remove it")
    try:
        with TemporaryDirectory(dir=folder.parent, prefix=".analysis-") as scratch:
            files = write(Path(scratch))
            folder.mkdir(exist_ok=True)
            targets = [folder / file.name for file in files]
            blocked = [target for target in targets if target.is_dir()]
            if blocked:
                raise UserError(f"{blocked[0]} is in the way; remove it")
            for file, target in zip(files, targets, strict=True):
                file.replace(target)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); make it writable or copy the run") from None
    return targets


def _files(  # what an analysis writes
    folder: Path,
    found: Runs,
    table: pd.DataFrame,
    labels: list[dict[str, Any]],
    compared: list[list[FamilyComparison]],
    notes: list[str],
    chosen: Options,
) -> list[Path]:
    files = _tables(folder, table, tuple(labels[0]), found.folder.name, notes)
    return files + (_draw(folder, labels, compared) if chosen.figures else [])


def _labels(found: Runs, records: list[Record]) -> list[dict[str, Any]]:
    if not found.is_sweep:
        return [{}]
    labels = differences(records)
    if len({tuple(map(repr, label.values())) for label in labels}) < len(labels):
        labels = [{"run": path.name, **label} for path, label in zip(found.runs, labels, strict=True)]
    return labels


def _compare(record: Record, chosen: Options) -> list[FamilyComparison]:
    laws = {name: law for name, law in LAWS.items() if chosen.laws is None or name in chosen.laws}
    if not record.families:
        raise RecordError(f"{record.path} holds no charges: the model has no symmetry, or none was tracked")
    return [compare_family(record, name, laws, chosen.lines, chosen.block) for name in record.families]


def _cut_at_nan(record: Record) -> list[str]:
    """Leave out what follows the first number that is not finite: no law has anything to say about it."""
    finite, rows = record.finite_rows(), record.rows
    if finite == rows:
        return []
    if finite == 0:
        raise RecordError(f"{record.path} is not finite from its first row on; train with a lower optim.lr")
    record.cut(finite)
    return [f"{record.path.parent.name}: not finite after row {finite} of {rows}; the rows before are analysed"]


def _labelled(table: pd.DataFrame, label: Mapping[str, Any]) -> pd.DataFrame:
    out = table.copy()
    for key, value in reversed(list(label.items())):
        out.insert(0, key, [value] * len(out))
    return out


def _last_evaluation(record: Record) -> dict[str, Any]:
    frame = record.evaluation()
    last = frame.iloc[-1].to_dict() if len(frame) else {"loss": float("nan"), "accuracy": float("nan")}
    return {"steps": record.rows, "loss": last["loss"], "accuracy": last["accuracy"], "status": record.status}


def _notes(found: Runs, records: list[Record]) -> list[str]:
    notes = [f"job {name} failed: {reason}" for name, reason in found.failed.items()]
    for path, record in zip(found.runs, records, strict=True):
        if record.status != "complete":
            notes.append(f"{path.name}: {record.status}; the first {record.rows} rows are analysed")
        every = (record.config.get("track") or {}).get("every", 1)
        if every != 1:
            notes.append(
                f"{path.name}: rows are {every} steps apart and drives are held between them, "
                "so only laws without a drive (translation) are exact"
            )
    if len(records) > MAX_PANELS:
        notes.append(f"figures show the first {MAX_PANELS} of {len(records)} runs; analyze a run folder for its own")
    return notes


def _tables(folder: Path, table: pd.DataFrame, keys: tuple[str, ...], title: str, notes: list[str]) -> list[Path]:
    columns = ["family", "site", "law", "charges", "steps", *MEASURES, *keys]
    files = [folder / "comparison.csv", folder / "comparison.md"]
    table[columns].to_csv(files[0], index=False)
    files[1].write_text(markdown(table, keys, f"Theory against measurement: {title}", notes), encoding="utf-8")
    return files


def _draw(folder: Path, labels: list[dict[str, Any]], compared: list[list[FamilyComparison]]) -> list[Path]:
    from neuralmech.compare.plots import save_figures  # matplotlib only when it draws

    panels: dict[str, list] = {}
    for label, families in list(zip(labels, compared, strict=True))[:MAX_PANELS]:
        title = ", ".join(f"{k} = {v}" for k, v in label.items())
        for comparison in families:
            panels.setdefault(comparison.family, []).append((title, comparison.curves))
    return save_figures(folder, panels)
