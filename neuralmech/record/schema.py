"""What a record holds, version 1, and its rows before they are in the file.

======================================  ===============================================================
``/`` attributes                        ``format``, ``schema_version``, ``config`` (YAML), ``git_revision``,
                                        ``versions`` (JSON), ``seed``, ``device``, ``processes``, ``status``
``/committed``                          number of rows that are whole; readers take only these
``/steps/<column>``                     one number per row, see `STEP_COLUMNS`
``/charges/<family>/<signal>``          float64, shape (rows, charges), see `SIGNALS`
``/charges/<family>/index``             for each column its ``site`` and ``channel``; for the entries of a
                                        matrix-valued charge (family ``linear``) also the ``partner``; where they
                                        differ also ``decay`` and ``rule``, and of rules other
                                        than SGD ``entries``, see `Classes`
``/charges/linear/frobenius``           Frobenius norms, shape (rows, sites), NaN in rows where they were not
                                        measured; ``frobenius_index`` names the sites
``/charges/<family>/lean``             how far the rule's update leans on the generators, shape (rows, sites), NaN in
                                        rows where that was not measured; ``lean_index`` names the sites
``/charges/rotation/<signal>``          angular momenta between linear maps, shape (rows, pairs of channels), where
                                        ``track.rotations`` asks for them; see `neuralmech.charges.rotations`
``/charges/<family>/parameters``        single parameters, shape (rows, parameters); ``parameters_index``: ``name``,
                                        flat ``entry``, and the column of a ``charge`` it is part of
``/norms/<of>``                         |g|, |θ_k|, |u| of each parameter tensor, shape (rows, tensors), see `NORMS_OF`
``/norms/index``                        ``name``, ``shape`` and number of ``entries`` of each
``/rules/<column>``                     where groups of parameters have schedules of their own: what a step has under
                                        each rule, shape (rows, rules), see `RULE_COLUMNS`
``/evaluation/{step, loss, accuracy}``  on held-out data, with a ``committed`` of its own
======================================  ===============================================================

Row k holds the charges at θ_k and the drives of the step from θ_k to θ_{k+1}. Drives are raw signals, never
weighted or integrated in advance, so laws can change without training again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # the command line reads names of files here, before anything needs NumPy
    import numpy as np
    from jaxtyping import Int64
    from numpy.typing import NDArray


FORMAT = "neuralmech record"
SCHEMA_VERSION = 1
FILE_NAME = "record.h5"
PART = "part-"  # folders in it: the records of a training of the user's own after what is trained has changed
LOG_FILE = "logged.jsonl"  # beside it: what users log in loops of their own
LOCK_FILE = "checkpoints/.lock"  # beside it; who trains in the folder holds it from before there is a record
BLOCK = 256  # rows of a chunk, unless somebody wants others
SOME_ROWS = 16  # rows between those with what costs more: Frobenius norms, how far a rule leans on the generators
FAILURE_FILE = "failed.txt"  # beside the record or in its place: why a run was not finished

# Hyperparameters are those of the step from θ_k; time is Σ_{j<k} η_j; loss is that of the batch at θ_k; skipped
# counts the steps before θ_k whose update was left out because their gradient was not finite (fp16). In a run whose
# every batch is the whole set, work is ⟨g_k, θ_{k+1} − θ_k⟩ and work_behind ⟨g_k, θ_k − θ_{k−1}⟩; otherwise 0. clip is
# the factor by which the gradient was shortened (1: not at all). gradient_norm is |g| of the whole net, the gradient as
# the rule sees it; NaN if no norms are recorded. ascent_norm is that of the gradient at θ_k where the rule's is taken
# elsewhere, otherwise 0. segment counts how often something happened before the row
# that nobody measured: steps, where tracking began in the middle of a training or was resumed, or what moved parameters
# beside the optimiser's steps; laws start again there.
STEP_COLUMNS: dict[str, Any] = {
    "step": "int64",
    "time": "float64",
    "lr": "float64",
    "momentum": "float64",
    "dampening": "float64",
    "weight_decay": "float64",
    "nesterov": "int8",
    "decoupled": "int8",
    "batch_size": "int64",
    "loss": "float64",
    "skipped": "int64",
    "work": "float64",
    "work_behind": "float64",
    "clip": "float64",
    "gradient_norm": "float64",
    "ascent_norm": "float64",
    "segment": "int64",
}
# What stands for those that older records do not have.
LATER_COLUMNS: dict[str, float] = {"skipped": 0, "work": 0, "work_behind": 0, "clip": 1, "gradient_norm": math.nan}
LATER_COLUMNS |= {"ascent_norm": 0, "segment": 0}

# With the charge's form q(·) = ⟨a, ·⟩ or (·)ᵀS(·), the update direction u = (θ_k − θ_{k+1})/η and the gradient g as the
# rule sees it:
#   value q(θ), drive_update q(u), drive_gradient q(g), residual ⟨a, g⟩ or θᵀSg. Where a rule's laws need more, also
#   drive_buffer uᵀSb (⟨a, b⟩ for a translation charge) with SGD's momentum buffer b after the step;
#   drive_ascent hᵀSg with h the gradient at θ_k and g that of sharpness-aware minimisation;
#   decay θᵀSκθ, where parameters decay at different rates κηλ;
#   rule_work θᵀSv, with v the rule's update without decoupled weight decay;
#   drive_flip ¼(u_k − u_{k−1})ᵀS(u_k − u_{k−1}), where ``track.oscillation`` asks for it.
# Under Adam, with w = √v̂ + ε and the mean m after the step's gradient, the metric charge in
#   metric_value θ_kᵀSwθ_k, metric_carried θ_{k+1}ᵀSwθ_{k+1}, metric_drive mᵀSw⁻¹m, and where parameters decay at
#   different rates metric_decay θᵀSwκθ, metric_decay_twice θᵀSwκ²θ, metric_decay_mean θᵀSκm.
# Where learning rates differ, rη, S stands for S/r, g, b and m for rg, rb and rm.
SIGNALS = ("value", "drive_update", "drive_gradient", "residual")
NESTEROV_SIGNAL = "drive_buffer"
METRIC_SIGNALS = ("metric_value", "metric_carried", "metric_drive")
METRIC_DECAY_SIGNALS = ("metric_decay", "metric_decay_twice", "metric_decay_mean")
FLIP_SIGNAL = "drive_flip"
RULE_SIGNALS = (
    NESTEROV_SIGNAL,
    FLIP_SIGNAL,
    "drive_ascent",
    "decay",
    "rule_work",
    *METRIC_SIGNALS,
    *METRIC_DECAY_SIGNALS,
)
# Where measured, for quadratic charges: M and T of the drive's expectation M + T/B at batch size B.
NOISE_SIGNALS = ("gradient_mean", "gradient_noise")

ALL_SIGNALS = (*SIGNALS, *RULE_SIGNALS, *NOISE_SIGNALS)

SIDES = ("size", "size_gradient")  # θᵀ|S|θ and gᵀ|S|g of rescale charges, where ``track.sides`` asks for them

ROTATIONS = "rotation"  # a group beside the families: angular momenta, of antisymmetric generators, are no charges

NORMS = "norms"  # a group beside `charges`: norms of each parameter tensor
NORMS_OF = ("gradient", "parameter", "update")  # |g|, |θ_k| and |u| with g and u of `SIGNALS`, g without r

# A group beside `charges` where groups of parameters have schedules of their own: hyperparameters under each of the
# rules that an index counts. The drives of a charge are then of u = (θ_k − θ_{k+1})/η with the η of the rule that moves
# it; the η of ``/steps``, which is the largest of them, is that of charges that several rules move, and of norms.
RULES = "rules"
RULE_COLUMNS = ("time", "lr", "momentum", "dampening", "weight_decay", "nesterov")
BESIDE_CHARGES = (NORMS, RULES)

EVALUATION_COLUMNS: dict[str, Any] = {"step": "int64", "loss": "float64", "accuracy": "float64"}


class RecordError(ValueError):
    """A file that is no record, is damaged, or was written by a newer version; the message says which."""


class Classes(NamedTuple):
    """What tells charges of one family apart in the laws' eyes; None where it is one for all.

    Attributes
    ----------
    decays
        κ of each charge, whose parameters decay at the rate κηλ; NaN: at several.
    rules
        Number of the rule that moves each charge; −1: several.
    entries
        Number of parameters of each charge: Σ m_j, where learning rates differ Σ r_j m_j.
    """

    decays: NDArray[np.float64] | None = None
    rules: NDArray[np.int64] | None = None
    entries: NDArray[np.float64] | None = None

    def at(self, charges: Sequence[int] | Int64[NDArray, " some"]) -> Classes:
        """Those of some charges."""
        decays, rules, entries = self
        return Classes(
            None if decays is None else decays[charges],
            None if rules is None else rules[charges],
            None if entries is None else entries[charges],
        )

    def common(self, members: Sequence[Int64[NDArray, " members"]]) -> Classes:
        """Those of sums of charges."""
        import numpy as np

        def one(values: NDArray, otherwise: float) -> NDArray:
            return np.array([v[0] if (v == v[0]).all() else otherwise for v in (values[m] for m in members)])

        decays, rules, entries = self
        return Classes(
            None if decays is None else one(decays, np.nan),
            None if rules is None else one(rules, -1),
            None if entries is None else np.array([entries[m].sum() for m in members]),
        )


ONE_CLASS = Classes()


@dataclass(frozen=True)
class FamilyLayout:
    """What a family's datasets look like: one column per charge, one dataset per signal.

    A column of a matrix-valued charge is its entry (channel, partner); `norms` names the sites whose Frobenius
    norms are recorded besides, `leans` those of which is recorded how far the rule leans on the generators,
    `parameters` single parameters: name, entry, and the charge's column that it is part of. `rates` are the two rates a
    and b at which each rescale charge's sides move under its symmetry, where the sides are recorded.
    """

    sites: Sequence[str]
    channels: Sequence[int] | NDArray[np.int64]
    signals: Sequence[str]
    translation: bool
    partners: Sequence[int] | NDArray[np.int64] | None = None
    norms: Sequence[str] = ()
    parameters: Sequence[tuple[str, int, int]] = ()
    classes: Classes = ONE_CLASS
    leans: Sequence[str] = ()
    rates: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    @property
    def index(self) -> dict[str, Any]:
        """Columns of the table that says what each charge is."""
        found = {"partner": self.partners, "decay": self.classes.decays, "rule": self.classes.rules}
        found["entries"] = self.classes.entries
        found["rate_in"], found["rate_out"] = self.rates or (None, None)
        return {"site": self.sites, "channel": self.channels, **{n: v for n, v in found.items() if v is not None}}

    @property
    def columns(self) -> dict[str, int]:
        """Columns of each dataset."""
        besides = {"frobenius": len(self.norms), "lean": len(self.leans), "parameters": len(self.parameters)}
        return {**dict.fromkeys(self.signals, len(self.sites)), **{name: n for name, n in besides.items() if n}}

    @property
    def width(self) -> int:
        """Numbers per row."""
        return sum(self.columns.values())


@dataclass(frozen=True)
class NormsLayout(FamilyLayout):
    """What the datasets of norms look like: a column for each parameter tensor, of these shapes."""

    shapes: Sequence[tuple[int, ...]] = ()

    @property
    def index(self) -> dict[str, Any]:
        """Columns of the table that says what each tensor is."""
        shapes = ["x".join(map(str, shape)) for shape in self.shapes]
        return {"name": self.sites, "shape": shapes, "entries": [math.prod(shape) for shape in self.shapes]}


def tables(file: Mapping[str, Any]) -> dict[str, Any]:
    """Groups of a record with several columns: those of the families, of the norms and of the rules."""
    return {**file["charges"], **{name: file[name] for name in BESIDE_CHARGES if name in file}}


def stored(name: str, columns: Collection[str]) -> str | None:
    """What a column of ``/steps`` is called in a file that has `columns`; None if it lacks it.

    Before there were norms, ``gradient_norm`` was what is ``ascent_norm`` now.

    Examples
    --------
    >>> stored("ascent_norm", ["gradient_norm"]), stored("gradient_norm", ["gradient_norm"])
    ('gradient_norm', None)
    """
    if "ascent_norm" not in columns:
        name = {"ascent_norm": "gradient_norm", "gradient_norm": ""}.get(name, name)
    return name if name in columns else None


@dataclass(frozen=True)
class Rows:
    """Rows in memory: a column for every entry of `steps`, (rows, charges) for every family and signal."""

    steps: Mapping[str, NDArray]
    charges: Mapping[str, Mapping[str, NDArray[np.float64]]]

    def __len__(self) -> int:
        return len(self.steps["step"]) if self.steps else 0

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """One block out of several."""
        import numpy as np

        first = parts[0]
        return Rows(
            {name: np.concatenate([p.steps[name] for p in parts]) for name in first.steps},
            {
                family: {s: np.concatenate([p.charges[family][s] for p in parts]) for s in signals}
                for family, signals in first.charges.items()
            },
        )

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(
            {name: values[rows] for name, values in self.steps.items()},
            {f: {s: values[rows] for s, values in signals.items()} for f, signals in self.charges.items()},
        )

    @property
    def bytes(self) -> int:
        """Size before compression."""
        return 8 * sum(v.size for part in (self.steps, *self.charges.values()) for v in part.values())


@dataclass(frozen=True)
class Position:
    """A place in a record: rows in whole chunks, evaluations, and the rows that wait for their chunk to fill."""

    rows: int
    evaluations: int
    waiting: Rows


def held_out(loss: float, accuracy: float) -> str:
    """An evaluation in words; regressions have no accuracy.

    Examples
    --------
    >>> held_out(0.25, float("nan"))
    'held out: loss 0.2500'
    """
    if math.isnan(loss) and math.isnan(accuracy):
        return "no loss on held-out data"
    return f"held out: loss {loss:.4f}" + ("" if math.isnan(accuracy) else f", accuracy {accuracy:.1%}")
