"""The commands that train nothing: analyze, watch, forecast, symmetries, verify."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from neuralmech.cli.application import launch, overrides_in, run_folders
from neuralmech.errors import RunError, UserError
from neuralmech.record import FILE_NAME


def analyze(words: list[str]) -> None:
    """Compare the run folders among the words with theory."""
    runs = run_folders(words, "analyze", Path.exists)
    rest = [w for w in words if w not in runs]
    if not runs and not any(w.startswith("-") for w in rest):
        raise UserError("analyze needs a run folder: neuralmech analyze RUN [RUN ...]")

    def task(raw: Any) -> None:
        from neuralmech.compare.folder import analyze_folder, follow
        from neuralmech.compare.gather.options import options
        from neuralmech.compare.gather.runs import find_runs
        from neuralmech.compare.show.terminal import Redrawn, show_analysis

        chosen = options(dict(raw))
        for found in [find_runs(Path(run), live=chosen.live) for run in runs]:  # all are there before the first
            if chosen.live:
                with Redrawn() as show:
                    last = follow(found.folder, chosen, show)
                show_analysis(last)
            else:
                show_analysis(analyze_folder(found.folder, chosen))

    launch(task, "analyze", rest)


def _one_run(words: list[str], command: str, usage: str) -> tuple[list[str], list[str]]:
    """The run folder among the words, and the others; a question for help needs no folder."""
    runs = run_folders(words, command, Path.exists)
    rest = [w for w in words if w not in runs]
    if len(runs) != 1 and not any(w.startswith("-") for w in rest):
        raise UserError(f"{command} takes one run folder: {usage}")
    return runs, rest


def watch(words: list[str]) -> None:
    """Show the run folder among the words, again and again until it ends."""
    runs, rest = _one_run(words, "watch", "neuralmech watch RUN")

    def task(raw: Any) -> None:
        from neuralmech.compare.watch import WatchOptions
        from neuralmech.compare.watch import watch as show

        show(Path(runs[0]), WatchOptions(**dict(raw)))

    launch(task, "watch", rest)


def forecast(words: list[str]) -> None:
    """Predict the charges of the run folder among the words after a change of its hyperparameters."""
    runs, rest = _one_run(words, "forecast", "neuralmech forecast RUN optim.lr=0.01 steps=1000")

    def task(raw: Any) -> None:
        from neuralmech.compare.measure.forecast import forecast as predicted
        from neuralmech.compare.measure.forecast import plan_of
        from neuralmech.compare.show.forecasts import show_forecast
        from neuralmech.record import open_record

        with open_record(Path(runs[0])) as record:
            plan = plan_of(record, raw.steps, raw.optim.lr, raw.optim.weight_decay, raw.at, raw.window)
            show_forecast(predicted(record, plan), plan, int(record.column("step", slice(plan.row, plan.row + 1))[0]))

    launch(task, "forecast", rest)


def symmetries(words: list[str]) -> None:
    """Show which charges a model has, as a table or with ``--json``."""
    as_json = "--json" in words

    def task(raw: Any) -> None:
        from omegaconf import OmegaConf

        from neuralmech.compare.show.claims import show_symmetries
        from neuralmech.config import resolve
        from neuralmech.training.claims import certified
        from neuralmech.training.setup import prepare, summary

        if not isinstance(raw.certify, bool):
            raise UserError(f"certify={raw.certify} must be true or false")
        config = resolve(OmegaConf.create({k: v for k, v in raw.items() if k != "certify"}))
        setup = prepare(config, bare=not raw.certify)
        found = summary(setup)
        found["rule"] = _kept(config.optim, found["sites"])
        found["certificate"] = str(certified(setup, config)) if raw.certify else ""
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            show_symmetries(found)

    launch(task, "symmetries", [w for w in words if w != "--json"])


def _kept(optim: Any, families: Iterable[str]) -> dict[str, str]:
    """Family → whether a run's learning rule keeps its symmetries, and why."""
    from neuralmech.laws.kinetic import Rule, kept

    name = optim.target.rpartition(".")[2] if optim.name == "_target_" else optim.name
    remembers, iterates = getattr(optim, "momentum", 0) > 0, getattr(optim, "polar", "exact") != "exact"
    rule = Rule(name, optim.clip_value is not None, optim.sam_rho > 0, remembers, iterates)
    says = {family: kept(rule, family) for family in families}
    return {family: f"{'yes' if of.exactly else 'no'}: {of.reason}" for family, of in says.items()}


OF_RUN = ("checkpoint", "conditions", "verify.sample")  # and the user's own code, which a record must not name
CODE = ("model", "data", "loss")


def verify(words: list[str]) -> None:
    """Check every claimed symmetry of a fresh model, or of the run folder among the words."""
    runs = run_folders(words, "verify", lambda path: (path / FILE_NAME).exists())
    if len(runs) > 1:
        raise UserError("verify takes one run folder")
    _check_overrides([w for w in overrides_in(words, "verify") if w not in runs], of_run=bool(runs))

    def task(raw: Any) -> None:
        from omegaconf import OmegaConf

        from neuralmech.compare.show.claims import show_verification
        from neuralmech.training.claims import verify_fresh, verify_run

        own = OmegaConf.create({k: v for k, v in raw.items() if k not in ("verify", "conditions", "checkpoint")})
        sample = raw.verify.sample
        if not isinstance(sample, int) or sample < 0:
            raise UserError(f"verify.sample={sample} must be a whole number of charges, 0 for none")
        step = raw.checkpoint
        if isinstance(step, bool) or not isinstance(step, int | None) or (step or 0) < 0:
            raise UserError(f"checkpoint={step} must be the step of a checkpoint, a whole number; null for the last")
        options = {"sample": sample, "conditions": _names("conditions", raw.conditions)}
        code: Any = {key: OmegaConf.to_container(raw[key]) for key in CODE if "_target_" in raw[key]}
        report = verify_run(Path(runs[0]), step, code=code, **options) if runs else verify_fresh(own, **options)
        show_verification(report.table)
        failed = report.table[~report.table["holds"]] if len(report.table) else report.table
        if len(failed):
            raise RunError(f"{len(failed)} claims fail: {', '.join(failed['site'])}; please report the model")

    launch(task, "verify", [w for w in words if w not in runs])


def _check_overrides(overrides: list[str], *, of_run: bool) -> None:
    """Raise a `UserError` for keys that would be ignored: a run has its config, and a fresh model no checkpoint."""
    for word in overrides:
        key, equals, value = word.lstrip("+~").partition("=")
        if key == "checkpoint" and not of_run and value != "null":
            raise UserError("checkpoint= is a step of a run; name it too: neuralmech verify RUN checkpoint=STEP")
        own = (key in CODE and value == "custom") or _is_of_code(key, overrides)
        if of_run and equals and not own and key not in OF_RUN and not key.startswith("hydra."):
            raise UserError(f"{key} does not go with a run, which is verified as it was trained; leave it out")


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
