"""Read the records of a sweep, side by side, but for those that were read before and are as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from neuralmech.compare.gather.job import Compared, compare_job
from neuralmech.compare.gather.kept import KeptResults
from neuralmech.compare.gather.options import Options
from neuralmech.compare.gather.processes import Gone, carry_out, count
from neuralmech.compare.gather.runs import Job, Runs, unreadable
from neuralmech.compare.measure.batches import BatchPredictions, joined, predict_from, sources
from neuralmech.record import RecordError


class _Reading(NamedTuple):
    """A job to be compared with every law, and whether figures draw it."""

    job: Job
    chosen: Options
    kept: KeptResults | None
    is_alone: bool
    is_drawn: bool


class _Predicting(NamedTuple):
    """A run to predict others at another batch size from."""

    source: Path
    targets: list[tuple[Path, dict[str, Any]]]
    block: int
    kept: KeptResults | None


def compare_jobs(found: Runs, chosen: Options, drawn: set[Path]) -> list[tuple[Compared, Job]]:
    """Every job compared with every law; one of several that turns out to be damaged is one that failed."""
    alone = len(found.readable) == 1
    known = [_known(job, chosen, found.kept, is_drawn=job.path in drawn) for job in found.jobs]
    to_read = [
        _Reading(job, chosen, found.kept, alone, job.path in drawn)
        for job, before in zip(found.jobs, known, strict=True)
        if before is None
    ]
    out = []
    with closing(carry_out(_compared, to_read, count(chosen.jobs, [one.job.path for one in to_read]))) as results:
        for job, before in zip(found.jobs, known, strict=True):
            one = (before, job) if before is not None else next(results)
            out.append(_failed(job, one.cause, chosen) if isinstance(one, Gone) else one)
    return out


def _known(job: Job, chosen: Options, kept: KeptResults | None, *, is_drawn: bool) -> Compared | None:
    """What is known of a job without reading its record."""
    if job.reason:
        return compare_job(job, chosen)
    return kept.compared(job, drawn=is_drawn) if kept else None


def _compared(one: _Reading) -> tuple[Compared, Job]:
    """A job compared, without curves that nobody draws: they are large."""
    job, kept = one.job, one.kept
    before = kept.state([job.path]) if kept else None
    try:
        found = compare_job(job, one.chosen)
    except (RecordError, OSError) as error:
        if one.is_alone:
            raise
        return _failed(job, unreadable(job.path, error) if isinstance(error, OSError) else str(error), one.chosen)
    found = found if one.is_drawn else replace(found, panel=None)
    if kept:
        kept.keep_compared(job, found, before)
    return found, job


def _failed(job: Job, reason: str, chosen: Options) -> tuple[Compared, Job]:
    failed = replace(job, status="failed", reason=reason)
    return compare_job(failed, chosen), failed


def predict_jobs(
    jobs: Sequence[tuple[Path, Mapping[str, Any]]], chosen: Options, kept: KeptResults | None
) -> BatchPredictions:
    """What runs predict of those at another batch size, of jobs with their swept keys."""
    to_do = [_Predicting(source, targets, chosen.block, kept) for source, targets in sources(jobs)]
    known = [kept.get("batches", _files(one)) if kept else None for one in to_do]
    unknown = [one for one, before in zip(to_do, known, strict=True) if not isinstance(before, BatchPredictions)]
    with closing(carry_out(_predicted, unknown, count(chosen.jobs, [one.source for one in unknown]))) as results:
        parts = [before if isinstance(before, BatchPredictions) else next(results) for before in known]
    notes = [BatchPredictions.nothing(f"predictions left out: {p.cause}") if isinstance(p, Gone) else p for p in parts]
    return joined(notes)


def _files(one: _Predicting) -> list[Path]:
    return [one.source, *(target for target, _ in one.targets)]


def _predicted(one: _Predicting) -> BatchPredictions:
    before = one.kept.state(_files(one)) if one.kept else None
    found = predict_from(one.source, one.targets, one.block)
    if one.kept and not found.notes:  # what is wrong is said again
        one.kept.put("batches", _files(one), found, before)
    return found
