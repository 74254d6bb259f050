"""An analysis as a notebook has it: tables, a short summary, and figures on demand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralmech.checks import check_choice
from neuralmech.compare.gather import analysis as gathered
from neuralmech.compare.gather.analysis import Analysis
from neuralmech.compare.show.verdicts import about, said
from neuralmech.words import table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Findings(Analysis):
    """What `neuralmech.analyze` returns: an `Analysis` that shows itself."""

    def plot(self, name: str) -> Figure:
        """A figure of ``analysis/``: the charges of a family, or ``training``, ``norms``, ``budget`` and so on.

        Raises
        ------
        UserError
            If there is no such figure; the message lists those there are.
        """
        from neuralmech.compare.show.figures import drawings  # matplotlib only when it draws

        drawn = drawings(self)
        check_choice("figure", name, drawn)
        return drawn[name]()

    def __repr__(self) -> str:
        runs = f"{len(self.runs)} run{'s'[: len(self.runs) != 1]}"
        laws = "; ".join(f"{family}: {headline}" for family, headline in self._said())
        return f"<Analysis of {self.folder}: {runs}; {laws}>"

    def _repr_html_(self) -> str:
        """For notebooks: the verdict on each family."""
        return table_of(("family", "verdict"), self._said(), f"Analysis of {self.folder}: {about(self)}")

    def _said(self) -> list[tuple[str, str]]:
        """Of each family the verdict in most runs, in words."""
        out = []
        for family, rows in self.verdict.groupby("family", sort=False):
            most = rows[rows["law"] == rows["law"].mode().iat[0]]
            worst = most.loc[most["error"].idxmax() if most["error"].notna().any() else most.index[0]]
            out.append((str(family), said(worst.to_dict()).headline))
        return out


def analyze(run: str | Path, **chosen: Any) -> Findings:
    """Analyse a run or multirun folder and return pandas tables; writes nothing and needs no torch.

    Parameters
    ----------
    run
        A run folder, a multirun folder or a record file.
    **chosen
        Options of ``neuralmech analyze`` that matter here: `laws` (names), `lines`, `block`, `jobs` (processes).

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
