"""``neuralmech symmetries``."""

from __future__ import annotations

import json
from typing import Any

from neuralmech.cli.application import launch


def run(words: list[str]) -> None:
    """Show which charges a model has, as a table or with ``--json``."""
    as_json = "--json" in words

    def task(raw: Any) -> None:
        from neuralmech.compare.show.claims import show_symmetries
        from neuralmech.config import resolve
        from neuralmech.train.setup import prepare, summary

        found = summary(prepare(resolve(raw), bare=True))
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            show_symmetries(**found)

    launch(task, "symmetries", [w for w in words if w != "--json"])
