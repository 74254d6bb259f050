"""The claims of the sources: what is expected of an analysed sweep, and the numbers that say whether it came out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import neuralmech
from neuralmech.compare.findings import Findings


class Measured(NamedTuple):
    """What came out, in words, and whether it is what was claimed."""

    text: str
    holds: bool | np.bool_


class Claim(NamedTuple):
    """A statement of a source, and how an analysed sweep answers it.

    `figure` is one of those that the analysis writes.
    """

    source: str
    statement: str
    expected: str
    measure: Callable[[Findings], Measured]
    figure: str


def worst(found: Findings, family: str, law: str) -> float:
    """The largest error of a law over runs: RMS over a run's sites, those without a number left out."""
    return float(_errors(found, family, law).max())


def _errors(found: Findings, family: str, law: str) -> pd.Series:
    table = found.comparison
    rows = table[(table["family"] == family) & (table["law"] == law) & ~table["site"].str.endswith("|Q|")]
    return rows.groupby(list(found.keys), sort=False, dropna=False)["error"].agg(
        lambda e: np.sqrt(np.mean(np.square(e.dropna())))
    )


def _records(found: Findings) -> list[tuple[pd.Series, Path]]:
    """Every run of a sweep: its swept keys, and its folder."""
    return [(row, found.folder / str(row["job"])) for _, row in found.runs.iterrows()]


def integral(found: Findings, family: str) -> Measured:
    """The integral of decay and drive against what decay alone says."""
    flow, decay = worst(found, family, "first_order_flow"), worst(found, family, "weight_decay")
    return Measured(f"first-order flow {flow:.1g}, weight decay alone {decay:.1g}", flow <= 1e-2 and decay > 10 * flow)


def translation(found: Findings) -> Measured:
    """Exponential decay, and nothing without weight decay."""
    decay, still = worst(found, "translation", "weight_decay"), _errors(found, "translation", "gradient_flow").min()
    return Measured(
        f"e^{{−λt}} within {decay:.1g}; at λ = 0 conserved within {still:.1g}", decay <= 1e-2 and still <= 1e-4
    )


def oscillation(found: Findings) -> Measured:
    """The oscillator against friction without inertia."""
    flow, decay = worst(found, "translation", "modified_flow"), worst(found, "translation", "weight_decay")
    regimes = dict(zip(found.oscillator["optim.momentum"], found.oscillator["regime"], strict=True))
    kinds = ", ".join(f"β = {beta}: {regime}" for beta, regime in regimes.items())
    holds = flow <= 1e-2 and decay > 10 * flow and {"over-damped", "under-damped"} <= set(regimes.values())
    return Measured(f"oscillator {flow:.1g}, decay without inertia {decay:.1g}; {kinds}", holds)


def decay_rates(found: Findings) -> Measured:
    """−d ln|Q|/dt of the translation charges, from the first and the last row: no law is asked."""
    ratios = {}
    for row, folder in _records(found):
        with neuralmech.load(folder) as record:
            steps, charges = record.steps(), record.charges("translation").value
            size = [np.sqrt(np.mean(np.square(charges[i : i + 1]))) for i in (0, len(steps["time"]) - 1)]
            rate = np.log(size[0] / size[1]) / (steps["time"][-1] - steps["time"][0])
        decay = float(row["optim.weight_decay"])
        ratios[decay] = rate / decay
    text = ", ".join(f"{ratio:.4f} λ at λ = {decay:g}" for decay, ratio in ratios.items())
    return Measured(f"rates {text}", all(abs(ratio - 1) <= 1e-2 for ratio in ratios.values()))


def motion_by_rate(found: Findings) -> Measured:
    """RMS motion of rescale charges at the time that all runs reach, against η."""
    motions: dict[float, float] = {}
    runs = _records(found)
    until = min(float(row["optim.lr"]) * float(row["steps"]) for row, _ in runs)
    for row, folder in runs:
        lr = float(row["optim.lr"])
        with neuralmech.load(folder) as record:
            last, charges = round(until / lr) - 1, record.charges("rescale").value
            motions[lr] = float(np.sqrt(np.mean(np.square(charges[last : last + 1] - charges[0:1]))))
    slope = float(np.polyfit(np.log(list(motions)), np.log(list(motions.values())), 1)[0])
    return Measured(f"motion ∝ η^{slope:.2f} until t = {until:g}", abs(slope - 1) <= 0.2)


def batches(found: Findings) -> Measured:
    """Motion at one batch size, predicted from another."""
    table = found.batches.table
    unexplained = float(np.nanmedian(table["unexplained"]))
    return Measured(f"explains {1 - unexplained:.1%} of the motion's square", unexplained <= 0.1)


def noether(found: Findings) -> Measured:
    """The law of the squared charge."""
    law, flow = worst(found, "scale", "noether"), worst(found, "scale", "gradient_flow")
    return Measured(f"Noether's learning dynamics {law:.1g}, gradient flow {flow:.1g}", law <= 2e-2 and flow > 10 * law)


def equilibrium(found: Findings) -> Measured:
    """The angle of a step."""
    table = found.equilibrium.dropna(subset=["ratio"])
    ratios = table.groupby(list(found.keys), sort=False, dropna=False)["ratio"].mean()
    text = ", ".join(f"{ratio:.3f} at β = {beta}" for beta, ratio in ratios.items())
    return Measured(f"angle / predicted: {text}", len(ratios) > 0 and bool((abs(ratios - 1) <= 0.05).all()))


def balance(found: Findings) -> Measured:
    """The matrices' exact law."""
    law, flow = worst(found, "linear", "discrete"), worst(found, "linear", "gradient_flow")
    return Measured(f"discrete law {law:.1g}, gradient flow {flow:.1g}", law <= 1e-4 and flow > 10 * law)


def rules(found: Findings) -> Measured:
    """What of the scale charges' motion is work of the rule."""
    table = found.budget[found.budget["family"] == "scale"]
    shares = table.groupby("optim.name", sort=False)["share_rule"].agg(lambda s: float(s.abs().mean()))
    text = ", ".join(f"{name} {share:.2g}" for name, share in shares.items())
    return Measured(f"shares of the motion: {text}", shares["sgd"] < 1e-6 and bool((shares.drop("sgd") > 0.1).all()))


MECHANICS, NOETHER, BALANCE = "Neural Mechanics", "Noether's Learning Dynamics", "Gluch, Urbanke"
CLAIMS: dict[str, Claim] = {
    "translation": Claim(
        MECHANICS, "Column sums before the softmax decay as e^{−λt}, whatever the data",
        "law `weight_decay` within 10⁻²; conserved at λ = 0", translation, "translation",
    ),
    "scale": Claim(
        MECHANICS, "|θ_A|² before a norm is decay plus the integral of η|g|²",
        "`first_order_flow` within 10⁻², tenfold better than decay", lambda f: integral(f, "scale"), "scale",
    ),
    "rescale": Claim(
        MECHANICS, "|θ_in|² − |θ_out|² of a ReLU is decay plus the integral of η(|g_in|² − |g_out|²)",
        "`first_order_flow` within 10⁻², tenfold better than decay", lambda f: integral(f, "rescale"), "rescale",
    ),
    "oscillation": Claim(
        MECHANICS, "With momentum column sums are damped harmonic oscillators",
        "`modified_flow` within 10⁻² from over- to under-damped, tenfold better than decay", oscillation, "translation",
    ),
    "weight_decay": Claim(
        MECHANICS, "Translation charges forget at the rate λ per unit of time ηk",
        "measured rate λ within 1 %", decay_rates, "translation",
    ),
    "learning_rate": Claim(
        MECHANICS, "What breaks conservation without decay is the finite learning rate: motion ∝ η",
        "exponent 1 ± 0.2", motion_by_rate, "rescale",
    ),
    "batch_size": Claim(
        MECHANICS, "The drive's noise is tr(SΣ)/S: one batch size predicts another",
        "explains over 90 % of the motion's square", batches, "rescale",
    ),
    "noether": Claim(
        NOETHER, "(Q²)′ = −4λQ² + 2ηĜ: normalisation makes SGD an RMSProp",
        "`noether` within 2·10⁻²", noether, "effective_learning_rate",
    ),
    "equilibrium": Claim(
        NOETHER, "At rest every filter turns by √(2ηλ/(1+β)) a step",
        "mean angle within 5 %", equilibrium, "effective_learning_rate",
    ),
    "linear_balance": Claim(
        BALANCE, "Linear maps in a row balance as matrices, W₂ᵀW₂ − W₁W₁ᵀ",
        "`discrete` within 10⁻⁴", balance, "linear",
    ),
    "learning_rules": Claim(
        NOETHER, "Rules that rescale the gradient move charges of a symmetric loss (kinetic symmetry breaking)",
        "the rule's work: none under SGD, over a tenth of the motion under AdamW and Muon", rules, "budget",
    ),
    "attention": Claim(
        BALANCE, "Queries and keys, values and outputs balance per head",
        "`discrete` within 10⁻⁴", balance, "linear",
    ),
}  # fmt: skip
