"""The commands that say which charges a model has, and whether that is true: symmetries, verify."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from neuralmech.cli.application import launch, overrides_in, run_folders
from neuralmech.errors import RunError, UserError
from neuralmech.imports import importing
from neuralmech.record import FILE_NAME

# What goes with a run, and the user's own code, which a record must not name.
OF_RUN = {"symmetries": ("certify",), "verify": ("checkpoint", "conditions", "verify.sample")}
AS_IT_IS = {"symmetries": "which has the model that it trained", "verify": "which is verified as it was trained"}
CODE = ("model", "data", "loss")
PLACES = ("data.folder", "data.path")  # nor may it say where data are


def symmetries(words: list[str]) -> None:
    """Show which charges a fresh model has, or that of the run folder among the words; a table or, ``--json``, data."""
    as_json = "--json" in words
    run, rest = _run_among([w for w in words if w != "--json"], "symmetries")

    def task(raw: Any) -> None:
        from omegaconf import OmegaConf

        from neuralmech.config import resolve

        if not isinstance(raw.certify, bool):
            raise UserError(f"certify={raw.certify} must be true or false")
        if run is not None:
            from neuralmech.training.recorded import recorded_config

            config = resolve(recorded_config(run, _code(raw)))
        else:
            config = resolve(OmegaConf.create({k: v for k, v in raw.items() if k != "certify"}))
        with importing("torch", for_good=True):  # pandas, torch; not before the options are right
            from neuralmech.compare.show.claims import show_symmetries
            from neuralmech.training.claims import certified
            from neuralmech.training.setup import prepare, summary

        setup = prepare(config, bare=not raw.certify)
        found = summary(setup)
        found["rule"] = _kept(config.optim, found["sites"])
        found["certificate"] = str(certified(setup, config)) if raw.certify else ""
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            show_symmetries(found)

    launch(task, "symmetries", rest)


def _kept(optim: Any, families: Iterable[str]) -> dict[str, str]:
    """Family → whether a run's learning rule keeps its symmetries, and why."""
    from neuralmech.laws.kinetic import KineticRule, kept

    name = optim.target.rpartition(".")[2] if optim.name == "_target_" else optim.name
    remembers, iterates = getattr(optim, "momentum", 0) > 0, getattr(optim, "polar", "exact") != "exact"
    rule = KineticRule(name, optim.clip_value is not None, optim.sam_rho > 0, remembers, iterates)
    says = {family: kept(rule, family) for family in families}
    return {family: f"{'yes' if of.exactly else 'no'}: {of.reason}" for family, of in says.items()}


def verify(words: list[str]) -> None:
    """Check every claimed symmetry of a fresh model, or of the run folder among the words."""
    run, rest = _run_among(words, "verify")

    def task(raw: Any) -> None:
        from omegaconf import OmegaConf

        from neuralmech.config import resolve
        from neuralmech.verification.names import check_conditions

        own = OmegaConf.create({k: v for k, v in raw.items() if k not in ("verify", "conditions", "checkpoint")})
        sample = raw.verify.sample
        if not isinstance(sample, int) or sample < 0:
            raise UserError(f"verify.sample={sample} must be a whole number of charges, 0 for none")
        step = raw.checkpoint
        if isinstance(step, bool) or not isinstance(step, int | None) or (step or 0) < 0:
            raise UserError(f"checkpoint={step} must be the step of a checkpoint, a whole number; null for the last")
        options = {"sample": sample, "conditions": _names("conditions", raw.conditions)}
        check_conditions(options["conditions"])
        if run is None:
            resolve(own)
        with importing("torch", for_good=True):  # torch; not before the options are right
            from neuralmech.training.claims import verify_fresh, verify_run

        _show(verify_fresh(own, **options) if run is None else verify_run(run, step, code=_code(raw), **options))

    launch(task, "verify", rest)


def _show(report: Any) -> None:
    """Print what was verified, and the verdict on all."""
    from neuralmech.compare.show.claims import show_verification

    show_verification(report.table)
    failed = report.table[~report.table["holds"]] if len(report.table) else report.table
    if len(failed):
        raise RunError(f"{len(failed)} claims fail: {', '.join(failed['site'])}; please report the model")
    print("all claims hold" if len(report.table) else "there are no claims: no symmetry was found")


def _run_among(words: list[str], command: str) -> tuple[Path | None, list[str]]:
    """The run folder among the words, if there is one, and the other words.

    Raises
    ------
    UserError
        If there are several, or options that would be ignored: a run has its config, and a fresh model no checkpoint.
    """
    runs = run_folders(words, command, lambda path: (path / FILE_NAME).exists())
    if len(runs) > 1:
        raise UserError(f"{command} takes one run folder")
    rest = [w for w in words if w not in runs]
    overrides = overrides_in(rest, command)
    for word in overrides:
        key, equals, value = word.lstrip("+~").partition("=")
        if key == "checkpoint" and not runs and value != "null":
            raise UserError("checkpoint= is a step of a run; name it too: neuralmech verify RUN checkpoint=STEP")
        own = (key in CODE and value == "custom") or _is_of_code(key, overrides) or _is_place(key, overrides)
        if runs and equals and not own and key not in OF_RUN[command] and not key.startswith("hydra."):
            raise UserError(f"{key} does not go with a run, {AS_IT_IS[command]}; leave it out")
    return (Path(runs[0]) if runs else None), rest


def _code(raw: Any) -> dict[str, Any]:
    """The user's own code by group, as the words name it, and the place of data."""
    from omegaconf import OmegaConf

    groups: dict[str, Any] = {key: OmegaConf.to_container(raw[key]) for key in CODE}
    placed = any(groups["data"].get(key.rpartition(".")[2]) is not None for key in PLACES)
    return {key: group for key, group in groups.items() if "_target_" in group or (key == "data" and placed)}


def _is_place(key: str, overrides: list[str]) -> bool:
    """Whether a key says where data are, or which of these they are."""
    return key in PLACES or (key == "data" and any(word.lstrip("+").startswith(PLACES) for word in overrides))


def _is_of_code(key: str, overrides: list[str]) -> bool:
    """Whether a key is the ``_target_`` of the user's own code, or an argument of it."""
    from neuralmech.config import own_options

    group, _, rest = key.partition(".")
    named = any(word.lstrip("+").startswith(f"{group}._target_=") for word in overrides)
    return group in CODE and named and rest.partition(".")[0] not in own_options(group)


def _names(key: str, value: Any) -> tuple[str, ...]:
    """Names in a list, or one of them without brackets."""
    from omegaconf import ListConfig

    if not isinstance(value, str | ListConfig):
        raise UserError(f"{key}={value} must be a list of names, such as {key}=[own,eval]")
    return (value,) if isinstance(value, str) else tuple(str(name) for name in value)
