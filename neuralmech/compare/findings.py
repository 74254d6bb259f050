"""An analysis as a notebook has it: tables, a short summary, and figures on demand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralmech.checks import check_choice
from neuralmech.compare.gather import analysis as gathered
from neuralmech.compare.gather.analysis import Analysis
from neuralmech.compare.show.cells import best_laws, number
from neuralmech.words import table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Findings(Analysis):
    """What `neuralmech.analyze` returns: an `Analysis` that shows itself."""

    def plot(self, family: str) -> Figure:
        """Charges of a family, measured and in theory, and each law's error, as in ``analysis/<family>.png``.

        Raises
        ------
        UserError
            If no run has such charges; the message lists the families.
        """
        from neuralmech.compare.show.plots_charges import family_figure  # matplotlib only when it draws

        check_choice("family", family, dict.fromkeys(f for panel in self.panels for f in panel.curves))
        return family_figure(family, [(p.title, p.curves[family]) for p in self.panels if family in p.curves])

    def __repr__(self) -> str:
        laws = ", ".join(f"{family}: {law} ({error})" for family, law, error in self._best())
        runs = f"{len(self.runs)} run{'s'[: len(self.runs) != 1]}"
        return f"<Analysis of {self.folder}: {runs}; best law and its worst error: {laws}>"

    def _repr_html_(self) -> str:
        """For notebooks: the best law of each family."""
        return table_of(("family", "best law", "worst error of a site"), self._best(), f"Analysis of {self.folder}")

    def _best(self) -> list[tuple[str, str, str]]:
        """Of each family the law that is best in most runs, and the worst of its errors."""
        best = best_laws(self.comparison, self.keys)
        out = []
        for family, rows in self.comparison.groupby("family", sort=False):
            wins = [found[-1] for found in best if found[-2] == family]
            if wins:
                law = max(sorted(set(wins)), key=wins.count)
                out.append((str(family), law, number(float(rows.loc[rows["law"] == law, "error"].max()))))
            else:
                out.append((str(family), "none", number(float("nan"))))
        return out


def analyze(run: str | Path, **chosen: Any) -> Findings:
    """Analyse a run or multirun folder and return pandas tables; writes nothing and needs no torch.

    Parameters
    ----------
    run
        A run folder, a multirun folder or a record file.
    **chosen
        Options of ``neuralmech analyze`` that matter here: `laws` (names), `lines`, `block`.

    Raises
    ------
    RecordError
        If there is no readable record.
    UserError
        If an option is wrong.

    Examples
    --------
    ``neuralmech.analyze("outputs/run").comparison.pivot_table(index="site", columns="law", values="error")``;
    ``neuralmech.analyze("outputs/run").plot("scale")``
    """
    return Findings(**vars(gathered.analyze(run, **chosen)))
