"""The page of the zoo, docs/zoo.md, from its rows."""

import math
import platform
from collections import Counter
from importlib.metadata import version
from typing import Any

from zoo_row import LARGE, LIBRARIES, NAMES, ROOT, SAMPLED, SAMPLED_OF_LARGE, read
from zoo_vision import CLASSES

from neuralmech.symmetry.names import FAMILIES
from neuralmech.verification.verify import COARSE, NEARBY

TIMES, MORE = 3, 5  # discovery is to take at most TIMES an export and MORE seconds
COLUMNS = (
    "model", "parameters", *FAMILIES, "covered", "gradient", "finite", "Hessian", "verdict", "export s", "discovery s",
    "in bound", "GB", "barriers, cause",
)  # fmt: skip


def verdict(row: dict[str, Any]) -> str:
    """Say what came of a model in a word or two."""
    if "false" in row:
        return (
            f"**{len(row['false'])} false**"
            if row["false"]
            else "holds" + " (float32)" * ("float32" in row.get("instead", ""))
        )
    return {"export": "not traced", "discover": "not found", "check": "not checked"}.get(row["stage"], "not built")


def in_bound(row: dict[str, Any]) -> bool | None:
    """Whether discovery took no longer than it may; None where there is no discovery."""
    return row["discovery"] <= TIMES * row["export"] + MORE if "discovery" in row else None


def cells(row: dict[str, Any]) -> list[str]:
    """Texts of a model's line."""
    charges, bound = row.get("charges"), in_bound(row)
    notes = [f"{op} ×{n}" for op, n in row.get("barriers", {}).items()]
    notes += [_one_line(row[key]) for key in ("instead", "error") if row.get(key)]
    return [
        row["name"].partition("/")[2],
        f"{row['parameters']:,}" if "parameters" in row else "–",
        *(f"{charges.get(f, 0):,}" if charges is not None else "–" for f in FAMILIES),
        f"{row['covered']:.1%}" if "covered" in row else "–",
        *(_number(row.get(test, math.nan)) for test in ("gradient", "finite", "hessian")),
        verdict(row),
        *(f"{row[stage]:.1f}" if stage in row else "–" for stage in ("export", "discovery")),
        {True: "yes", False: "**no**", None: "–"}[bound],
        f"{row['memory']:.1f}" if "memory" in row else "–",
        ", ".join(notes),
    ]


def _one_line(text: str) -> str:
    first = text.splitlines()[0]
    return (first if len(first) <= 160 else first[:157] + "...").replace("|", "\\|").replace(str(ROOT), ".")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0e}"


def page() -> str:
    """Text of docs/zoo.md, from the rows that there are."""
    rows = [row for row in map(read, NAMES) if row]
    charges = sum(n for row in rows for n in row.get("charges", {}).values())
    counts = Counter(verdict(row) for row in rows)
    late = [row["name"].partition("/")[2] for row in rows if in_bound(row) is False]
    large = [row["name"].partition("/")[2] for row in rows if row.get("memory", 0) > 2]
    made = dict.fromkeys(row.get("commit", "an earlier commit") for row in rows)
    packages = ("torch", "torchvision", "timm", "transformers", "segmentation-models-pytorch")
    lines = [
        "# Symmetries of well-known models",
        "",
        f"Made by `scripts/zoo.py` at {' and '.join(made)}: {len(rows)} models with {charges:,} charges; verdicts: "
        + ", ".join(f"{text} {n}" for text, n in counts.most_common())
        + f". Discovery takes more than {TIMES} exports and {MORE} s: {', '.join(late) or 'nowhere'}; more than 2 GB: "
        f"{', '.join(large) or 'nowhere'}.",
        "",
        "Random weights, training mode, cross-entropy; torchvision's models at full size, the others small",
        f"({CLASSES} classes, images of 32×32 or 64×64; inception_v3 75×75, maxvit_t 224×224).",
        "*covered*: share of parameters in at least one charge. The check is on a random batch, in float64 with norms'",
        "eps removed: *gradient* is the largest |⟨g, ∂ψ⟩| / (|g| |∂ψ|) over all charges; *finite* and *Hessian* are",
        f"the largest violations among a random sample of {SAMPLED} charges ({SAMPLED_OF_LARGE} above {LARGE // 10**6} "
        "million parameters; – where",
        "an operation has no second derivative). A model holds if none is above 1e-9 (Hessian: 1e-6), or, where an",
        f"operation has no float64 kernel, {COARSE:.0e} times that in float32. Where rounding alone decides on the",
        f"loss at these parameters, others are taken some {NEARBY:.0%} away, which the last column says.",
        "*export s*: one `torch.export` alone; *discovery s*: trace and discovery, *in bound* if at most",
        f"{TIMES} times that and {MORE} s (processor time). *GB*: peak memory of the process up to there, libraries",
        "included. The last column names the operations at which",
        "symmetries end, and why something was not done.",
    ]
    for library, (names, _) in LIBRARIES.items():
        lines += ["", f"## {library[0].upper()}{library[1:]}" if library == "by hand" else f"## {library}", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
        lines += ["| " + " | ".join(cells(r)) + " |" for r in rows if r["name"] in {f"{library}/{n}" for n in names}]
    machine = ", ".join(f"{p} {version(p)}" for p in packages)
    lines += ["", f"{machine}, Python {platform.python_version()}, {platform.machine()} CPU, one thread.", ""]
    return "\n".join(lines)
