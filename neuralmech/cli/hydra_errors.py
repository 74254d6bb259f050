"""Hydra's and OmegaConf's errors in one line that names the key and the remedy."""

from __future__ import annotations

import difflib
import re

from hydra.errors import OverrideParseException

from neuralmech.words import override_word


def explain(error: Exception, program: str) -> str:
    r"""One line for a composition error.

    Examples
    --------
    >>> text = "In 'train': Could not find 'model/resnet'\nAvailable options in 'model':\n\tmlp"
    >>> explain(Exception(text), "neuralmech train")
    'model=resnet is unknown; choose one of mlp'
    """
    text = str(error)
    missing = re.search(r"Could not find '(?:(.+)/)?([^/']+)'", text)
    if missing:
        return _unknown_option(missing[1] or "config", missing[2], text)
    override = re.search(r"Could not override '([^']+)'", text)
    if override:
        return f"{override[1]} is no option; {_hint(error, override[1])}see `{program} --cfg job` for all of them"
    quoted = ""
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        if equals and re.fullmatch(r"[+~]{0,2}[\w./@:-]+", key) and not set("[]{}()'\"") & set(value):
            quoted = f"; for this text as it stands write {override_word(key, value)}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key:", "object_type=", "See https://"))]
    return f"{'; '.join(kept)}{quoted}; see `{program} --help`"


def _unknown_option(group: str, name: str, text: str) -> str:
    listed = text.partition("Available options")[2].partition("Config search path")[0]
    options = [line.strip() for line in listed.splitlines()[1:] if line.strip()]
    near = difflib.get_close_matches(name, options, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{group}={name} is unknown{hint}" + (f"; choose one of {', '.join(options)}" if options else "")


def _hint(error: Exception, key: str) -> str:
    parent = getattr(error.__cause__, "parent_node", None)
    names = [str(name) for name in parent] if parent is not None else []
    near = difflib.get_close_matches(key.rpartition(".")[2], names, n=1)
    return f"did you mean {near[0]}? " if near else ""
