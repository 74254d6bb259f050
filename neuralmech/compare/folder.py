"""Analyse a folder and write ``analysis/`` into it, all of it or nothing: once, or while its runs are being written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from neuralmech.compare.gather.analysis import Analysis, compare_runs
from neuralmech.compare.gather.kept import KeptResults
from neuralmech.compare.gather.options import Options
from neuralmech.compare.gather.runs import Runs, find_runs
from neuralmech.compare.measure.sums import MEASURES, QUANTILES
from neuralmech.compare.show.cells import Sheet
from neuralmech.compare.show.formats import latex, markdown
from neuralmech.compare.show.sheets import sheets_of
from neuralmech.errors import UserError
from neuralmech.record import FILE_NAME

if TYPE_CHECKING:
    from neuralmech.compare.show.figures import Picture

MADE = ".made"  # the names of an analysis's files
FIGURES = (".png", ".pdf", ".svg")
SUFFIXES = (".csv", ".md", ".tex", ".html", *FIGURES)
REPORT = "report.html"
UNDRAWN = "figures=false: report.html has no figures; the files of those drawn before are left as they are"


def analyze_folder(folder: Path, chosen: Options | None = None) -> Analysis:
    """Analyse a run or multirun folder and write ``analysis/`` into it.

    Raises
    ------
    RecordError
        If there is no readable record.
    UserError
        If the folder cannot be written.
    """
    chosen = chosen or Options()
    return analyze_runs(look_for(folder, chosen), chosen)


def look_for(folder: Path, chosen: Options) -> Runs:
    """The runs in a folder, and what is kept of them.

    Raises
    ------
    RecordError
        If there is nothing to analyse.
    """
    return find_runs(folder, live=chosen.live, kept=KeptResults.of(folder, chosen))


def analyze_runs(found: Runs, chosen: Options) -> Analysis:
    """Analyse runs that were found, and write ``analysis/`` into their folder; see `analyze_folder`."""
    return _publish(compare_runs(found, chosen), chosen)


def follow(
    folder: Path,
    chosen: Options,
    show: Callable[[Analysis], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Analysis:
    """Analyse, write and show every `chosen.every` seconds until no job is being written any more.

    Each look takes a consistent copy of every record that is being written, so the tables are those of one
    moment of each run. A job that has not committed rows yet is waited for.

    Raises
    ------
    RecordError
        If all jobs have ended and none left anything to analyse.
    UserError
        If the folder cannot be written.
    """
    seen, analysis = None, None
    while True:
        found = look_for(folder, chosen)
        now = _fingerprint(found)
        # Between two jobs of a sweep nothing is written: it has ended when two looks in a row say so.
        if analysis and not found.is_running and now == seen:
            return analysis
        if now != seen and (found.readable or not found.is_running):
            analysis = analyze_runs(found, chosen)
            show(analysis)
        seen = now
        sleep(chosen.every)


def _fingerprint(found: Runs) -> object:
    """Changes whenever a record grows, a job appears, or one ends."""
    records = [job.path / FILE_NAME for job in found.jobs]
    sizes = [p.stat().st_mtime_ns if os.path.exists(p) else 0 for p in records]  # noqa: PTH110  (of one not ours, too)
    return [(job.name, job.status, size) for job, size in zip(found.jobs, sizes, strict=True)]


def _publish(analysis: Analysis, chosen: Options) -> Analysis:
    """Write the files of an analysis and name them in it."""
    figures = any(name.endswith(FIGURES) for name in _made_before(analysis.folder / "analysis"))
    if chosen.report and figures and not chosen.figures:
        analysis = replace(analysis, notes=(*analysis.notes, UNDRAWN))

    def write(scratch: Path) -> list[Path]:
        return _write(scratch, analysis, chosen)

    files = _replace(analysis.folder / "analysis", write, lambda name: _is_left(name, chosen))
    return replace(analysis, files=tuple(files))


def _is_left(name: str, chosen: Options) -> bool:
    """Whether a file of the analysis before stays, because this one was told not to make such files."""
    is_figure, is_report = name.endswith(FIGURES), name == REPORT
    return (is_figure and not chosen.figures) or (is_report and not chosen.report)


def _replace(folder: Path, write: Callable[[Path], list[Path]], is_left: Callable[[str], bool]) -> list[Path]:
    """Let `write` fill a scratch folder, then move its files into `folder`: all of them, or none.

    Files of the analysis before that this one does not have are removed, but for those that `is_left` says, and no
    others.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link to another place; remove it")
    try:
        with TemporaryDirectory(dir=folder.parent, prefix=".analysis-") as scratch:
            files = write(Path(scratch))
            folder.mkdir(exist_ok=True)
            targets = [folder / file.name for file in files]
            blocked = [target for target in targets if target.is_dir()]
            if blocked:
                raise UserError(f"{blocked[0]} is in the way; remove it")
            old = _made_before(folder) - {file.name for file in files}
            left = {name for name in old if is_left(name)}
            made = Path(scratch) / MADE
            names = [*(file.name for file in files), *sorted(left)]
            made.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            for file, target in zip([*files, made], [*targets, folder / MADE], strict=True):
                file.replace(target)
            for name in old - left:
                (folder / name).unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); make it writable or copy the run") from None
    return targets


def _made_before(folder: Path) -> set[str]:
    """Names of the last analysis's files that are still there; the list may be anybody's, so nothing outside counts."""
    list_of_names = folder / MADE
    if list_of_names.is_symlink() or not list_of_names.is_file():
        return set()
    there = {path.name for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()}
    return there.intersection(list_of_names.read_text(encoding="utf-8", errors="replace").splitlines())


def _write(folder: Path, analysis: Analysis, chosen: Options) -> list[Path]:
    sheets = sheets_of(analysis)
    files = _tables(folder, analysis, sheets)
    figures: list[Path] = []
    pictures: list[Picture] = []
    if chosen.figures:
        from neuralmech.compare.show.figures import save_figures  # matplotlib only when it draws

        figures, pictures = save_figures(folder, analysis, chosen.formats, for_page=chosen.report)
    if chosen.report:
        from neuralmech.compare.show.report import report

        refresh = chosen.every if chosen.live and analysis.is_running else None
        path = folder / REPORT
        path.write_text(report(analysis, sheets, pictures, refresh), encoding="utf-8")
        files.append(path)
    return files + figures


def _tables(folder: Path, analysis: Analysis, sheets: list[Sheet]) -> list[Path]:
    columns = ["family", "site", "law", "kind", "charges", "steps", *MEASURES, *QUANTILES, "reason", *analysis.keys]
    own = [c for c in analysis.budget.columns if c not in analysis.keys]
    frames = {
        "verdict": analysis.verdict,
        "comparison": analysis.comparison[columns],
        "budget": analysis.budget[[*own, *analysis.keys]],
        "runs": analysis.runs,
    }
    found = {
        "batches": analysis.batches.table,
        "equilibrium": analysis.equilibrium,
        "kinetic": analysis.kinetic,
        "oscillator": analysis.oscillator,
        "rotations": analysis.rotations,
        "noise_equilibrium": analysis.noise_equilibrium,
        "loss_balance": analysis.loss,
    }
    apart = {"seeds": "comparison_seeds", "budget": "budget", **{name: name for name in found}}
    documents = {"comparison": [s for s in sheets if s.name not in apart]}
    documents |= {file: [s] for s in sheets for name, file in apart.items() if s.name == name}
    found |= {"comparison_seeds": analysis.seeds, "summary": analysis.summary}
    frames |= {name: frame for name, frame in found.items() if len(frame)}
    files = []
    for name, frame in frames.items():
        files.append(folder / f"{name}.csv")
        frame.to_csv(files[-1], index=False)
    for name, chosen in documents.items():
        title = f"Theory against measurement: {analysis.folder.name}"
        for suffix, text in (("md", markdown(chosen, title, analysis.notes)), ("tex", latex(chosen, title))):
            files.append(folder / f"{name}.{suffix}")
            files[-1].write_text(text, encoding="utf-8")
    return files
