"""Predict the charges' motion at one batch size from gradients measured at another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuralmech.compare.measure.curves import BatchCurve, inside, sampled
from neuralmech.compare.measure.inputs import Stretch, circumstances, classes, hyperparameters
from neuralmech.laws import LAWS
from neuralmech.laws.integration import Integration
from neuralmech.record import Record, RecordError, open_record

KEY = "data.batch_size"


@dataclass(frozen=True)
class BatchPredictions:
    """One row per pair of batch sizes, family and site, and a curve per pair and family; what was left out, and why."""

    table: pd.DataFrame
    curves: tuple[BatchCurve, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def nothing(cls, why: str) -> BatchPredictions:
        """Predictions that are left out."""
        return cls(pd.DataFrame(), (), (why,))


def batch_pairs(jobs: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[tuple[Path, Path, dict[str, Any]]]:
    """Pairs (source, target) of runs that differ by batch size alone, with the keys that they share.

    `jobs` are run folders with their swept keys. Runs of different seeds are no pair: they start elsewhere.
    """
    alike: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, (_, keys) in enumerate(jobs):
        rest = {k: v for k, v in keys.items() if k != KEY}
        if KEY in keys:
            alike.setdefault(repr(sorted(rest.items())), []).append((number, rest))
    pairs = sorted(
        ((a, b, rest) for of in alike.values() for (a, rest), (b, _) in permutations(of, 2)), key=lambda pair: pair[:2]
    )
    return [(jobs[a][0], jobs[b][0], rest) for a, b, rest in pairs if jobs[a][1][KEY] != jobs[b][1][KEY]]


def predict_batches(jobs: Sequence[tuple[Path, Mapping[str, Any]]], block: int = 1024) -> BatchPredictions:
    """Run the stochastic law over every pair whose source measured the gradient's mean and noise.

    The law starts from the target's charges and takes the target's hyperparameters; its drive is the source's
    M + T/B with the target's batch size B. It therefore holds as long as the two runs' mean
    gradients and noise are alike. A pair of which a record turns out to be damaged is left out, with a note.
    """
    return joined(predict_from(source, targets, block) for source, targets in sources(jobs))


def sources(
    jobs: Sequence[tuple[Path, Mapping[str, Any]]],
) -> list[tuple[Path, list[tuple[Path, dict[str, Any]]]]]:
    """Of each run those at another batch size whose charges it may predict, with the keys that they share."""
    found: dict[Path, list[tuple[Path, dict[str, Any]]]] = {}
    for source, target, rest in batch_pairs(jobs):
        found.setdefault(source, []).append((target, rest))
    return list(found.items())


def predict_from(source: Path, targets: Sequence[tuple[Path, dict[str, Any]]], block: int) -> BatchPredictions:
    """The predictions from one run."""
    tables, curves, notes = [], [], {}
    for target, rest in targets:
        try:
            found = _pair(source, target, block)
        except RecordError as error:
            notes[f"a prediction at another batch size is left out: {error}"] = None
            continue
        if found is None:
            break
        tables += [table.assign(**rest) for table, _ in found]
        curves += [curve for _, curve in found]
    return BatchPredictions(pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), (*curves,), (*notes,))


def joined(parts: Iterable[BatchPredictions]) -> BatchPredictions:
    """All predictions in one table."""
    parts = list(parts)
    tables = [part.table for part in parts if len(part.table)]
    return BatchPredictions(
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(),
        tuple(curve for part in parts for curve in part.curves),
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _pair(source: Path, target: Path, block: int) -> list[tuple[pd.DataFrame, BatchCurve]] | None:
    """The predictions of each family; None if the source measured no noise, and predicts nothing."""
    with open_record(source) as a:
        if all(LAWS["stochastic"].reason(circumstances(a, a.charges(family))) for family in a.families):
            return None
        with open_record(target) as b:
            for record in (a, b):
                record.cut(record.finite_rows())
            return [found for family in a.families if (found := _predict(a, b, family, block)) is not None]


def _predict(source: Record, target: Record, family: str, block: int) -> tuple[pd.DataFrame, BatchCurve] | None:
    law = LAWS["stochastic"]
    if family not in target.families or max(len(source.windows), len(target.windows)) > 1:
        return None
    drives, charges = source.charges(family), target.charges(family)
    if charges.is_translation or law.reason(circumstances(source, drives)) or len(drives) != len(charges):
        return None
    (of, *others) = classes(target, charges)
    if others or of.circumstances.mixed:  # several λ
        return None
    rows = min(source.rows, target.rows)
    kept = sampled(rows)
    integration = Integration(law, translation=False, signals=law.inputs)
    square, size, moved, start = (np.zeros(len(charges)) for _ in range(4))
    error = np.empty(len(kept))
    for first in range(0, rows, block):
        part = slice(first, min(first + block, rows))
        h = of.hyperparameters(hyperparameters(target, Stretch(part, slice(0, rows))))
        value = charges.value[part]
        start = value[0] if first == 0 else start
        inputs = np.stack([getattr(drives, name)[part] for name in law.inputs], axis=1)
        off = integration.advance(h, value[0], inputs) - value
        square += (off**2).sum(axis=0)
        size += (value**2).sum(axis=0)
        moved += ((value - start) ** 2).sum(axis=0)
        here = inside(kept, part)
        at = kept[here] - part.start
        error[here] = np.sqrt((off[at] ** 2).mean(axis=1) / (value[at] ** 2).mean(axis=1))
    sizes = [int(r.column("batch_size", slice(1))[0]) for r in (source, target)]
    sums = pd.DataFrame({"site": charges.index["site"], "square": square, "size": size, "moved": moved})
    by_site = sums.groupby("site", sort=False).sum()
    table = pd.DataFrame(
        {
            "from_batch": sizes[0],
            "to_batch": sizes[1],
            "family": family,
            "site": by_site.index,
            "steps": rows,
            "error": np.sqrt(by_site["square"] / by_site["size"]).to_numpy(),
            "unexplained": (by_site["square"] / by_site["moved"]).to_numpy(),
        }
    )
    return table, BatchCurve(family, sizes[0], sizes[1], target.column("step", kept), error)
