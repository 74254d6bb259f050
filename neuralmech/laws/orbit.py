"""Where noise and weight decay bring a pair that a rescale symmetry trades off."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from neuralmech.laws.system import Array

PerCharge = Float64[Array, "*charges"]
FARTHEST, HALVINGS = 40.0, 80  # |α| beyond which e^{2α} is no number of parameters' sizes; and how often that is halved


class OrbitSides(NamedTuple):
    """Of Q = q₊ − q₋: the two sides, the same of the mean squared gradient, and their rates under the symmetry.

    θ₊ ↦ e^{aα}θ₊ and θ₋ ↦ e^{−bα}θ₋, so that q₊ ↦ e^{2aα}q₊ and, as gradients go the other way, G₊ ↦ e^{−2aα}G₊.
    """

    q_in: PerCharge
    q_out: PerCharge
    g_in: PerCharge
    g_out: PerCharge
    a: PerCharge
    b: PerCharge


def to_equilibrium(sides: OrbitSides, decay: PerCharge, rate: PerCharge) -> PerCharge:
    """α*: how far along the orbit the point is where Q rests, on average over batches.

    Q moves by −2λQ + η′(G₊ − G₋), with η′ = η/(1 − β) for gradients that are white in time. Along the orbit

        2λ(e^{2aα}q₊ − e^{−2bα}q₋) = η′(e^{−2aα}G₊ − e^{2bα}G₋)

    has one solution, because the left side rises and the right side falls; for a = b = 1 it is

        α* = ¼ ln[(2λq₋ + η′G₊)/(2λq₊ + η′G₋)].

    The loss is the same all along the orbit; noise and weight decay choose (Ziyin, Li, Ueda 2023: noise equilibrium).

    Parameters
    ----------
    decay, rate
        λ and η′.

    Returns
    -------
    array
        NaN where nothing acts on the charge, ±`FARTHEST` where it has no equilibrium at a finite distance.

    Examples
    --------
    >>> one = np.ones(1)
    >>> decay_alone = to_equilibrium(OrbitSides(4 * one, one, one, one, one, one), one, 0 * one)
    >>> np.allclose(decay_alone, -np.log(4) / 4)
    True
    """
    low, high = np.full(np.shape(sides.q_in), -FARTHEST), np.full(np.shape(sides.q_in), FARTHEST)
    q_in, q_out, g_in, g_out, a, b = sides
    for _ in range(HALVINGS):
        alpha = (low + high) / 2
        falling = rate * (np.exp(-2 * a * alpha) * g_in - np.exp(2 * b * alpha) * g_out)
        rising = 2 * decay * (np.exp(2 * a * alpha) * q_in - np.exp(-2 * b * alpha) * q_out)
        above = rising > falling
        low, high = np.where(above, low, alpha), np.where(above, alpha, high)
    acts = np.isfinite(a + b) & (2 * decay * (q_in + q_out) + rate * (g_in + g_out) > 0)
    return np.where(acts, (low + high) / 2, np.nan)
