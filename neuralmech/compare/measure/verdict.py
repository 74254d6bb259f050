"""The verdict on a family: the simplest law that suffices, what simpler ones lack, what moved the charges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from neuralmech.compare.measure.accounts import BY_ROUNDING, CAUSES, STILL
from neuralmech.compare.measure.inputs import ChargeClass
from neuralmech.compare.measure.sums import NORM
from neuralmech.laws import LAWS
from neuralmech.laws.kinds import ACCOUNT, FORECAST, KINDS, contents, lacks
from neuralmech.laws.system import AT_REST, Circumstances

SUFFICES = 1e-2  # a law that is farther off does not
WITHIN = 10.0  # nor does one that is so many times as far off as the best of its kind,
GOOD = 1e-3  # unless it is as near as this
ROUNDING = 3.0  # errors up to so many times that of the account, which is rounding alone, are one tie
NOISE = 1e-4  # an account that is farther off holds more than rounding (rows several steps apart)
LEAST_SHARE = 0.01  # of a cause that is named
CAUSE_WORDS = {
    "weight_decay": "weight decay",
    "discretisation": "discretisation",
    "symmetry_breaking": "the broken symmetry",
    "rule": "the work of the rule",
    "metric_drift": "the metric's drift",
    "memory_before": "memory from before",
}


def law_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Of one family: law → kind, ``error`` (RMS over sites), ``worst`` and ``worst_site``; in the catalogue's order.

    Sites for which no law answers do not count, nor do norms, which are of the same charges; a law that does not answer
    for a site that counts is left out.
    """
    table = table[~table["site"].str.endswith(NORM)]
    answered = table.groupby("site", sort=False)["error"].transform("count") > 0
    rows = []
    for law, of_law in table[answered].groupby("law", sort=False):
        if of_law["error"].notna().all():
            worst = of_law.iloc[int(of_law["error"].to_numpy().argmax())]
            strongest = max(of_law["kind"], key=KINDS.index)
            error = float(np.sqrt((of_law["error"] ** 2).mean()))
            rows.append((law, strongest, error, float(worst["error"]), worst["site"]))
    scores = pd.DataFrame(rows, columns=["law", "kind", "error", "worst", "worst_site"]).set_index("law")
    return scores.loc[[name for name in LAWS if name in scores.index]]


def rounding_floor(scores: pd.DataFrame) -> float:
    """Errors below are rounding; 0 where no account says what rounding is."""
    closes = scores.loc[scores["kind"] == ACCOUNT, "error"]
    floor = float(closes.min()) if len(closes) else 0.0
    return ROUNDING * floor if floor <= NOISE else 0.0


def sufficient(scores: pd.DataFrame) -> list[str]:
    """Laws that suffice, the simplest first: forecasts, driven laws, accounts, and among a kind as theory goes.

    One suffices whose error is within `SUFFICES`, and within `GOOD` or ten times the least error of laws that take no
    more than it; what differs by rounding alone does not differ.
    """
    floor, out = rounding_floor(scores), []
    for number, kind in enumerate(KINDS):
        no_more = scores.loc[[KINDS.index(k) <= number for k in scores["kind"]], "error"]
        if len(no_more):
            bound = min(SUFFICES, max(GOOD, floor, WITHIN * float(no_more.min())))
            out += [str(law) for law in scores.index[(scores["kind"] == kind) & (scores["error"] <= bound)]]
    return out


def _next_simpler(scores: pd.DataFrame, law: str, c: Circumstances, *, decays: bool) -> str:
    """The law that holds most of what another does, and takes no more; "" where there is none."""
    holds = {name: contents(LAWS[name], c, decays=decays) for name in map(str, scores.index)}
    most = KINDS.index(scores.loc[law, "kind"])
    less = [n for n, held in holds.items() if held < holds[law] and KINDS.index(scores.loc[n, "kind"]) <= most]
    return max(less, key=lambda name: (len(holds[name]), -scores.loc[name, "error"]), default="")


def family_verdict(
    table: pd.DataFrame, budget: pd.DataFrame, of: Sequence[ChargeClass], *, decays: bool
) -> dict[str, Any]:
    """One family of one run.

    Parameters
    ----------
    table, budget
        Its rows of the comparison and of the budget.
    of
        Its classes, of which the first says what matters.
    decays
        Whether there is weight decay.

    Returns
    -------
    dict
        ``law`` is the simplest that suffices, or, where ``suffices`` is false, the one with the least error; ``kind``,
        ``error``, ``worst``, ``worst_site`` are its. ``simpler`` is the next simpler law, ``simpler_lacks`` what it
        lacks. ``forecast`` is the best law that takes no measured drive, where ``law`` does; ``exact`` the simplest
        whose error is rounding. ``rounding`` counts the ``sites`` whose charges move by rounding alone, ``moved_by``
        says what moved the others. Where no law answers, ``reason`` says why.
    """
    c, sites = of[0].circumstances, dict.fromkeys(budget["site"])
    row: dict[str, Any] = {"sites": len(sites), "charges": _count(table, budget), **_EMPTY}
    still = _still(table, budget)
    row |= {"rounding": len(still), "moved_by": moved_by(budget[~budget["site"].isin(still)])}
    all_still = len(still) == len(sites)
    scores = law_scores(table if all_still else table[~table["site"].isin(still)])
    if all_still and "gradient_flow" not in sufficient(scores):
        return {**row, "reason": BY_ROUNDING}
    if scores.empty:
        return {**row, "reason": _why_none(table[~table["site"].isin(still)])}
    enough = sufficient(scores)
    law = enough[0] if enough else str(scores["error"].idxmin())
    row |= {"law": law, "suffices": bool(enough), **scores.loc[law].to_dict()}
    if simpler := _next_simpler(scores, law, c, decays=decays):
        missing = lacks(LAWS[simpler], LAWS[law], c, decays=decays)
        row |= {"simpler": simpler, "simpler_error": float(scores.loc[simpler, "error"]), "simpler_lacks": missing}
    forecasts = scores.loc[scores["kind"] == FORECAST, "error"]
    if row["kind"] != FORECAST and len(forecasts):
        best = str(forecasts.idxmin())
        missing = lacks(LAWS[best], LAWS[law], c, decays=decays)
        row |= {"forecast": best, "forecast_error": float(forecasts.min()), "forecast_lacks": missing}
    exact = scores.index[(scores["kind"] != ACCOUNT) & (scores["error"] <= rounding_floor(scores))]
    if len(exact):
        row |= {"exact": str(exact[0]), "exact_error": float(scores.loc[exact[0], "error"])}
    return {**row, "lacks": "" if enough else LAWS[law].omits}


_EMPTY: dict[str, Any] = {
    "law": "", "kind": "", "error": np.nan, "worst": np.nan, "worst_site": "", "suffices": False, "lacks": "",
    "simpler": "", "simpler_error": np.nan, "simpler_lacks": "",
    "forecast": "", "forecast_error": np.nan, "forecast_lacks": "",
    "exact": "", "exact_error": np.nan, "rounding": 0, "moved_by": "", "reason": "",
}  # fmt: skip


def _count(table: pd.DataFrame, budget: pd.DataFrame) -> int:
    """How many charges: of a matrix all entries that were recorded, of which an account takes the diagonal alone."""
    own = table[~table["site"].str.endswith(NORM)].drop_duplicates("site")
    return max(int(own["charges"].sum()), int(budget["charges"].sum()))


def _still(table: pd.DataFrame, budget: pd.DataFrame) -> set[str]:
    """Sites whose charges move by rounding alone, if at all."""
    rests = table["reason"].eq(AT_REST).groupby(table["site"]).all()
    return {*rests.index[rests], *budget.loc[budget["reason"].isin(STILL), "site"]}


def _why_none(table: pd.DataFrame) -> str:
    """Why no law answers: the reason of most of the rows."""
    return str(table["reason"].mode().iat[0]) if len(table) else "no law was asked"


def moved_by(budget: pd.DataFrame) -> str:
    """Causes by their shares of all that pushed the charges of some sites, the largest first; "" if nothing did.

    Examples
    --------
    >>> parts = {**dict.fromkeys(CAUSES, [0.0]), "weight_decay": [-3.0], "discretisation": [1.0]}
    >>> moved_by(pd.DataFrame(parts))
    'weight decay 75 %, discretisation 25 %'
    """
    push = {cause: float(budget[cause].abs().sum()) for cause in CAUSES}
    whole = sum(push.values())
    named = sorted((c for c in CAUSES if whole and push[c] >= LEAST_SHARE * whole), key=lambda c: -push[c])
    return ", ".join(f"{CAUSE_WORDS[cause]} {push[cause] / whole:.0%}".replace("%", " %") for cause in named)
