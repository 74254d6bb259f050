"""What conditions and precisions are called; options are checked against it before torch is imported."""

from __future__ import annotations

from neuralmech.checks import check_choice

CONDITIONS = ("exact", "float64", "own", "eval")
PRECISIONS = ("fp64", "fp32", "tf32", "bf16", "fp16")


def check_conditions(names: tuple[str, ...], precision: str | None = None) -> None:
    """Raise `UserError` if there is no such condition or precision."""
    for name in names:
        check_choice("conditions", name, (*CONDITIONS, *PRECISIONS))
    if precision is not None:
        check_choice("precision", precision, PRECISIONS)
