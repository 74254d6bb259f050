"""What a law is.

A law is x_{k+1} = Φ_k x_k + Γ_k w_k. The state x holds one to three numbers per charge, the first of them the
charge; the inputs w are recorded drives. Φ_k and Γ_k depend on the hyperparameters of step k alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

AT_REST = "starts at zero, where every law leaves it, and moves by rounding alone"
Array = NDArray[np.float64]
PerRow = Float64[Array, " rows"]
Transition = tuple[Float64[Array, "rows states states"], Float64[Array, "rows states inputs"]]  # Φ and Γ


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of consecutive rows of a record.

    Attributes
    ----------
    lr, momentum, dampening, weight_decay
        η, β, δ, λ of the step that starts at the row.
    nesterov
        Whether the step is Nesterov's.
    span
        Updates from this row to the next: the steps between them less those that were skipped. Time stands still
        over a span of 0, and so does every law.
    first
        Whether no update came before: PyTorch then sets the momentum buffer to the gradient.
    decoupled
        Whether weight decay acts on the parameters directly (SGDW) and not through the gradient.
    batch_size
        Samples in the batch whose gradient drives the step.
    updates
        Updates taken before the step.
    of_rules
        η, β, δ, λ, and whether the step is Nesterov's, under each of several rules with schedules of their own; None
        where they have none.
    """

    lr: PerRow
    momentum: PerRow
    dampening: PerRow
    weight_decay: PerRow
    nesterov: Bool[NDArray, " rows"]
    span: PerRow
    first: Bool[NDArray, " rows"]
    decoupled: Bool[NDArray, " rows"]
    batch_size: Int64[NDArray, " rows"]
    updates: Int64[NDArray, " rows"]
    of_rules: Mapping[str, Float64[Array, "rows rules"]] | None = None

    def __len__(self) -> int:
        return len(self.lr)

    @property
    def gain(self) -> PerRow:
        """Share of a new gradient that enters the momentum buffer: 1 − δ, and 1 on the first step or if β = 0."""
        return np.where(self.first, 1.0, self.usual_gain)

    @property
    def usual_gain(self) -> PerRow:
        """Share of a new gradient that enters the momentum buffer after the first step: 1 − δ, and 1 if β = 0."""
        return np.where(self.momentum == 0, 1.0, 1.0 - self.dampening)

    @staticmethod
    def steady(
        lr: float, momentum: float = 0.0, weight_decay: float = 0.0, *, rows: int = 1, decoupled: bool = False
    ) -> Hyperparameters:
        """Those of some rows in the middle of a run of SGD whose hyperparameters do not change."""
        of = {"lr": lr, "momentum": momentum, "dampening": 0.0, "weight_decay": weight_decay, "span": 1.0}
        flags = {"nesterov": False, "first": False, "decoupled": decoupled}
        numbers = {name: np.full(rows, value) for name, value in {**of, **flags}.items()}
        counts = {"batch_size": np.ones(rows, dtype=int), "updates": 1 + np.arange(rows)}
        return Hyperparameters(**numbers, **counts, of_rules=None)

    def under(self, rule: int) -> Hyperparameters:
        """The same as they are under one of several rules, if it has a schedule of its own."""
        if self.of_rules is None or rule < 0:
            return self
        own = {name: values[:, rule] for name, values in self.of_rules.items()}
        return replace(self, **{**own, "nesterov": own["nesterov"].astype(bool)}, of_rules=None)

    def __getitem__(self, rows: slice) -> Hyperparameters:
        found = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "of_rules"}
        own = None if self.of_rules is None else {name: values[rows] for name, values in self.of_rules.items()}
        return Hyperparameters(**{name: values[rows] for name, values in found.items()}, of_rules=own)


@dataclass(frozen=True)
class Circumstances:
    """What a law must know of a run to say whether it holds there.

    Attributes
    ----------
    family
        Family of the charges.
    signals
        What the record holds for them.
    optimizer
        The rule that moves them: ``sgd``, ``sgdw``, ``adam``, ``adamw``, ``muon``, or one that has no law; empty if
        there are several.
    momentum, dampening, nesterov
        Whether any step has them.
    decoupled
        Whether weight decay acts on the parameters directly.
    mixed
        Whether the parameters of a charge decay at different rates.
    ascent, clipped
        Whether gradients are those of sharpness-aware minimisation, or may be shortened or cut.
    metric
        Whether these are the charges in Adam's metric.
    every_step
        Whether there is a row for every step.
    resting
        Whether the charges start at zero and move by rounding alone.
    """

    family: str
    translation: bool
    signals: tuple[str, ...]
    optimizer: str = "sgd"
    momentum: bool = False
    dampening: bool = False
    nesterov: bool = False
    decoupled: bool = False
    mixed: bool = False
    ascent: bool = False
    clipped: bool = False
    metric: bool = False
    every_step: bool = True
    resting: bool = False


class Law(ABC):
    """One theory of how a charge moves.

    Class attributes say what it is: `name` in files and options, `label` (the same in words) wherever people read it,
    `equation` (LaTeX, for a quadratic charge), `source`, `omits` (what is missing where it degrades), `holds` (which of
    `kinds.CONTENTS` it accounts for), and `inputs` and `translation_inputs`, the recorded signals that drive it for a
    quadratic and a translation charge.
    `optimizers` are the rules that it is derived for, `conserving` those for whose translation charges it holds too:
    they do not move these, but for weight decay.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    equation: ClassVar[str]
    source: ClassVar[str]
    omits: ClassVar[str]
    holds: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...]] = ()
    translation_inputs: ClassVar[tuple[str, ...]] = ()
    optimizers: ClassVar[tuple[str, ...]] = ("sgd", "sgdw")
    conserving: ClassVar[tuple[str, ...]] = ()

    def is_shown(self, c: Circumstances) -> bool:
        """Whether tables have room for it: it is for the run's rule, or says that decay alone moves a charge."""
        return not c.metric and (c.optimizer in self.optimizers or bool(self.conserving))

    def within(self, c: Circumstances) -> Law:
        """The law as it stands under some circumstances."""
        return self

    def reason(self, c: Circumstances) -> str:
        """Why the law says nothing of some charges of a run; an empty string if it does."""
        return AT_REST if c.resting else self.objection(c)

    def objection(self, c: Circumstances) -> str:
        """Why the law does not hold for charges that move; an empty string if it does."""
        if c.metric:
            return "not derived for charges in Adam's metric"
        if c.optimizer not in self.optimizers and not (c.translation and c.optimizer in self.conserving):
            return _why_not_for(c)
        if c.mixed:
            return "its parameters decay at different rates, and the law has one λ"
        return self._lacks(c)

    def _lacks(self, c: Circumstances) -> str:
        missing = [s for s in self.signals(c) if s not in c.signals]
        return f"the record lacks {missing[0]}" if missing else ""

    def observe(self, state: Float64[Array, "rows charges"]) -> Float64[Array, "rows charges"]:
        """The charge, given the first number of the state."""
        return state

    def in_order(self, *, translation: bool) -> tuple[str, ...]:
        """All signals that may drive the law, in the order of Γ's columns."""
        return self.translation_inputs if translation else self.inputs

    def signals(self, c: Circumstances) -> tuple[str, ...]:
        """Those that do: uᵀSb is D itself but for Nesterov's momentum."""
        return tuple(s for s in self.in_order(translation=c.translation) if c.nesterov or s != "drive_buffer")

    @abstractmethod
    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ and Γ of each row, with the inputs in full order."""

    def initial(
        self,
        value: Float64[Array, " charges"],
        inputs: Float64[Array, "inputs charges"],
        h: Hyperparameters,
        *,
        translation: bool,
    ) -> Float64[Array, "states charges"]:
        """State at the first row, from the charges there and the inputs of its step."""
        return value[None, :]


class Remembering(Law):
    """A law whose state is a charge and what a rule's memory holds of it, (Q, P)."""

    def initial(self, value: Array, inputs: Array, h: Hyperparameters, *, translation: bool) -> Array:
        """(Q₀, 0): the memory is empty."""
        return np.stack([value, np.zeros_like(value)])


class Uneven(Remembering):
    """A law as it stands for charges whose parameters decay at different rates: what decays is an input."""

    def __init__(self, law: Law) -> None:
        self._law = law
        self.name, self.label, self.holds = law.name, law.label, law.holds  # type: ignore[misc]

    def objection(self, c: Circumstances) -> str:
        """As of the law, but for the decay."""
        return self._law.objection(replace(c, mixed=False)) or self._lacks(c)


def _why_not_for(c: Circumstances) -> str:
    if not c.optimizer:
        return "two rules move it together"
    if c.optimizer.startswith("adam"):
        return f"{c.optimizer} moves each parameter at a rate of its own, which the symmetry does not share"
    if c.optimizer == "muon":
        return "muon makes all directions of a matrix equally long, which this symmetry does not share"
    return f"not derived for {c.optimizer}"
