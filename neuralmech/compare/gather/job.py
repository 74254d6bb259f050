"""Compare one job's record with theory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from neuralmech.compare.gather.options import Options
from neuralmech.compare.gather.runs import Job, status_of
from neuralmech.compare.measure.about import about
from neuralmech.compare.measure.accounts import budget_table
from neuralmech.compare.measure.curves import Curves, LossCurve
from neuralmech.compare.measure.equilibrium import equilibrium_table
from neuralmech.compare.measure.errors import FamilyComparison, compare_family
from neuralmech.compare.measure.kinetic import kinetic_table
from neuralmech.compare.measure.loss import loss_balance
from neuralmech.compare.measure.orbit import OrbitCurve, noise_equilibrium
from neuralmech.compare.measure.oscillator import oscillator_table
from neuralmech.compare.measure.phase import PhaseCurve, phase_curves
from neuralmech.compare.measure.rotations import rotation_table
from neuralmech.compare.measure.training import TrainingCurve, training_curve
from neuralmech.compare.measure.verdict import family_verdict
from neuralmech.compare.measure.views import families
from neuralmech.laws import LAWS
from neuralmech.record import Record, RecordError, open_record
from neuralmech.record.safety import printable


@dataclass(frozen=True)
class Panel:
    """What figures draw of one run, under its label: family → curves and budget, how training went, the rest."""

    title: str
    curves: dict[str, Curves]
    budgets: dict[str, pd.DataFrame]
    training: TrainingCurve | None = None
    loss: LossCurve | None = None
    orbit: OrbitCurve | None = None
    phase: tuple[PhaseCurve, ...] = ()


@dataclass(frozen=True)
class Compared:
    """What an analysis finds in one job; a job without a record has a row and a note only.

    Attributes
    ----------
    name
        The swept keys in words.
    row
        In the table of runs: swept keys, status, rows, last loss and accuracy, reason.
    about
        Parts of the run's title.
    comparison, verdict, budget, equilibrium, kinetic, oscillator, rotations, noise_equilibrium, loss
        Parts of what `Analysis` calls so, swept keys in front.
    """

    name: str
    row: dict[str, Any]
    notes: list[str]
    about: Mapping[str, str] = field(default_factory=dict)
    comparison: list[pd.DataFrame] = field(default_factory=list)
    verdict: list[pd.DataFrame] = field(default_factory=list)
    budget: list[pd.DataFrame] = field(default_factory=list)
    equilibrium: list[pd.DataFrame] = field(default_factory=list)
    kinetic: list[pd.DataFrame] = field(default_factory=list)
    oscillator: list[pd.DataFrame] = field(default_factory=list)
    rotations: list[pd.DataFrame] = field(default_factory=list)
    noise_equilibrium: list[pd.DataFrame] = field(default_factory=list)
    loss: list[pd.DataFrame] = field(default_factory=list)
    panel: Panel | None = None
    config: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None


TABLES = (
    "comparison", "verdict", "budget", "equilibrium", "kinetic", "oscillator", "rotations", "noise_equilibrium", "loss",
)  # fmt: skip


def compare_job(job: Job, chosen: Options) -> Compared:
    """Compare a job with every law; what tells it from other jobs is put beside that by `labelled`.

    Raises
    ------
    RecordError
        If its record has no charges, or nothing finite.
    """
    if job.reason:
        return Compared("", {"job": job.name, **_nothing(job)}, [f"job {job.name} {_verb(job)}: {job.reason}"])
    with open_record(job.path) as record:
        notes = _cut_at_nan(record)
        loss, curve = loss_balance(record)
        pairs, orbit = noise_equilibrium(record)
        found = _families(record, chosen)
        return Compared(
            "",
            row={"job": job.name, **_last_evaluation(record)},
            notes=[*notes, *_notes(job.name, record)],
            about=about(record),
            comparison=[one.table for one, _ in found],
            verdict=[_verdict(record, found)],
            budget=[budget for _, budget in found],
            equilibrium=[equilibrium_table(record)],
            kinetic=[kinetic_table(record)],
            oscillator=[oscillator_table(record)],
            rotations=[rotation_table(record, chosen.block)],
            noise_equilibrium=[pairs],
            loss=[loss],
            panel=Panel(
                "",
                {one.family: one.curves for one, _ in found},
                {one.family: budget for one, budget in found},
                training=training_curve(record),
                loss=curve,
                orbit=orbit,
                phase=tuple(phase_curves(record, chosen.lines, chosen.block)),
            ),
            config=record.config,
            provenance=record.provenance,
        )


def labelled(found: Compared, label: Mapping[str, Any], title: str) -> Compared:
    """What was found in a job with its swept keys, `label`, in front of its tables, and its `title` in figures."""
    tables = {name: [_labelled(t, label) if len(t.columns) else t for t in getattr(found, name)] for name in TABLES}
    row = {"job": found.row["job"], **label, **found.row}
    panel = replace(found.panel, title=title) if found.panel else None
    return replace(found, name=", ".join(f"{k} = {v}" for k, v in label.items()), row=row, panel=panel, **tables)


def _families(record: Record, chosen: Options) -> list[tuple[FamilyComparison, pd.DataFrame]]:
    """Each family compared with the laws, and its budget."""
    laws = {name: law for name, law in LAWS.items() if chosen.laws is None or name in chosen.laws}
    if not record.families:
        raise RecordError(f"{record.path} holds no charges: the model has no symmetry, or none was tracked")
    found = []
    for family in families(record):
        compared = compare_family(record, family, laws, chosen.lines, chosen.block)
        found.append((compared, budget_table(record, family, chosen.block)))
    return found


def _verdict(record: Record, found: list[tuple[FamilyComparison, pd.DataFrame]]) -> pd.DataFrame:
    decays = bool(record.column("weight_decay").any())
    of = [(one.family, family_verdict(one.table, budget, one.classes, decays=decays)) for one, budget in found]
    return pd.DataFrame([{"family": family, **row} for family, row in of])


def _cut_at_nan(record: Record) -> list[str]:
    """Leave out what follows the first number that is not finite: no law has anything to say about it."""
    finite, rows = record.finite_rows(), record.rows
    if finite == rows:
        return []
    if finite == 0:
        raise RecordError(f"{record.path} is not finite from its first row on; train with a lower optim.lr")
    record.cut(finite)
    return [
        f"{printable(record.path.parent.name)}: not finite after row {finite} of {rows}; the rows before are analysed"
    ]


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
    begun = np.flatnonzero(np.diff(record.column("segment"))) + 1
    if len(begun):
        steps = ", ".join(str(k) for k in record.column("step")[begun[:5]]) + (", …" if len(begun) > 5 else "")
        notes.append(
            f"{name}: before steps {steps} something other than recorded steps moved the parameters, or the training "
            "was resumed; the laws start again there"
        )
    every = (record.config.get("track") or {}).get("every", 1)
    if every != 1:
        notes.append(
            f"{name}: rows are {printable(str(every))} steps apart and drives are held between them, "
            "so only laws without a drive (translation) are exact"
        )
    return notes
