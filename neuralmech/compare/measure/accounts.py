"""Accounts, which close: what moved a charge, cause by cause, and what the loss lost as its gradient worked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from neuralmech.compare.measure.curves import LossCurve, sampled
from neuralmech.compare.measure.inputs import circumstances, hyperparameters, stretches
from neuralmech.laws.discrete import DiscreteBroken
from neuralmech.laws.system import Array, Hyperparameters, Integration, Law, Transition
from neuralmech.record import Charges, Record, RecordError

PARTS = ("weight_decay", "discretisation", "symmetry_breaking", "momentum_memory")
ORIGINS = ("memory_weight_decay", "memory_symmetry_breaking", "memory_discretisation", "memory_before")
EXACT = DiscreteBroken()
ORDERS = {"first": "−η⟨g_k, u_k⟩", "second": "−½η⟨g_k + g_{k+1}, u_k⟩"}


class Ledger(Law):
    """State (Q, P_λ, P_R, P_D, P_0): the discrete law, its momentum buffer split by what filled it.

    The exact law moves (Q, P) by Q ← Φ₀₀Q + Φ₀₁P + Γ_R R + Γ_D D, P ← Φ₁₀Q + Φ₁₁P + Γ'_R R + Γ'_D D. It is linear,
    so P = P_λ + P_R + P_D + P_0 with each part forced by Q, by R or by the drives alone, and P_0 what the buffer held
    when the record's window began. For plain SGD Φ₀₀ − 1 = −2ηλ, Γ_R = −2η, Γ_D = η² and Φ₀₁ = −2ηβ.
    """

    name = "ledger"
    label = heading = "ledger"
    equation = r"P = P_\lambda + P_R + P_D + P_0"
    source = "linearity of the discrete law"
    inputs = EXACT.inputs
    translation_inputs = EXACT.translation_inputs

    def matrices(self, h: Hyperparameters, *, translation: bool) -> Transition:
        """Φ of shape (rows, 5, 5) and Γ of shape (rows, 5, inputs)."""
        phi, gamma = EXACT.matrices(h, translation=translation)
        split = np.zeros((len(h), 5, 5))
        split[:, 0, 0], split[:, 0, 1:] = phi[:, 0, 0], phi[:, 0, 1, None]
        split[:, 1, 0] = phi[:, 1, 0]
        for part in (1, 2, 3, 4):
            split[:, part, part] = phi[:, 1, 1]
        forcing = np.zeros((len(h), 5, gamma.shape[2]))
        forcing[:, 0] = gamma[:, 0]
        forcing[:, 2, 0] = gamma[:, 1, 0]  # R
        forcing[:, 3, 1:] = gamma[:, 1, 1:]  # D, and uᵀSb under Nesterov
        return split, forcing

    def initial(self, value: Array, inputs: Array, h: Hyperparameters, *, translation: bool) -> Array:
        """(Q₀, 0, 0, 0, 0): the momentum buffer is empty."""
        return np.stack([value, *[np.zeros_like(value)] * 4])


@dataclass(frozen=True)
class Motion:
    """One family's motion over a run.

    Attributes
    ----------
    measured
        Q at the last row − Q at the first; of several windows of steps, the sum.
    parts
        Cause → its share of the motion, `PARTS`; momentum memory is the sum of its `ORIGINS`, given besides.
    """

    measured: Float64[Array, " charges"]
    parts: dict[str, Float64[Array, " charges"]]

    @property
    def closure(self) -> Float64[Array, " charges"]:
        """What the parts leave: the rounding of the parameters."""
        return self.measured - sum(self.parts[name] for name in PARTS)


def motion(record: Record, family: str, block: int = 1024) -> Motion:
    """Split the motion of each charge of a family by cause.

    One step of SGD moves a charge by Q_{k+1} − Q_k = −2η θᵀSu + η²D with θᵀSu = (1−δ)(λQ + R) + βP (with
    Nesterov, other weights of λQ + R and P), so over a run

    - weight decay is −Σ 2η(1−δ)λQ_k, what the present charge loses at once;
    - discretisation is Σ η²D_k, the kinetic breaking of the symmetry by steps of finite length;
    - symmetry breaking is −Σ 2η(1−δ)R_k, explicit: the gradient is not orthogonal to the generator;
    - momentum memory is −Σ 2ηβP_k: these three causes in earlier steps, carried here by the buffer. Its
      origins P_λ, P_R and P_D follow from linearity, and P_0 is what the buffer held before the record's window.
      For slow charges an origin sums to β/(1−β) times its instantaneous part (the drive: 2β/(1−β)), which gives
      the flow's 2λ/(1−β) and η(1+β)/(1−β).

    Q_k here is the discrete law's: the measured charges enter at a window's first row only (and at its second, if
    it begins in the middle of a run, which gives P_0), so `Motion.closure` tests the account. A translation charge
    has 1 in place of 2 and no drive.

    Raises
    ------
    RecordError
        If the record has no rows, or the exact law does not hold for it.
    """
    if record.rows == 0:
        raise RecordError(f"{record.path} holds no committed rows; train for at least one block")
    charges = record.charges(family)
    translation = charges.is_translation
    c = circumstances(record, charges)
    if reason := EXACT.reason(c):
        raise RecordError(f"{record.path}: no budget can be drawn up: {reason}")
    signals = EXACT.signals(translation=translation, nesterov=c.nesterov)
    ledger = Integration(Ledger(), translation=translation)
    measured = sum(charges.value[w.stop - 1] - charges.value[w.start] for w in record.windows)
    sums = {name: np.zeros(len(charges)) for name in (*PARTS[:3], *ORIGINS)}
    for stretch in stretches(record, block):
        rows, h = stretch.rows, hyperparameters(record, stretch)
        inputs = np.empty((len(h), len(signals), len(charges)))
        for i, signal in enumerate(signals):
            inputs[:, i] = getattr(charges, signal)[rows]
        states = ledger.states(h, charges.value[rows.start], inputs, stretch.following(charges))
        steps = min(rows.stop, stretch.window.stop - 1) - rows.start  # the last row's step is not in the record
        _add(sums, h[:steps], states[:steps], inputs[:steps], translation=translation)
    sums["momentum_memory"] = np.sum([sums[name] for name in ORIGINS], axis=0)
    return Motion(np.asarray(measured), sums)


def _add(sums: dict[str, Array], h: Hyperparameters, states: Array, inputs: Array, *, translation: bool) -> None:
    phi, gamma = EXACT.matrices(h, translation=translation)
    weights, memory = phi[:, 0, 0] - 1, phi[:, 0, 1]
    sums["weight_decay"] += weights @ states[:, 0]
    sums["symmetry_breaking"] += gamma[:, 0, 0] @ inputs[:, 0]
    for i in range(1, inputs.shape[1]):
        sums["discretisation"] += gamma[:, 0, i] @ inputs[:, i]
    for i, origin in enumerate(ORIGINS, start=1):
        sums[origin] += memory @ states[:, i]


def budget_table(record: Record, family: str, block: int = 1024) -> pd.DataFrame:
    """One row per site: the motion of its charges, summed, and what caused it.

    ``moved`` = Σ_c |ΔQ_c| is the scale: ``share_…`` are the parts relative to it, and ``closure_error`` =
    Σ_c |closure_c| / moved says how well the account closes, without cancellation between charges. Of a
    matrix-valued charge the diagonal counts: its sum, the trace, does not depend on the basis.
    """
    charges = record.charges(family)
    found = motion(record, family, block)
    per_charge = {
        "motion": found.measured,
        **{name: found.parts[name] for name in PARTS},
        "closure": found.closure,
        **{name: found.parts[name] for name in ORIGINS},
        "moved": np.abs(found.measured),
        "closure_error": np.abs(found.closure),
    }
    frame = pd.DataFrame({"site": charges.index["site"], "charges": 1, **per_charge})[_summed(charges)]
    table = frame.groupby("site", sort=False).sum().reset_index()
    table.insert(0, "family", family)
    table.insert(3, "steps", record.rows)
    moved = table["moved"].where(table["moved"] > 0)
    table["closure_error"] /= moved
    for name in (*PARTS, "closure"):
        table[f"share_{name}"] = table[name] / moved
    return table.assign(reason=np.where(table["moved"] > 0, "", "its charges did not move"))


def no_budget(table: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Rows of a budget that cannot be drawn up, for the sites of a comparison table: NaN and the reason."""
    columns = ["family", "site", "charges", "steps"]
    rows = table.loc[~table["site"].str.endswith(" |Q|"), columns].drop_duplicates(ignore_index=True)
    numbers = ["motion", *PARTS, "closure", *ORIGINS, "moved", "closure_error"]
    shares = [f"share_{name}" for name in (*PARTS, "closure")]
    return rows.assign(**dict.fromkeys([*numbers, *shares], np.nan), reason=reason)


def _summed(charges: Charges) -> Bool[NDArray, " charges"]:
    index = charges.index
    if "partner" not in index:
        return np.ones(len(index), dtype=bool)
    return (index["channel"] == index["partner"]).to_numpy()


def loss_balance(record: Record) -> tuple[pd.DataFrame, LossCurve | None]:
    """Balance the loss of a full-batch run; empty for other runs, whose steps see different losses or are skipped.

    The loss has no clock of its own: under gradient flow dL/dt = −⟨g, u⟩ with u = −θ̇ (Głuch & Urbanke 2021, time
    symmetry). Over a step of SGD, L_{k+1} − L_k = −η⟨g_k, u_k⟩ + O(η²); the mean of the gradients at both ends of the
    step adds the curvature along it, ½η²uᵀHu, and leaves O(η³). Whatever moves θ, momentum and weight decay included,
    is in u.

    Returns
    -------
    tuple
        A row per order: ``change`` = L_K − L_0, ``predicted``, ``error`` (RMS over the steps of predicted − measured,
        relative to the RMS of L_k − L_0), ``final_error``; and the curves.
    """
    work, behind = record.column("work"), record.column("work_behind")
    if record.rows < 2 or not work.any() or record.column("skipped").any():
        return pd.DataFrame(), None
    loss = record.column("loss")
    measured = loss - loss[0]
    each = {"first": work[:-1], "second": (work[:-1] + behind[1:]) / 2}
    predicted = {order: np.append(0.0, np.cumsum(steps)) for order, steps in each.items()}
    size = np.sqrt(np.mean(measured**2))
    rows = [
        {
            "order": order,
            "equation": ORDERS[order],
            "steps": record.rows,
            "change": measured[-1],
            "predicted": values[-1],
            "error": np.sqrt(np.mean((values - measured) ** 2)) / size if size else np.nan,
            "final_error": abs(values[-1] - measured[-1]) / size if size else np.nan,
        }
        for order, values in predicted.items()
    ]
    kept = sampled(record.rows)
    curve = LossCurve(record.column("step", kept), measured[kept], {o: v[kept] for o, v in predicted.items()})
    return pd.DataFrame(rows), curve
