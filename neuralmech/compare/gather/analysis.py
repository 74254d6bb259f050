"""Compare all the runs of a folder with theory, and put what was found into tables of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuralmech.checks import check_choice
from neuralmech.compare.gather.job import Panel, labelled
from neuralmech.compare.gather.kept import KeptResults
from neuralmech.compare.gather.labels import label_texts, labels_of
from neuralmech.compare.gather.options import Options, options
from neuralmech.compare.gather.parts import PART, metrics_told
from neuralmech.compare.gather.reading import compare_jobs, predict_jobs
from neuralmech.compare.gather.runs import Runs, find_runs
from neuralmech.compare.gather.summary import of_whole, settings, summary_table
from neuralmech.compare.measure.batches import BatchPredictions
from neuralmech.record import RecordError

MAX_PANELS = 6  # runs beside each other in one figure


@dataclass(frozen=True, repr=False)
class Analysis:
    """What an analysis found and wrote.

    Attributes
    ----------
    comparison
        One row per run, family, site and law; swept keys as columns. ``reason`` says why a law has no error.
    verdict
        One row per run and family: the simplest law that suffices, of which kind it is, its error, what simpler ones
        lack, what moved the charges, and at how many sites rounding alone did.
    budget
        One row per run, family and site: what moved the charges.
    seeds
        Mean and standard deviation of the error over runs that differ only by seed.
    equilibrium
        One row per run and scale site: angular step and radius at the end, against theory.
    kinetic
        One row per run, family and site: whether the learning rule keeps the symmetry, and how far it leans.
    oscillator
        One row per run and family: what kind of damped oscillator its charges are.
    rotations
        One row per run and site of linear maps, where angular momenta were recorded: whether they stay zero, or decay.
    noise_equilibrium
        One row per run and rescale site, where both sides were recorded: how far from noise equilibrium.
    loss
        Full-batch runs: what the loss lost, against the work of its gradient.
    batches
        Charges' motion predicted from gradients measured at another batch size.
    runs
        One row per job, also of those that failed: swept keys, status, rows, last loss and accuracy, reason.
    summary
        Of a sweep, the verdicts in one table: mean and standard deviation over seeds.
    about
        Of each run, parts of its title: model, data, rule, hyperparameters, steps, accuracy.
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
    kinetic: pd.DataFrame
    oscillator: pd.DataFrame
    rotations: pd.DataFrame
    noise_equilibrium: pd.DataFrame
    loss: pd.DataFrame
    batches: BatchPredictions
    runs: pd.DataFrame
    keys: tuple[str, ...]
    verdict: pd.DataFrame = field(default_factory=pd.DataFrame)
    summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    about: tuple[Mapping[str, str], ...] = ()
    panels: tuple[Panel, ...] = ()
    configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_running: bool = False
    files: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        return f"<Analysis of {self.folder}: {len(self.runs):,} runs, {len(self.files):,} files>"


def analyze(run: str | Path, **chosen: Any) -> Analysis:
    """The tables of a run or multirun folder; see `neuralmech.analyze`, which can also draw them."""
    checked, folder = options(chosen), Path(run)
    return compare_runs(find_runs(folder, kept=KeptResults.of(folder, checked, writes=False)), checked)


def compare_runs(found: Runs, chosen: Options) -> Analysis:
    """Compare every run that was found with every law; a process has one record open at a time."""
    labels = labels_of(found)
    drawn = _chosen(found, chosen.runs) if chosen.runs else _spread(found, labels)
    read = compare_jobs(found, chosen, drawn)
    titles = label_texts(labels)
    compared = [labelled(one, label, title) for (one, _), label, title in zip(read, labels, titles, strict=True)]
    jobs = [job for _, job in read]
    readable = [one for one in compared if one.comparison]
    if not readable and found.readable:
        raise RecordError(f"{found.folder} holds no run to analyse ({next(job.reason for job in jobs if job.reason)})")
    if not readable:
        raise RecordError(f"{found.folder} holds no rows yet; wait, or give live=true")
    notes = [note for one in compared for note in one.notes]
    if len(drawn) < len(found.readable):
        which = "" if chosen.runs else ", of each setting one; choose them by runs=[…], by their names in runs.csv"
        notes.append(f"figures of single runs show {len(drawn)} of {len(found.readable)}{which}")
    keys = tuple(labels[0])
    swept = [(job.path, label) for job, label in zip(jobs, labels, strict=True) if not job.reason]
    comparison = _joined(one.comparison for one in readable)
    batches = predict_jobs(swept, chosen, found.kept)
    panels = [one.panel for one in readable if one.panel]
    if PART in keys:
        panels, told = metrics_told(panels)
        notes += told
    verdict = _joined(one.verdict for one in readable)
    runs = pd.DataFrame([one.row for one in compared])
    if found.kept:
        found.kept.tidy(jobs)
    return Analysis(
        folder=found.folder,
        comparison=comparison,
        budget=_joined(one.budget for one in readable),
        seeds=seed_table(of_whole(comparison, runs, keys), keys),
        equilibrium=_joined(one.equilibrium for one in readable),
        kinetic=_joined(one.kinetic for one in readable),
        oscillator=_joined(one.oscillator for one in readable),
        rotations=_joined(one.rotations for one in readable),
        noise_equilibrium=_joined(one.noise_equilibrium for one in readable),
        loss=_joined(one.loss for one in readable),
        batches=batches,
        runs=runs,
        keys=keys,
        verdict=verdict,
        summary=summary_table(verdict, runs, keys),
        about=tuple(one.about for one in readable),
        panels=tuple(panels),
        configs={one.name: one.config for one in readable if one.config is not None},
        provenance={one.name: one.provenance for one in readable if one.provenance is not None},
        notes=(*notes, *batches.notes),
        is_running=found.is_running,
    )


def _joined(parts: Iterable[list[pd.DataFrame]]) -> pd.DataFrame:
    return pd.concat([table for part in parts for table in part], ignore_index=True)


def _spread(found: Runs, labels: Sequence[Mapping[str, Any]]) -> set[Path]:
    """The runs that figures show beside each other: of each setting one, evenly spread, first and last among them."""
    first: dict[tuple, Path] = {}
    paths = [job.path for job in found.readable]
    for job, label in zip(found.jobs, labels, strict=True):
        if not job.reason:
            first.setdefault(tuple(repr(label[key]) for key in settings(tuple(label))), job.path)
    runs = list(first.values()) if len(first) > 1 else paths
    at = np.unique(np.linspace(0, len(runs) - 1, min(MAX_PANELS, len(runs))).round().astype(int))
    return {runs[i] for i in at}


def _chosen(found: Runs, names: Sequence[str]) -> set[Path]:
    """The runs of these names.

    Raises
    ------
    UserError
        For a name that no run with rows has.
    """
    known = {job.name: job.path for job in found.readable}
    for name in names:
        check_choice("runs", name, known)
    return {known[name] for name in names}


def seed_table(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean and standard deviation of the error over runs that differ only by seed; empty if there are none."""
    by = [*settings(keys), "family", "site", "law"]
    errors = table.groupby(by, sort=False, dropna=False)["error"].agg(seeds="size", mean="mean", std="std")
    seeds = errors.reset_index()
    several = "seed" in keys
    return seeds[(seeds["seeds"] > 1) & several].reset_index(drop=True)
