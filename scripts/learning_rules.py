"""What each learning rule does to the charges: a table in docs/theory.md and its figure.

``python scripts/learning_rules.py``; five minutes. Trains each rule on digits, with and without BatchNorm, and a small
transformer, and draws up the account of every charge.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralmech.compare.measure.accounts import account
from neuralmech.compare.measure.views import diagonal
from neuralmech.config import resolve
from neuralmech.record import open_record
from neuralmech.training.loop import train

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- learning rules: begin -->\n", "<!-- learning rules: end -->\n"
STEPS = 1500
RULES: dict[str, dict[str, Any]] = {
    "SGD": {"name": "sgd", "lr": 0.1, "weight_decay": 5e-4},
    "SGD, β = 0.9": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4},
    "Adam": {"name": "adam", "lr": 1e-3, "weight_decay": 5e-4},
    "AdamW": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.1},
    "Muon": {"name": "muon", "lr": 1e-3, "momentum": 0.95, "nesterov": True, "weight_decay": 0.1},
    "Muon, exact": {
        "name": "muon", "lr": 1e-3, "momentum": 0.95, "nesterov": True, "weight_decay": 0.1, "polar": "exact"
    },
    "Lion": {"name": "_target_", "target": "pytorch_optimizer.Lion", "lr": 2e-4, "weight_decay": 0.5},
    "SOAP": {"name": "_target_", "target": "pytorch_optimizer.SOAP", "lr": 1e-3, "weight_decay": 0.1},
}  # fmt: skip
NETS: dict[str, dict[str, Any]] = {
    "digits": {"model": {"name": "convnet"}, "data": {"name": "digits"}},
    "digits, BatchNorm": {"model": {"name": "convnet", "norm": "batch"}, "data": {"name": "digits"}},
    "transformer": {
        "model": {"name": "transformer", "width": 32, "depth": 2, "heads": 2, "context": 16},
        "data": {"name": "tokens", "task": "markov", "length": 16, "batch_size": 16, "size": 512},
    },
}
FAMILIES = ("translation", "scale", "rescale", "linear")
CAUSES = {
    "weight_decay": ("decay", "#0072B2"),
    "rule": ("rule's work", "#CC79A7"),
    "discretisation": ("discretisation", "#D55E00"),
}
LEAST = 1e-4  # what is less is drawn at the edge


def measured(net: str, rule: str, folder: Path, steps: int) -> list[dict[str, Any]]:
    """Train, and share out the motion of each family: Σ|part| over Σ|motion|, over its charges."""
    config = {**NETS[net], "optim": RULES[rule], "device": "cpu", "track": {"norms": 0},
              "train": {"steps": steps, "precision": "fp64", "eval_every": 0, "verify": False}}  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        result = train(resolve(config), folder)
    rows = []
    with open_record(folder) as record:
        for family in record.families:
            found, kept = account(record, family), diagonal(record.charges(family).index)
            moved = np.abs(found.measured[kept]).sum()
            row = {"net": net, "family": family, "name": rule, "accuracy": result.accuracy}
            row |= {cause: np.abs(found.parts[cause][kept]).sum() / moved for cause in CAUSES}
            rows.append({**row, "closure": np.abs(found.closure[kept]).sum() / moved})
    return rows


def markdown(table: pd.DataFrame) -> str:
    """A row per net and rule, in each family's cell decay / rule / discretisation."""
    families = [f for f in FAMILIES if f in set(table["family"])]
    lines = [
        "| net | rule | held out | " + " | ".join(f"{f}: decay / rule / discretisation" for f in families) + " |",
        "| --- | --- | --- |" + " --- |" * len(families),
    ]
    for (net, rule), rows in table.groupby(["net", "name"], sort=False):
        of = rows.set_index("family")
        cells = [" / ".join(number(of.loc[f, c]) for c in CAUSES) if f in of.index else "–" for f in families]
        lines.append(f"| {net} | {rule} | {of['accuracy'].iloc[0]:.1%} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def number(share: float) -> str:
    return "0" if share < 1e-9 else f"{share:.2g}" if share >= 1e-3 else f"{share:.0e}"


def drawn(table: pd.DataFrame) -> Figure:
    """A panel per net and family: for each rule, how much of the motion each cause is."""
    families = [f for f in FAMILIES if f in set(table["family"])]
    nets, rules = list(NETS), list(RULES)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(2.6 * len(families) + 1.4, 2.3 * len(nets) + 0.7), layout="constrained")
        axes = figure.subplots(len(nets), len(families), squeeze=False, sharex=True, sharey=True)
        for net, row in zip(nets, axes, strict=True):
            for family, panel in zip(families, row, strict=True):
                rows = table[(table["net"] == net) & (table["family"] == family)].set_index("name")
                panel.set_title(f"{net}: {family}" if len(rows) else "", fontsize=9, loc="left")
                if not len(rows):
                    panel.set_axis_off()
                    continue
                for i, rule in enumerate(rules):
                    for k, (cause, (_, colour)) in enumerate(CAUSES.items()):
                        share, y = rows.loc[rule, cause], len(rules) - 1 - i + 0.24 * (1 - k)
                        none = share < LEAST
                        panel.plot([LEAST, max(share, LEAST)], [y, y], color=colour, linewidth=2.2, alpha=0.8)
                        panel.plot(max(share, LEAST), y, "o", markersize=4.5, color=colour,
                                   markerfacecolor="white" if none else colour, clip_on=False)  # fmt: skip
                panel.set_xscale("log")
                panel.axvline(1, color="black", linewidth=0.7, linestyle=(0, (4, 3)))
                panel.set_yticks(range(len(rules)), rules[::-1])
                panel.tick_params(axis="y", length=0)
                panel.grid(axis="x", alpha=0.25, linewidth=0.5)
        for panel in axes[-1]:
            panel.set_xlabel(r"$\sum|\mathrm{part}|\,/\,\sum|\Delta Q|$")
        handles = [Line2D([], [], color=c, marker="o", linewidth=2.2, label=name) for name, c in CAUSES.values()]
        none = Line2D([], [], color="black", marker="o", linestyle="", markerfacecolor="white")
        none.set_label(r"below $10^{-4}$")
        figure.legend(handles=[*handles, none], loc="outside upper center", ncols=4, frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--dry", action="store_true", help="print only")
    chosen = parser.parse_args()
    rows = []
    with TemporaryDirectory() as scratch:
        for net in NETS:
            for rule in RULES:
                folder = Path(scratch) / f"{len(rows)}"
                folder.mkdir()
                rows += measured(net, rule, folder, chosen.steps)
                print(net, rule, rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(markdown(table), f"largest closure: {table['closure'].max():.1e}")
    if chosen.dry:
        return
    drawn(table).savefig(DOCS / "figures" / "learning_rules.png", dpi=150)
    page = DOCS / "theory.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + markdown(table) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
