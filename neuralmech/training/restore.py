"""Put a run where its last checkpoint left it. Checkpoint and record may be damaged, mixed up, or anybody's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralmech.charges.step import rate_of
from neuralmech.data.draws import set_random_state
from neuralmech.errors import UserError
from neuralmech.record import FILE_NAME, Record, RecordError, open_record
from neuralmech.record.opening import can_mend
from neuralmech.record.safety import plain_yaml
from neuralmech.record.schema import STEP_COLUMNS, Position, Rows
from neuralmech.record.skeleton import Skeleton
from neuralmech.training.checkpoint import checkpoints, path_of, read_checkpoint, skeleton_of, to_position
from neuralmech.training.process import say
from neuralmech.training.recorded import disagreements
from neuralmech.training.run import Run
from neuralmech.words import printable


def restore(run: Run, folder: Path) -> Position:
    """Put a fresh run where its last usable checkpoint left it; returns the place in the record.

    A checkpoint is usable if it is whole, and so is the record up to there, or would be with the checkpoint's skeleton
    put back, which is all that is written. What is not is named on stderr, and the one before it is tried; if none is
    left the run starts again.

    Raises
    ------
    UserError, RecordError
        If record and checkpoint are not of one run, or hold what a run does not.
    """
    with open_record(folder) as record:
        _check_record(run, record)
        columns = record.columns
        run.identity = record.identity
        whole, evaluations = record.readable_rows(), record.readable_evaluations()
        ended = record.status != "running" and whole == record.rows  # otherwise what is behind those rows may be torn
        if whole < record.rows:
            say(f"{record.path} is damaged after row {whole}; continuing from before that")
    for step in reversed(checkpoints(folder / "checkpoints")):
        path = path_of(folder / "checkpoints", step)
        try:
            content, position = _read(path)
            there = position.rows <= whole and position.evaluations <= evaluations
            skeleton = None if there and ended else _mending(folder, step, position)
            if not there and skeleton is None:
                raise UserError(f"{path} needs {position.rows} rows of the record, of which {whole} are readable")
        except UserError as error:
            say(f"{error}; trying the checkpoint before it")
            continue
        _check_config(run, content, path)
        _restore(run, content, position, columns, path)
        if skeleton is not None:
            skeleton.write_to(folder / FILE_NAME)
            if not there:
                say(f"{folder / FILE_NAME} is damaged; mended: it is as it was at the checkpoint of step {step}")
        return position
    say(f"{folder} has no usable checkpoint; starting again from step 0")
    return Position(0, 0, Rows({}, {}))


def make_readable(folder: Path) -> None:
    """See to it that a run's record can be opened, if need be as it was at its last usable checkpoint.

    Raises
    ------
    RecordError
        If no checkpoint can mend it; it is as it was then.
    """
    try:
        open_record(folder).close()
    except RecordError as error:
        reason = str(error).rpartition("; ")[0] or str(error)
        for step in reversed(checkpoints(folder / "checkpoints")):
            with suppress(UserError):
                position = _read(path_of(folder / "checkpoints", step))[1]
                if skeleton := _mending(folder, step, position):
                    skeleton.write_to(folder / FILE_NAME)
                    say(f"{reason}; mended: it is as it was at the checkpoint of step {step}")
                    return
        raise RecordError(f"{reason}, and no checkpoint beside it can mend it; restore a copy or train again") from None


def _mending(folder: Path, step: int, position: Position) -> Skeleton | None:
    """The skeleton of the checkpoint at a step, if with it the record has what the checkpoint needs."""
    try:
        skeleton = Skeleton.load(skeleton_of(folder / "checkpoints", step))
    except RecordError:
        return None
    return skeleton if can_mend(folder / FILE_NAME, skeleton, position.rows, position.evaluations) else None


def _check_record(run: Run, record: Record) -> None:
    """Raise a `RecordError` unless the record has room for what the run measures."""
    if record.widths != {family: dict(layout.columns) for family, layout in run.tracker.layouts().items()}:
        raise RecordError(f"{record.path} does not hold the charges of the model in its config; restore a copy")


def _read(path: Path) -> tuple[dict[str, Any], Position]:
    content = read_checkpoint(path)
    try:
        return content, to_position(content["record"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds a model only, nothing to continue from") from error


def _check_config(run: Run, content: Mapping[str, Any], path: Path) -> None:
    """Raise a `UserError` if the record's config is not the one under which this was saved.

    Records from before their headers had checksums may have lost a bit of it.
    """
    if "config" not in content:  # an older one
        return
    try:
        found = disagreements(run.config, plain_yaml(content["config"]))
    except (TypeError, ValueError) as error:
        raise _foreign(path, error) from error
    if found:
        listed = ", ".join(f"{key} ({theirs} here, {ours} there)" for key, (ours, theirs) in found.items())
        raise UserError(f"{path} and the record disagree about {printable(listed)}; restore a copy of the damaged one")


def _restore(run: Run, content: Mapping[str, Any], position: Position, columns: set[str], path: Path) -> None:
    try:
        if content.get("run", "") != run.identity:
            raise ValueError("another run wrote it")
        _check_rows(run, content["step"], position, columns)
        _check_state(run, content)
        run.setup.model.load_state_dict(content["model"])
        run.rule.load(content["optimizer"])
        run.update.load_state_dict(content["scaler"])
        set_random_state(content["random"], run.setup.device)
        run.step, run.time = content["step"], content["time"]
        if (last := content.get("last")) is not None:
            before = run.rule.row(run.step - 1, run.steps, 0.0, 0)["lr"] if run.step else 0.0
            run.tracker.start(last, rate_of(run.execution.rate(before)))
        run.tracker.noise = _on(content["noise"], run.setup.device)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _foreign(path, error) from error


def _foreign(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is not of this run ({error}); remove it to use the one before it")


def _check_rows(run: Run, step: int, position: Position, columns: set[str]) -> None:
    """Raise a `ValueError` unless there is a row for each measured step before this one, as wide as the record's."""
    waiting, rows = position.waiting, len(position.waiting)
    if step > run.steps or position.rows + rows != run.schedule.count(step):
        raise ValueError(f"step {step} does not come after {position.rows + rows} rows")
    if not rows:
        return
    shapes = {family: {name: v.shape for name, v in signals.items()} for family, signals in waiting.charges.items()}
    layouts = run.tracker.layouts()
    wanted = {family: {name: (rows, n) for name, n in layout.columns.items()} for family, layout in layouts.items()}
    steps = {name: values.shape for name, values in waiting.steps.items()}
    known = columns <= set(steps) <= {*columns, *STEP_COLUMNS}  # older records lack some
    if shapes != wanted or not known or set(steps.values()) != {(rows,)}:
        raise ValueError("its rows do not fit the record")


def _check_state(run: Run, content: Mapping[str, Any]) -> None:
    """Raise a `ValueError` for numbers and tensors that no run saves; loading checks the others."""
    theta = run.flat.theta
    if not isinstance(content["time"], float) or not math.isfinite(content["time"]):
        raise ValueError(f"its time is {content['time']}")
    if not all(isinstance(value, (int, float)) for value in content["scaler"].values()):
        raise ValueError("its loss scale is no number")
    if content.get("last") is not None and content["last"].shape != theta.shape:
        raise ValueError("its last parameters are of another shape")
    noise, charges = content["noise"], (run.tracker.recorded,)
    if noise is not None and (len(noise) != 2 or {half.shape for half in noise} != {charges}):
        raise ValueError("its noise is of another shape")
    run.rule.check_state(content["optimizer"])


def _on(noise: tuple[Tensor, Tensor] | None, device: torch.device) -> tuple[Tensor, Tensor] | None:
    return None if noise is None else (noise[0].to(device), noise[1].to(device))
