"""The verdicts of a sweep in one table: a row per setting and family, mean and spread over the runs that share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

OVER = ("seed", "run")  # keys that make no setting of their own
WHOLE = ("complete", "running")  # status of runs that are not over before their last step


def settings(keys: Sequence[str]) -> list[str]:
    """Swept keys that tell settings apart, not repetitions of one."""
    return [key for key in keys if key not in OVER]


def of_whole(table: pd.DataFrame, runs: pd.DataFrame, keys: Sequence[str], *columns: str) -> pd.DataFrame:
    """Rows of a table whose runs did not end before their last step, with columns of these; all of a single run's."""
    if not keys:
        return table
    whole = runs.loc[runs["status"].isin(WHOLE), [*keys, *columns]].drop_duplicates(list(keys))
    return table.merge(whole, on=list(keys))


def summary_table(verdict: pd.DataFrame, runs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean ± standard deviation over seeds of what the verdicts say; empty for a single run.

    Columns: the settings, ``family``, ``runs`` (that agree with each other in all settings), ``law`` (of most of them)
    and ``agree`` (how many), ``kind``, ``error`` and ``error_std`` (of the verdict's law of each run), ``forecast``,
    ``forecast_error`` and its spread (where the law is none), ``accuracy`` and its spread, and ``rounding`` (sites).
    ``failed`` counts the setting's jobs that did, or that ended before their last step: what laws say of a part of a
    run does not compare with what they say of whole ones. They are in none of these, and a setting of nothing else has
    a row without a family.
    """
    if not keys or verdict.empty:
        return pd.DataFrame()
    by = settings(keys)
    has_ended_early = ~runs["status"].isin(WHOLE) & (runs["status"] != "waiting")
    ended = runs.loc[has_ended_early, by]
    failed = Counter(map(_same, ended.to_dict("records"))) if by else Counter({"[]": len(ended)})
    each = of_whole(verdict, runs, keys, "accuracy")
    rows = []
    for values, group in each.groupby([*by, "family"], sort=False, dropna=False):
        law = group["law"].mode().iat[0]
        of = group[group["law"] == law]
        row = dict(zip([*by, "family"], values, strict=True))
        row |= {
            "runs": len(group),
            "failed": failed[_same(dict(zip(by, values, strict=False)))],
            "law": law,
            "agree": len(of),
            "kind": of["kind"].iat[0],
        }
        row |= {"suffices": bool(group["suffices"].all()), "forecast": of["forecast"].iat[0]}
        for measure in ("error", "forecast_error", "accuracy"):
            row |= {measure: group[measure].mean(), f"{measure}_std": group[measure].std()}
        rows.append({**row, "sites": int(of["sites"].iat[0]), "rounding": int(group["rounding"].max())})
    there = {_same({key: row[key] for key in by}) for row in rows}
    lost = {_same(of): of for of in ended.to_dict("records") if _same(of) not in there} if by else {}
    rows += [{**of, "family": "", "runs": 0, "failed": failed[name], "law": ""} for name, of in lost.items()]
    return pd.DataFrame(rows)


def _same(setting: Mapping[Any, Any]) -> str:
    """A setting as text, whichever kind its numbers are of."""
    return repr([float(v) if isinstance(v, int | float | np.number) else str(v) for v in setting.values()])
