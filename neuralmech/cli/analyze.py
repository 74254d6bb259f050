"""``neuralmech analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuralmech.cli.application import launch, run_folders
from neuralmech.errors import UserError


def run(words: list[str]) -> None:
    """Compare the run folders among the words with theory."""
    runs = run_folders(words, "analyze", Path.exists)
    rest = [w for w in words if w not in runs]
    if not runs and not any(w.startswith("-") for w in rest):
        raise UserError("analyze needs a run folder: neuralmech analyze RUN [RUN ...]")

    def task(raw: Any) -> None:
        from neuralmech.compare.folder import analyze_folder, follow
        from neuralmech.compare.gather.options import options
        from neuralmech.compare.gather.runs import find_runs
        from neuralmech.compare.show.terminal import show_analysis

        chosen = options(dict(raw))
        for found in [find_runs(Path(run), live=chosen.live) for run in runs]:  # all are there before the first
            if chosen.live:
                follow(found.folder, chosen, show_analysis)
            else:
                show_analysis(analyze_folder(found.folder, chosen))

    launch(task, "analyze", rest)
