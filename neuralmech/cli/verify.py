"""``neuralmech verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuralmech.cli.application import launch, overrides_in
from neuralmech.errors import RunError, UserError


def run(words: list[str]) -> None:
    """Check every claimed symmetry of a fresh model, or of the run folder among the words."""
    runs = [w for w in overrides_in(words, "verify") if "=" not in w]
    if len(runs) > 1:
        raise UserError("verify takes one run folder")

    def task(raw: Any) -> None:
        from omegaconf import OmegaConf

        from neuralmech.compare.terminal import show_verification
        from neuralmech.train.check import verify_fresh, verify_run

        own = OmegaConf.create({k: v for k, v in raw.items() if k not in ("verify", "checkpoint")})
        sample = int(raw.verify.sample)
        targets = {key: raw[key]["_target_"] for key in ("model", "data") if "_target_" in raw[key]}
        report = verify_run(Path(runs[0]), raw.checkpoint, sample, targets) if runs else verify_fresh(own, sample)
        show_verification(report.table)
        failed = report.table[~report.table["holds"]] if len(report.table) else report.table
        if len(failed):
            raise RunError(f"{len(failed)} claims fail: {', '.join(failed['site'])}; please report the model")

    launch(task, "verify", [w for w in words if w not in runs])
