"""Analyse a run folder or a multirun folder: read and compare; `files` writes what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuralmech.checks import check_at_least, check_choice
from neuralmech.compare.batches import BatchPredictions, predict_batches
from neuralmech.compare.budget import EXACT, budget_table, no_budget
from neuralmech.compare.curves import Curves
from neuralmech.compare.equilibrium import equilibrium_table
from neuralmech.compare.errors import compare_family
from neuralmech.compare.inputs import circumstances
from neuralmech.compare.loss_balance import LossCurve, loss_balance
from neuralmech.compare.runs import Job, Runs, differences, find_runs, status_of
from neuralmech.compare.tables import label_text, seed_table
from neuralmech.errors import UserError
from neuralmech.laws import LAWS
from neuralmech.record import Record, RecordError, open_record

MAX_PANELS = 6  # runs beside each other in one figure


@dataclass(frozen=True)
class Options:
    """Options of ``neuralmech analyze``; see ``conf/analyze.yaml``."""

    laws: list[str] | None = None
    figures: bool = True
    report: bool = True
    lines: int = 6
    block: int = 256
    live: bool = False
    every: float = 10.0

    def check(self) -> None:
        """Raise a `UserError` for unknown laws or impossible numbers."""
        if self.laws is not None and not self.laws:
            raise UserError("laws=[] leaves nothing to compare; name laws or use laws=null for all")
        for name in self.laws or ():
            check_choice("laws", name, LAWS)
        for key in ("figures", "report", "live"):
            if not isinstance(getattr(self, key), bool):
                raise UserError(f"{key}={getattr(self, key)} must be true or false")
        for key, value in (("lines", self.lines), ("block", self.block)):
            if not isinstance(value, int):
                raise UserError(f"{key}={value} must be a whole number")
            check_at_least(key, value, 1)
        if not isinstance(self.every, (int, float)) or not 0 < self.every < float("inf"):
            raise UserError(f"every={self.every} must be a positive number of seconds")


def options(values: Mapping[str, Any]) -> Options:
    """Checked options out of a composed config."""
    known: dict[str, Any] = {f.name: values[f.name] for f in fields(Options) if f.name in values}
    if known.get("laws") is not None:
        known["laws"] = [known["laws"]] if isinstance(known["laws"], str) else list(known["laws"])
    chosen = Options(**known)
    chosen.check()
    return chosen


@dataclass(frozen=True)
class Panel:
    """What figures draw of one run: family → curves and budget, and its loss, under the run's label."""

    title: str
    curves: dict[str, Curves]
    budgets: dict[str, pd.DataFrame]
    loss: LossCurve | None = None


@dataclass(frozen=True)
class Analysis:
    """What an analysis found and wrote.

    Attributes
    ----------
    comparison
        One row per run, family, site and law; swept keys as columns. ``reason`` says why a law has no error.
    budget
        One row per run, family and site: what moved the charges.
    seeds
        Mean and standard deviation of the error over runs that differ only by seed.
    equilibrium
        One row per run and scale site: angular step and radius at the end, against theory.
    loss
        Full-batch runs: what the loss lost, against the work of its gradient.
    batches
        Charges' motion predicted from gradients measured at another batch size.
    runs
        One row per job, also of those that failed: swept keys, status, rows, last loss and accuracy, reason.
    keys
        The swept keys (or ``run``, if several runs share one config).
    configs, provenance
        Of each run, by its label.
    """

    folder: Path
    comparison: pd.DataFrame
    budget: pd.DataFrame
    seeds: pd.DataFrame
    equilibrium: pd.DataFrame
    loss: pd.DataFrame
    batches: BatchPredictions
    runs: pd.DataFrame
    keys: tuple[str, ...]
    panels: tuple[Panel, ...] = ()
    configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_running: bool = False
    files: tuple[Path, ...] = ()


def analyze(run: str | Path, **chosen: Any) -> Analysis:
    """Analyse a run or multirun folder and return pandas tables; writes nothing and needs no torch.

    Parameters
    ----------
    run
        A run folder, a multirun folder or a record file.
    **chosen
        Options of ``neuralmech analyze`` that matter here: `laws` (names), `lines`, `block`.

    Raises
    ------
    RecordError
        If there is no readable record.
    UserError
        If an option is wrong.

    Examples
    --------
    ``neuralmech.analyze("outputs/run").comparison.pivot_table(index="site", columns="law", values="error")``
    """
    unknown = set(chosen) - {f.name for f in fields(Options)}
    if unknown:
        raise UserError(f"{min(unknown)} is no option of analyze; see conf/analyze.yaml")
    return compare_runs(find_runs(Path(run)), options(chosen))


def compare_runs(found: Runs, chosen: Options) -> Analysis:
    """Compare every run that was found with every law; one record is open at a time."""
    labels = _labels(found)
    drawn = _spread(found)
    tables, budgets, balances, losses, rows, panels, notes = [], [], [], [], [], [], []
    configs, provenance = {}, {}
    for job, label in zip(found.jobs, labels, strict=True):
        name = ", ".join(f"{k} = {v}" for k, v in label.items())
        if job.reason:
            rows.append({"job": job.path.name, **label, **_nothing(job)})
            notes.append(f"job {job.path.name} {_verb(job)}: {job.reason}")
            continue
        with open_record(job.path) as record:
            notes += _cut_at_nan(record)
            loss, curve = loss_balance(record)
            losses.append(_labelled(loss, label) if len(loss) else loss)
            panel = Panel(label_text(label), {}, {}, curve)
            for family, table, budget, curves in _families(record, chosen):
                tables.append(_labelled(table, label))
                budgets.append(_labelled(budget, label))
                panel.curves[family], panel.budgets[family] = curves, budget
            balances.append(_labelled(equilibrium_table(record), label))
            rows.append({"job": job.path.name, **label, **_last_evaluation(record)})
            notes += _notes(job.path.name, record)
            configs[name], provenance[name] = record.config, record.provenance
        if job.path in drawn:
            panels.append(panel)
    if not tables:
        raise RecordError(f"{found.folder} holds no rows yet; wait, or give live=true")
    if len(found.readable) > MAX_PANELS:
        notes.append(
            f"figures show {MAX_PANELS} of {len(found.readable)} runs, evenly spread; analyze a run folder for its own"
        )
    keys = tuple(labels[0])
    readable = {job.path for job in found.readable}
    swept = [(job.path, label) for job, label in zip(found.jobs, labels, strict=True) if job.path in readable]
    comparison = pd.concat(tables, ignore_index=True)
    return Analysis(
        folder=found.folder,
        comparison=comparison,
        budget=pd.concat(budgets, ignore_index=True),
        seeds=seed_table(comparison, keys),
        equilibrium=pd.concat(balances, ignore_index=True),
        loss=pd.concat(losses, ignore_index=True),
        batches=predict_batches(swept, chosen.block),
        runs=pd.DataFrame(rows),
        keys=keys,
        panels=tuple(panels),
        configs=configs,
        provenance=provenance,
        notes=tuple(notes),
        is_running=found.is_running,
    )


def _labels(found: Runs) -> list[dict[str, Any]]:
    """Swept keys of every job; with the job's name besides where they do not tell two runs apart."""
    if not found.is_sweep:
        return [{}]
    labels = differences(found.jobs)
    if len({tuple(map(repr, label.values())) for label in labels}) < len(labels):
        labels = [{"run": job.path.name, **label} for job, label in zip(found.jobs, labels, strict=True)]
    return labels


def _spread(found: Runs) -> set[Path]:
    """The runs that figures show beside each other: evenly spread over the sweep, first and last among them."""
    runs = found.readable
    at = np.unique(np.linspace(0, len(runs) - 1, min(MAX_PANELS, len(runs))).round().astype(int))
    return {runs[i].path for i in at}


def _families(record: Record, chosen: Options) -> list[tuple[str, pd.DataFrame, pd.DataFrame, Curves]]:
    laws = {name: law for name, law in LAWS.items() if chosen.laws is None or name in chosen.laws}
    if not record.families:
        raise RecordError(f"{record.path} holds no charges: the model has no symmetry, or none was tracked")
    found = []
    for family in record.families:
        compared = compare_family(record, family, laws, chosen.lines, chosen.block)
        table = compared.table
        found.append((family, table, _budget(record, family, table, chosen), compared.curves))
    return found


def _budget(record: Record, family: str, table: pd.DataFrame, chosen: Options) -> pd.DataFrame:
    """The account, unless the exact law, on which it rests, does not hold for this run."""
    reason = EXACT.reason(circumstances(record, record.charges(family)))
    return no_budget(table, reason) if reason else budget_table(record, family, chosen.block)


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
    return {
        "steps": record.rows,
        "loss": last["loss"],
        "accuracy": last["accuracy"],
        "status": status_of(record),
        "reason": "",
    }


def _nothing(job: Job) -> dict[str, Any]:
    nan = float("nan")
    return {"steps": 0, "loss": nan, "accuracy": nan, "status": job.status, "reason": job.reason}


def _verb(job: Job) -> str:
    return "has nothing to show" if job.status == "waiting" else "failed"


def _notes(name: str, record: Record) -> list[str]:
    notes = []
    status = status_of(record)
    if status != "complete":
        notes.append(f"{name}: {status}; the first {record.rows} rows are analysed")
    every = (record.config.get("track") or {}).get("every", 1)
    if every != 1:
        notes.append(
            f"{name}: rows are {every} steps apart and drives are held between them, "
            "so only laws without a drive (translation) are exact"
        )
    return notes
