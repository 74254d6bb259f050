"""The account of a charge, which closes: what moved it, by ultimate cause."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float64

from neuralmech.compare.measure.inputs import (
    MOSTLY,
    ChargeClass,
    Stretch,
    circumstances,
    classes,
    hyperparameters,
    of_parameters,
    resting_sites,
    rounding,
    signal,
    stretches,
)
from neuralmech.compare.measure.views import Family, diagonal
from neuralmech.compare.measure.views import family as family_of
from neuralmech.laws.adam import MovingMetric
from neuralmech.laws.discrete import DiscreteBroken
from neuralmech.laws.integration import Integration
from neuralmech.laws.system import Array, Circumstances, Hyperparameters, Law, Transition
from neuralmech.record import Record, RecordError
from neuralmech.record.schema import FLIP_SIGNAL, METRIC_DECAY_SIGNALS

CAUSES = ("weight_decay", "discretisation", "symmetry_breaking", "rule", "metric_drift", "memory_before")
THROUGH_MEMORY = {cause: f"memory_{cause}" for cause in ("weight_decay", "discretisation", "symmetry_breaking")}
BY_ROUNDING = "moved by rounding alone"
STILL = (BY_ROUNDING, "its charges did not move")  # why shares of the motion would say nothing
EXACT: tuple[Law, ...] = (DiscreteBroken(), MovingMetric())
# What an input of an exact law stands for.
CAUSE_OF = {
    **dict.fromkeys(("drive_update", "drive_buffer", "metric_drive"), "discretisation"),
    "residual": "symmetry_breaking",
    "metric_drift": "metric_drift",
    **dict.fromkeys(("decay", "plain_charge", *METRIC_DECAY_SIGNALS), "weight_decay"),
}
_SPLIT = ("weight_decay", "discretisation", "symmetry_breaking", "metric_drift")  # what fills a buffer


class Ledger(Law):
    """State (Q, P_λ, P_D, P_R, P_E, P_0): an exact law, its momentum split by what filled it.

    The law moves (Q, P) by Q ← Φ₀₀Q + Φ₀₁P + Σ Γ₀ᵢwᵢ, P ← Φ₁₀Q + Φ₁₁P + Σ Γ₁ᵢwᵢ with inputs w. It is linear, so P is
    a sum of parts, each forced by what one cause puts in, and P_0 what the buffer held when the record's window began.
    """

    def __init__(self, law: Law, c: Circumstances) -> None:
        self._law = law
        self.inputs = self.translation_inputs = self.names = law.signals(c)  # type: ignore[misc]
        order = law.in_order(translation=c.translation)
        self.columns = [order.index(name) for name in self.names]

    def law_matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ (rows, 2, 2) and Γ (rows, 2, inputs) of the law itself."""
        phi, gamma = self._law.matrices(h, translation=translation)
        return phi, gamma[:, :, self.columns]

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ of shape (rows, 6, 6) and Γ of shape (rows, 6, inputs)."""
        phi, gamma = self.law_matrices(h, translation=translation)
        states = 2 + len(_SPLIT)
        split = np.zeros((len(h), states, states))
        split[:, 0, 0], split[:, 0, 1:] = phi[:, 0, 0], phi[:, 0, 1, None]
        split[:, 1, 0] = phi[:, 1, 0]
        for part in range(1, states):
            split[:, part, part] = phi[:, 1, 1]
        forcing = np.zeros((len(h), states, gamma.shape[2]))
        forcing[:, 0] = gamma[:, 0]
        for i, name in enumerate(self.names):
            forcing[:, 1 + _SPLIT.index(CAUSE_OF[name]), i] = gamma[:, 1, i]
        return split, forcing

    def initial(self, value: Array, inputs: Array, h: Hyperparameters, *, translation: bool) -> Array:
        """(Q₀, 0, …): the momentum buffer is empty."""
        return np.stack([value, *[np.zeros_like(value)] * (1 + len(_SPLIT))])


@dataclass(frozen=True)
class Account:
    """One family's motion over a run.

    Attributes
    ----------
    measured
        Q at the last row − Q at the first; of several windows of steps, the sum.
    parts
        Cause → its share of the motion, all of `CAUSES`, and what of a cause came `THROUGH_MEMORY`. NaN where no
        account can be drawn up.
    reasons
        Why there is none; an empty string where there is one.
    """

    measured: Float64[Array, " charges"]
    parts: dict[str, Float64[Array, " charges"]]
    reasons: np.ndarray

    @property
    def closure(self) -> Float64[Array, " charges"]:
        """What the causes leave: the rounding of the parameters."""
        return self.measured - sum(self.parts[name] for name in CAUSES)


ACROSS = "lies across groups whose schedules are their own"


def account(record: Record, family: str, block: int = 1024) -> Account:
    """Split the motion of each charge of a family by cause.

    Where there is an exact law, each of its terms has a cause, and so has each part of the momentum: it holds earlier
    forcings of the same kinds. SGD moves a charge by Q_{k+1} − Q_k = −2η θᵀSu + η²D with θᵀSu = (1−δ)(λQ + R) + βP, so

    - weight decay is −Σ 2η(1−δ)λQ_k, and −Σ 2ηβP_λ through memory: what earlier decay left in the buffer;
    - discretisation is Σ η²D_k, the kinetic breaking of the symmetry by steps of finite length, and −Σ 2ηβP_D;
    - symmetry breaking is −Σ 2η(1−δ)R_k, explicit: the gradient is not orthogonal to the generator, and −Σ 2ηβP_R;
    - memory_before is −Σ 2ηβP_0: what the buffer held before the record's window.

    For slow charges the part through memory is β/(1−β) times the one at once (the drive: 2β/(1−β)), which gives
    the flow's 2λ/(1−β) and η(1+β)/(1−β). Q_k here is the law's: the measured charges enter at a window's first row only
    (and at its second, if it begins in the middle of a run), so `Account.closure` tests the account. Adam's metric
    charge is split alike, by `MovingMetric`, with the metric's drift E as a cause of its own.

    Any other rule moves a charge by −2η(λQ + θᵀSv) + η²D: decoupled weight decay, the rule's work with v its update
    without decay, discretisation. There the measured charges are summed. What weight decay does through the rule is
    in its work. A translation charge has 1 in place of 2 and no drive.

    Raises
    ------
    RecordError
        If the record has no rows.
    """
    if record.rows == 0:
        raise RecordError(f"{record.path} holds no committed rows; train for at least one block")
    charges = family_of(record, family)
    n = len(charges)
    names = (*CAUSES, *THROUGH_MEMORY.values())
    parts, reasons = {name: np.full(n, np.nan) for name in names}, np.full(n, "", dtype=object)
    for of in classes(record, charges):
        exact = _exact(of)
        if exact is not None:
            found = _by_law(record, charges, of, exact, block)
        elif why := _apart(record, of) or _no_plain(of.circumstances):
            reasons[of.columns] = why
            continue
        else:
            found = _by_rule(record, charges, of, block)
        for name in names:
            parts[name][of.columns] = found.get(name, 0.0)
    measured = sum(charges.value[w.stop - 1] - charges.value[w.start] for w in record.windows)
    return Account(np.asarray(measured), parts, reasons)


def _exact(of: ChargeClass) -> Law | None:
    """The law that tells all causes apart, if one holds."""
    laws = (law.within(of.circumstances) for law in EXACT)
    return next((law for law in laws if not law.reason(of.circumstances)), None)


def _no_plain(c: Circumstances) -> str:
    """Why the plain account cannot be drawn up either."""
    if c.optimizer in EXACT[0].optimizers or c.metric:
        return EXACT[int(c.metric)].within(c).reason(c)
    if missing := [name for name in _plain_signals(c) if name not in c.signals]:
        return f"the record lacks {missing[0]}"
    return "" if c.every_step else "needs every step: the rule's work is that of one"


def _apart(record: Record, of: ChargeClass) -> str:
    """Why no account can be drawn up of charges that lie across rules with schedules of their own, if so."""
    c = of.circumstances
    is_across = not c.optimizer and bool(record.rule.get("apart"))
    from_motion = "rule_work" in c.signals and "metric_value" not in c.signals  # else v is of the moments, without η
    return ACROSS if is_across and not from_motion else ""


def _by_law(record: Record, charges: Family, of: ChargeClass, law: Law, block: int) -> dict[str, Array]:
    translation, c = charges.is_translation, of.circumstances
    ledger = Ledger(law, c)
    run = Integration(ledger, translation=translation, signals=ledger.names)
    sums: dict[str, Array] = {}
    for stretch in stretches(record, block):
        h = of.hyperparameters(hyperparameters(record, stretch))
        start = charges.value[stretch.rows.start][of.columns]
        inputs = np.empty((len(h), len(ledger.names), len(start)))
        for i, name in enumerate(ledger.names):
            inputs[:, i] = signal(record, charges, name, stretch)[:, of.columns]
        following = stretch.following(charges)
        ahead = None if following is None else following[of.columns]
        states = run.states(h, start, inputs, ahead)
        steps = _steps(stretch)
        phi, gamma = ledger.law_matrices(h[:steps], translation=translation)
        _add(sums, "weight_decay", (phi[:, 0, 0] - 1) @ states[:steps, 0])
        for i, name in enumerate(ledger.names):
            _add(sums, CAUSE_OF[name], gamma[:, 0, i] @ inputs[:steps, i])
        for i, cause in enumerate((*_SPLIT, "memory_before"), start=1):
            share = phi[:, 0, 1] @ states[:steps, i]
            _add(sums, cause, share)
            if cause in THROUGH_MEMORY:
                _add(sums, THROUGH_MEMORY[cause], share)
    return sums


def _by_rule(record: Record, charges: Family, of: ChargeClass, block: int) -> dict[str, Array]:
    c, sums = of.circumstances, dict[str, Array]()
    is_adams = record.rule["name"] in EXACT[1].optimizers  # and v is of its moments
    factor = 1 if c.translation else 2
    for stretch in stretches(record, block):
        steps, own = _steps(stretch), of if is_adams else replace(of, rounds_decay=False)
        h = own.hyperparameters(hyperparameters(record, stretch))  # v of others is what λ as it is written left of u
        lr = np.where(h.span > 0, h.lr, 0.0)[:steps]
        read = {n: signal(record, charges, n, stretch)[:steps, of.columns] for n in _plain_signals(c)}
        decays = read["decay" if c.mixed else "value"]
        rate = lr * np.where(h.decoupled, h.weight_decay, 0.0)[:steps]
        _add(sums, "weight_decay", -factor * rate @ decays)
        _add(sums, "rule", -factor * lr @ read["rule_work"])
        if not c.translation:
            _add(sums, "discretisation", lr**2 @ read["drive_update"])
    return sums


def _plain_signals(c: Circumstances) -> tuple[str, ...]:
    return ("rule_work", *(() if c.translation else ("drive_update",)), "decay" if c.mixed else "value")


def _steps(stretch: Stretch) -> int:
    """Rows whose step is in the record to its end."""
    return min(stretch.rows.stop, stretch.window.stop - 1) - stretch.rows.start


def _add(sums: dict[str, Array], name: str, value: Array) -> None:
    sums[name] = sums.get(name, 0.0) + value


def _flips(record: Record, charges: Family, block: int) -> dict[str, Array]:
    """|Σ η²F| and |Σ η²D| of each charge, with F the form of half of what the update changed by."""
    flipped, driven = np.zeros(len(charges)), np.zeros(len(charges))
    for stretch in stretches(record, block):
        steps = _steps(stretch)
        h = hyperparameters(record, stretch)
        weight = (np.where(h.span > 0, h.lr, 0.0) ** 2)[:steps]
        flipped += weight @ charges.drive_flip[stretch.rows][:steps]
        driven += weight @ charges.drive_update[stretch.rows][:steps]
    return {"flipped": np.abs(flipped), "driven": np.abs(driven)}


def budget_table(record: Record, family: str, block: int = 1024) -> pd.DataFrame:
    """One row per site: the motion of its charges, summed, and what caused it.

    ``moved`` = Σ_c |ΔQ_c| is the scale: ``share_…`` are the parts relative to it, and ``closure_error`` =
    Σ_c |closure_c| / moved says how well the account closes, without cancellation between charges. Of a
    matrix-valued charge the diagonal counts: its sum, the trace, does not depend on the basis. ``memory_…`` is what of
    a cause came through memory; it is in the cause. Where most of the charges rest, or causes leave most of the motion
    and no more than rounding can do, rounding moved the charges, and shares are left out. Where ``drive_flip`` is
    recorded, ``oscillation`` is Σ_c|Σ_k η²F| over Σ_c|Σ_k η²D|: what of discretisation at once came of updates that
    change from step to step.
    """
    charges = family_of(record, family)
    found = account(record, family, block)
    per_charge = {
        "motion": found.measured,
        **{name: found.parts[name] for name in CAUSES},
        "closure": found.closure,
        **{name: found.parts[name] for name in THROUGH_MEMORY.values()},
        "moved": np.abs(found.measured),
        "closure_error": np.abs(found.closure),
        "rounds": of_parameters(record) * np.abs(found.measured - charges.value[record.rows - 1])
        + max(0.0, rounding(record, charges)),
    }
    if FLIP_SIGNAL in charges.signals:
        per_charge |= _flips(record, charges, block)
    kept = diagonal(charges.index)
    frame = pd.DataFrame({"site": charges.index["site"], "charges": 1, **per_charge, "reason": found.reasons})[kept]
    groups = frame.groupby("site", sort=False)
    table = groups[["charges", *per_charge]].agg(lambda column: column.sum(skipna=False)).reset_index()
    reasons = groups["reason"].agg(lambda why: next((w for w in why if w), "")).to_numpy()
    table.insert(0, "family", family)
    table.insert(3, "steps", record.rows)
    moved = table["moved"].where(table["moved"] > 0)
    table["closure_error"] /= moved
    for name in (*CAUSES, "closure"):
        table[f"share_{name}"] = table[name] / moved
    if FLIP_SIGNAL in charges.signals:
        driven = table.pop("driven")
        table["oscillation"] = table.pop("flipped") / driven.where(driven > 0)
    left = table["closure_error"] * table["moved"]
    can_round = circumstances(record, charges).every_step & (left <= table.pop("rounds"))
    rests = table["site"].isin(resting_sites(record, charges, block))
    rounded = np.where(rests | (can_round & (table["closure_error"] > MOSTLY)), BY_ROUNDING, "")
    still = np.where(table["moved"] > 0, rounded, STILL[1])
    table["reason"] = np.where(reasons != "", reasons, still)
    table.loc[table["reason"] == BY_ROUNDING, [f"share_{name}" for name in CAUSES]] = np.nan
    return table
