"""Run the experiments by name, hold each against the claim of its source, and write docs/reproduction.md.

``python scripts/reproduce.py [--scale paper] [NAME ...]``; small: four minutes on two cores. A sweep goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from claims import CLAIMS, Measured
from PIL import Image

import neuralmech
from neuralmech.record import RecordError

ROOT = Path(__file__).resolve().parents[1]
PAGE, FIGURES = ROOT / "docs/reproduction.md", ROOT / "docs/figures/reproduction"
RUNS = ROOT / "outputs/reproduction"
SCALES = {"small": "_small", "paper": ""}
HEAD = """# The sources' claims, reproduced

Made by `make reproduce` (`scripts/reproduce.py`), which trains each experiment of `conf/experiment/`, analyses it, and
holds what it measured against what the source says. Each has a small twin, `<name>_small`, on digits or tokens;
`make reproduce SCALE=paper` does the same with VGG-16 and its like on Tiny ImageNet and goes on where it stopped.
What was not reproduced is said, with the cause.

| experiment | source | claim | expected | measured | verdict |
| --- | --- | --- | --- | --- | --- |
"""


class Outcome(NamedTuple):
    """What became of an experiment; `seconds` of training and analysis, `command` what trains it."""

    name: str
    command: str
    measured: Measured
    seconds: float


def carried_out(name: str, scale: str) -> Outcome:
    """Train what is missing of a sweep, analyse it, and measure the claim."""
    start, folder = time.monotonic(), RUNS / scale / name
    experiment = f"experiment={name}{SCALES[scale]}"
    code = _run("train", experiment, f"hydra.sweep.dir={folder}")
    code = code or _run("analyze", str(folder))
    if code:
        measured = Measured(f"the sweep ended with exit code {code}; see {folder.relative_to(ROOT)}", holds=False)
    else:
        try:
            measured = CLAIMS[name].measure(neuralmech.analyze(folder))
        except RecordError as error:
            measured = Measured(str(error), holds=False)
    return Outcome(name, f"neuralmech train {experiment}", measured, time.monotonic() - start)


def _run(*words: str) -> int:
    print("$ neuralmech", *words, flush=True)
    return subprocess.run([sys.executable, "-m", "neuralmech", *words], check=False).returncode


def page(outcomes: list[Outcome], scale: str) -> str:
    """The table, and below it a section for each experiment with its figure."""
    rows, sections = [], []
    for name, command, measured, seconds in outcomes:
        claim, verdict = CLAIMS[name], "reproduced" if measured.holds else "**not reproduced**"
        cells = f"[{name}](#{name})", claim.source, claim.statement, claim.expected, measured.text, verdict
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        sections.append(f"## {name}\n\n{claim.statement} ({claim.source}): {verdict}. `{command}`, {seconds:.0f} s.\n")
        if figure := _figure(name, scale):
            sections.append(f"![{claim.statement}]({figure})\n")
    done = sum(outcome.measured.holds for outcome in outcomes)
    summary = f"{done} of {len(outcomes)} reproduced at scale `{scale}`."
    return HEAD + "\n".join(rows) + f"\n\n{summary}\n\n" + "\n".join(sections)


def _figure(name: str, scale: str) -> str | None:
    """Put the experiment's figure beside the page; its path from there."""
    made = RUNS / scale / name / "analysis" / f"{CLAIMS[name].figure}.png"
    if not made.exists():
        return None
    FIGURES.mkdir(parents=True, exist_ok=True)
    with Image.open(made) as image:  # of 256 colours, a third of the bytes
        image.convert("RGB").quantize(256).save(FIGURES / f"{name}.png", optimize=True)
    return f"figures/reproduction/{name}.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *CLAIMS], default=[], help="experiments; all by default")
    parser.add_argument("--scale", choices=SCALES, default="small")
    chosen = parser.parse_args()
    outcomes = []
    for name in chosen.names or CLAIMS:
        outcomes.append(carried_out(name, chosen.scale))
        print(
            f"{name}: {'reproduced' if outcomes[-1].measured.holds else 'NOT reproduced'}: {outcomes[-1].measured.text}"
        )
    if not chosen.names:
        PAGE.write_text(page(outcomes, chosen.scale), encoding="utf-8")
        print(f"Written: {PAGE}")


if __name__ == "__main__":
    main()
