"""Draw every figure of the documentation from this project's own runs and computations, into docs/figures/.

``python scripts/figures.py [--only NAME ...]``; docs/theory.md has the captions. Runs are made once and shared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure
from source_figures import (
    balances,
    bounded,
    constraints,
    fields,
    planes,
    portraits,
    quadratic,
    readme,
    sphere,
    training,
    vgg,
)
from source_figures.runs import Runs

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
Writer = Callable[[Runs, Path], None]


def _saved(draw: Callable[..., Figure], *, trains: bool = True) -> Writer:
    def write(runs: Runs, path: Path) -> None:
        (draw(runs) if trains else draw()).savefig(path, dpi=150)

    return write


FIGURES: dict[str, Writer] = {
    "symmetric_planes": _saved(planes.draw, trains=False),
    "vector_fields": _saved(fields.draw, trains=False),
    "sphere": _saved(sphere.draw, trains=False),
    "constraints": _saved(constraints.draw),
    "quadratic": _saved(quadratic.draw, trains=False),
    "bounded_weights": _saved(bounded.draw, trains=False),
    "noisy_and_smooth": _saved(training.noisy_and_smooth),
    "three_families": _saved(training.three_families),
    "oscillations": _saved(training.oscillations),
    "phase_portraits": _saved(portraits.draw),
    "effective_learning_rate": _saved(training.effective_learning_rate),
    "vgg16": _saved(vgg.draw),
    "time_and_data": _saved(balances.draw),
    "first_light_rescale": lambda runs, path: readme.write(path),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES), help="figures to draw")
    chosen = parser.parse_args().only
    FOLDER.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        runs = Runs(Path(scratch))
        for name in chosen:
            FIGURES[name](runs, FOLDER / f"{name}.png")
            print(f"Written: {FOLDER / name}.png", flush=True)


if __name__ == "__main__":
    main()
