"""The commands that read records: analyze, watch, forecast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuralmech.cli.application import launch, run_folders
from neuralmech.errors import UserError


def analyze(words: list[str]) -> None:
    """Compare the run folders among the words with theory."""
    runs = run_folders(words, "analyze", Path.exists)
    rest = [w for w in words if w not in runs]
    if not runs and not any(w.startswith("-") for w in rest):
        raise UserError("analyze needs a run folder: neuralmech analyze RUN [RUN ...]")

    def task(raw: Any) -> None:
        from neuralmech.compare.gather.options import options

        chosen = options(dict(raw))
        from neuralmech.compare.folder import analyze_runs, follow, look_for
        from neuralmech.compare.show.terminal import Redrawn, show_analysis

        for found in [look_for(Path(run), chosen) for run in runs]:  # all are there before the first
            if chosen.live:
                with Redrawn() as show:
                    last = follow(found.folder, chosen, show)
                show_analysis(last)
            else:
                show_analysis(analyze_runs(found, chosen))

    launch(task, "analyze", rest)


def _one_run(words: list[str], command: str, usage: str) -> tuple[list[str], list[str]]:
    """The run folder among the words, and the others; a question for help needs no folder."""
    runs = run_folders(words, command, Path.exists)
    rest = [w for w in words if w not in runs]
    if len(runs) != 1 and not any(w.startswith("-") for w in rest):
        raise UserError(f"{command} takes one run folder: {usage}")
    return runs, rest


def watch(words: list[str]) -> None:
    """Show the run folder among the words, again and again until it ends."""
    runs, rest = _one_run(words, "watch", "neuralmech watch RUN")

    def task(raw: Any) -> None:
        from neuralmech.compare.watch import WatchOptions
        from neuralmech.compare.watch import watch as show

        show(Path(runs[0]), WatchOptions(**dict(raw)))

    launch(task, "watch", rest)


def sweep(words: list[str]) -> None:
    """Show the jobs of the sweep's folder among the words, again and again until none runs."""
    sweeps, rest = _one_run(words, "sweep", "neuralmech sweep FOLDER")

    def task(raw: Any) -> None:
        from neuralmech.sweeps.show import SweepOptions, show

        show(Path(sweeps[0]), SweepOptions(**dict(raw)))

    launch(task, "sweep", rest)


def forecast(words: list[str]) -> None:
    """Predict the charges of the run folder among the words after a change of its hyperparameters."""
    runs, rest = _one_run(words, "forecast", "neuralmech forecast RUN optim.lr=0.01 steps=1000")

    def task(raw: Any) -> None:
        from neuralmech.compare.measure.forecast import forecast as predicted
        from neuralmech.compare.measure.forecast import plan_of
        from neuralmech.compare.show.forecasts import show_forecast
        from neuralmech.record import open_record

        with open_record(Path(runs[0])) as record:
            plan = plan_of(record, raw.steps, raw.optim.lr, raw.optim.weight_decay, raw.at, raw.window)
            show_forecast(predicted(record, plan), plan, int(record.column("step", slice(plan.row, plan.row + 1))[0]))

    launch(task, "forecast", rest)
