"""How far rescale pairs are from noise equilibrium, along the orbit of their symmetry."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from neuralmech.compare.measure.inputs import classes
from neuralmech.laws.orbit import OrbitSides, to_equilibrium
from neuralmech.laws.system import Array
from neuralmech.record import Charges, Record

FAMILY = "rescale"
COLUMNS = ("site", "charges", "start", "end", "noise", "decay", "reason")
WINDOWS = 50  # of the run: gradients are averaged over each


@dataclass(frozen=True)
class OrbitCurve:
    """RMS of α* over the charges of each site, in windows of the run."""

    step: Int64[NDArray, " windows"]
    distance: dict[str, Float64[Array, " windows"]]


def noise_equilibrium(record: Record) -> tuple[pd.DataFrame, OrbitCurve | None]:
    """One row per rescale site, where both sides were recorded; empty elsewhere.

    α* is how far along the symmetry's orbit a charge's pair is from the point where weight decay and the noise of
    gradients leave it on average, see `to_equilibrium`; G is the mean of gᵀSg over a fiftieth of the run. ``start`` and
    ``end`` are the RMS of α* over the charges in the first and the last of these windows; ``noise`` and ``decay`` are
    the shares of η′(G₊ + G₋) and 2λ(q₊ + q₋) in the last.
    """
    charges = record.charges(FAMILY) if FAMILY in record.families else None
    if charges is None or "size" not in charges.signals or record.rows < 2:
        return pd.DataFrame(columns=pd.Index(COLUMNS)), None
    edges = np.unique(np.linspace(0, record.rows, min(WINDOWS, record.rows) + 1).astype(int))
    decay, why = _decay(record, charges)
    windows = [_window(record, charges, slice(a, b), decay) for a, b in pairwise(edges.tolist())]
    alpha, forces = np.stack([found for found, _ in windows]), windows[-1][1]
    sites = charges.index["site"].to_numpy()
    rows, distance = [], {}
    for site in dict.fromkeys(sites):
        of = (sites == site) & np.isfinite(alpha).all(axis=0)
        reasons = [w for w in why[sites == site] if w] or ["nothing acts on its charges, or at more rates than two"]
        if not of.any():
            rows.append((site, int((sites == site).sum()), *[np.nan] * 4, reasons[0]))
            continue
        rms = np.sqrt((alpha[:, of] ** 2).mean(axis=1))
        distance[site] = rms
        noise, weights = (force[of].sum() for force in forces)
        total = noise + weights
        some = f"of {of.sum()} charges; of the others: {reasons[0]}" if of.sum() < (sites == site).sum() else ""
        rows.append((site, int((sites == site).sum()), rms[0], rms[-1], noise / total, weights / total, some))
    middles = record.column("step", (edges[:-1] + edges[1:] - 1) // 2)
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS)), OrbitCurve(middles, distance) if distance else None


def _decay(record: Record, charges: Charges) -> tuple[Float64[Array, " charges"], NDArray[np.object_]]:
    """Factor on λ of each charge, and why it has no equilibrium that is derived."""
    kappa, why = np.ones(len(charges)), np.full(len(charges), "", dtype=object)
    for of in classes(record, charges):
        c = of.circumstances
        kappa[of.columns] = of.decay
        if c.optimizer not in ("sgd", "sgdw"):
            why[of.columns] = f"not derived for {c.optimizer or 'two rules'}"
        elif c.mixed:
            why[of.columns] = "its parameters decay at different rates"
        elif c.nesterov or c.dampening:
            why[of.columns] = "not derived for Nesterov momentum and dampening"
        elif c.ascent or c.clipped:
            why[of.columns] = "gradients are not those of the loss"
    kappa[why != ""] = np.nan
    return kappa, why


def _window(
    record: Record, charges: Charges, rows: slice, kappa: Float64[Array, " charges"]
) -> tuple[Array, tuple[Array, Array]]:
    """α* of each charge, and how strong noise and weight decay are, by means over some rows: (charges,) each."""
    value, size, gradient, of_size = (
        getattr(charges, name)[rows].mean(axis=0) for name in ("value", "size", "drive_gradient", "size_gradient")
    )
    memory = 1 - record.column("momentum", rows).mean()
    decoupled = bool(record.column("decoupled", rows)[-1])
    rate = record.column("lr", rows).mean() / memory ** (2 if decoupled else 1)
    decay = record.column("weight_decay", rows).mean() * kappa
    a, b = (charges.index[name].to_numpy() for name in ("rate_in", "rate_out"))
    sides = OrbitSides((size + value) / 2, (size - value) / 2, (of_size + gradient) / 2, (of_size - gradient) / 2, a, b)
    return to_equilibrium(sides, decay, np.full(len(value), rate)), (rate * of_size, 2 * np.nan_to_num(decay) * size)
