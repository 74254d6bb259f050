"""One record of an attached training: from θ_k, the gradient and θ_{k+1} of each step to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from neuralmech.attachment.clock import Clock
from neuralmech.attachment.measuring import measuring, scaled
from neuralmech.attachment.rules import ForeignRule
from neuralmech.attachment.vectors import FlatVectors
from neuralmech.attachment.writing import Writing
from neuralmech.charges.leaning import Leaning
from neuralmech.loggers import opened
from neuralmech.record.schema import NORMS_OF, SOME_ROWS
from neuralmech.symmetry.group import Symmetries
from neuralmech.track import Schedule, Tracker, Tracking
from neuralmech.track.block import Seen


@dataclass(frozen=True)
class Selection:
    """What is measured, see `attach`."""

    every: int = 1
    families: Sequence[str] | None = None
    charges: str = "all"
    signals: Sequence[str] | None = None
    norms_of: Sequence[str] = NORMS_OF
    logger: str = "none"
    logger_every: int = 100


class Recording:
    """Measures steps and writes their rows.

    Parameters
    ----------
    folder
        Where the record goes.
    vectors, rule
        Of the parameters that are trained.
    symmetries
        Of the model with these parameters.
    clock
        Where the training is; it is moved on.
    """

    def __init__(
        self,
        folder: Path,
        vectors: FlatVectors,
        rule: ForeignRule,
        symmetries: Symmetries,
        measured: Selection,
        clock: Clock,
    ) -> None:
        self._folder, self.vectors, self.rule, self._clock = folder, vectors, rule, clock
        self._schedule, self._wanted = Schedule(measured.every), measured
        self.tracker = self._made(symmetries)
        self._steps = measuring(vectors, rule, self.tracker)
        self._symmetries = symmetries
        self._writing = Writing(folder)
        self._pending: dict[str, list[Any]] = {}
        self._row: dict[str, float] | None = None
        self._overflow: Tensor | None = None
        self._skipped: Tensor | None = None
        self._unknown = torch.full((), float("nan"), dtype=torch.float64, device=vectors.device)
        self._segments: tuple[tuple[int, int, int], Tensor] | None = None
        self._rows, self._begun = 0, clock.step
        self._has_after = False
        self._times = torch.zeros(1, len(rule.apart), dtype=torch.float64)  # Σ η under each rule
        self._own: Tensor | None = None  # of the step about to be taken

    def _made(self, symmetries: Symmetries) -> Tracker:
        rule, m = self.rule, self._wanted
        options = Tracking(
            families=m.families,
            extra=rule.signals,
            kept=m.signals,
            norms_of=m.norms_of,
            charges=m.charges,
            ratios=rule.ratios,
            decays=rule.decays,
            rules=rule.rules,
            entries=not rule.has_sgds_laws,
            momentum="buffer" if rule.has_sgds_laws else "rule",
            apart=rule.apart,
        )
        return Tracker(symmetries, self.vectors.layout, self.vectors.empty(), options)

    def open(self, attributes: Mapping[str, object], *, extend: bool) -> None:
        """Open the record, see `Writing.open`."""
        m, config = self._wanted, {"optim": self.rule.config()}
        layouts = self.tracker.layouts()
        self._writing.open(
            self.tracker,
            attributes,
            lambda: opened(m.logger, self._folder, config, layouts, m.logger_every),
            extend=extend,
        )

    def begin(
        self, row: Mapping[str, float], samples: int, before: Mapping[str, Float[Tensor, "*shape"]] | None = None
    ) -> None:
        """Keep θ_k, which is where the model is or what is given, and hyperparameters of a step about to be taken."""
        self._writing.write_if_due(self.tracker)  # not sooner than the next step, for the log's sake
        if self._skipped is not None and self._overflow is not None:
            self._skipped += self._overflow
        self._row = {**row, "step": self._clock.step, "time": self._clock.time}
        self._row["batch_size"] = samples
        if self.rule.apart:
            self._own = torch.cat([self._times, self.rule.own])
        if self.wants_row:
            self._steps.begin(self.vectors.parameters if before is None else before, follows=self._has_after)

    @property
    def wants_row(self) -> bool:
        """Whether the present step is recorded."""
        return self._schedule.wants(self._clock.step)

    def gradient(self, optimizer: Optimizer, samples: int, *, may_change: bool) -> None:
        """See the gradients that an optimiser is about to use; a closure has only now seen its samples."""
        if self._row is None:
            return
        self._row["batch_size"] = self._row["batch_size"] or samples
        self._see_overflow(optimizer)
        if self.wants_row:
            self._steps.gradient(optimizer, may_change=may_change)

    def _see_overflow(self, optimizer: Optimizer) -> None:
        _, found = scaled(optimizer)
        if found is None:
            return
        if self._skipped is None:
            self._skipped = torch.zeros((), dtype=torch.float64, device=self.vectors.device)
            self._overflow = torch.zeros((), dtype=torch.float64, device=self.vectors.device)
        assert self._overflow is not None
        self._overflow.copy_(found)

    def end(self) -> None:
        """The step was taken: record its row."""
        row, self._row = self._row, None
        if row is None:
            return
        self._has_after = self.wants_row and self._measured(row)
        if self._has_after:
            self._writing.log.add(self._clock.step, {name: _mean(found) for name, found in self._pending.items()})
        elif self.wants_row:  # a step that nobody saw
            self._clock.segment += 1
        self._pending = {}
        self._clock.step += 1
        self._clock.time += row["lr"]
        if self._own is not None:
            self._times = self._times + self._own[1:2]  # η

    def _measured(self, row: Mapping[str, float]) -> bool:
        """Whether the row could be measured, and was."""
        norms, self._rows = self._rows % SOME_ROWS == 0, self._rows + 1
        seen = Seen(skipped=self._skipped, segment=self._segment(), rules=self._own)
        return self._steps.end(row, self._loss(self._pending.pop("loss", [])), seen, norms=norms)

    def _segment(self) -> Tensor:
        """How often something was not measured, added up anew only where it may have changed."""
        moved = self._steps.moved
        key = id(moved), moved._version, self._clock.segment
        if self._segments is None or self._segments[0] != key:
            self._segments = key, moved + self._clock.segment
        return self._segments[1]

    @property
    def steps(self) -> int:
        """Steps since it began."""
        return self._clock.step - self._begun

    @property
    def across(self) -> int:
        """Charges that lie across rules with schedules of their own."""
        layouts = self.tracker.layouts().values()
        return sum(int((of.classes.rules < 0).sum()) for of in layouts if of.classes.rules is not None)

    @property
    def was_recorded(self) -> bool:
        """Whether the last step was."""
        return self._has_after

    @property
    def has_row(self) -> bool:
        """Whether the last step was recorded, of all parameters."""
        return self._has_after and self._steps.has_all_gradients

    def leaning(self) -> dict[tuple[str, str], float]:
        """Family and site → how much of the last step's gradient leans on the generators, as a share of its length."""
        leaning = Leaning(self.tracker.families, self.vectors.layout, self.vectors.device)
        gradient = self.vectors.room("gradient")
        step = self.tracker.step(self.vectors.room("after"), gradient, 0.0)
        step = step._replace(rule=step.gradient.double())  # in the metric of the groups' learning rates
        out = torch.zeros(leaning.count, dtype=torch.float64, device=self.vectors.device)
        leaning.evaluate(step, out)
        length = step.gradient.double().square().sum().clamp(min=1e-300)
        out *= (leaning.sizes() / length).sqrt()  # else rounding counts where nothing else is
        names = [(family, site) for family, sites in leaning.sites.items() for site in sites]
        return dict(zip(names, out.tolist(), strict=True))

    @torch.no_grad()
    def log(self, values: Mapping[str, Any], *, of_coming: bool) -> None:
        """Values of the coming step, or of the one that was taken last."""
        filled = self.tracker.block.filled  # rows that can be changed
        if of_coming or not filled:
            for name, value in values.items():
                self._pending.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)
            return
        if not self._has_after:  # it is not recorded
            return
        rest = dict(values)
        if "loss" in rest:
            self.tracker.block.room.slot(filled - 1).loss.copy_(self._loss([rest.pop("loss")]))
        values = {n: v.detach() if isinstance(v, Tensor) else v for n, v in rest.items()}
        self._writing.log.add(self._clock.step - 1, values)

    def _loss(self, found: Sequence[Any]) -> Tensor:
        if not found:
            return self._unknown
        mean = _mean(found)
        return mean.detach() if isinstance(mean, Tensor) else torch.tensor(float(mean), device=self.vectors.device)

    def move(self, vectors: FlatVectors) -> None:
        """Go on where the model is now."""
        self._writing.hand_over(self.tracker)
        self.vectors = vectors
        self.tracker = self._made(self._symmetries)
        moved = self._steps.moved.to(vectors.device)
        self._steps = measuring(vectors, self.rule, self.tracker)
        self._steps.moved += moved
        self._unknown = self._unknown.to(vectors.device)
        self._has_after = False
        if self._skipped is not None and self._overflow is not None:
            self._skipped, self._overflow = self._skipped.to(vectors.device), self._overflow.to(vectors.device)

    def abandon(self) -> None:
        """Let go of the record as it is."""
        self._writing.abandon()

    def close(self, status: str) -> int:
        """Write what is left; returns the rows of the record."""
        return self._writing.close(self.tracker, status)


def _mean(found: Sequence[Any]) -> Any:
    """Of what was said of one step; of micro-batches it is their mean."""
    return found[0] if len(found) == 1 else sum(found) / len(found)
