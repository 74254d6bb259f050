"""Everything that a run needs, made of its config."""

from __future__ import annotations

from dataclasses import replace

from torch.nn.modules.dropout import _DropoutNd

from neuralmech.config import Config
from neuralmech.data import Batches, training_batches
from neuralmech.track import Schedule, Tracker, Tracking
from neuralmech.training.execute import check_execution
from neuralmech.training.finite import check_data
from neuralmech.training.flat import FlatParameters
from neuralmech.training.groups import assign
from neuralmech.training.kernels import choose_kernels
from neuralmech.training.rule import LearningRule
from neuralmech.training.run import Run
from neuralmech.training.setup import Setup, choose_device, prepare
from neuralmech.training.together import ALONE, Alone


def begin(config: Config, processes: Alone = ALONE) -> Run:
    """Make everything that a run needs; writes nothing."""
    device = processes.device(config.device)
    check_execution(config.train, choose_device(device))
    choose_kernels(deterministic=config.train.deterministic)
    setup = prepare(replace(config, device=device))
    groups = assign(setup.model, config.optim.groups)
    flat = FlatParameters(setup.model, groups.of)
    rule = LearningRule(config.optim, flat, groups, keeps_buffer=config.track.rotations)
    batches = training_batches(setup.data, config.data, config.seed, processes.share)
    steps = config.train.steps or max(1, round((config.train.epochs or 0) * batches.per_epoch))
    schedule = Schedule(config.track.every, config.track.steps)
    tracker = Tracker(
        setup.symmetries,
        flat.layout,
        flat.theta,
        Tracking(
            families=config.track.families,
            extra=rule.signals,
            noise=config.track.noise > 0,
            block=max(1, min(config.track.block, schedule.count(steps))),
            kept=config.track.signals,
            full=config.track.full,
            charges=config.track.charges,
            sample=config.track.sample,
            parameters=config.track.parameters,
            work=_sees_one_loss(setup, batches) and config.track.every == 1 and config.track.steps is None,
            ratios=groups.ratios,
            decays=groups.decays,
            rules=rule.rules,
            entries=not rule.has_sgds_laws,
            rotations=config.track.rotations,
            sides=config.track.sides,
            oscillation=config.track.oscillation,
            norms_of=config.track.norms_of,
            momentum="buffer" if rule.has_sgds_laws else "rule",
        ),
    )
    tracker.start(flat.theta)
    run = Run(config, setup, flat, rule, batches, tracker, schedule, steps, processes)
    try:
        check_data(run)
        run.check_parts()
        run.check_noise()
    except BaseException:
        batches.close()
        raise
    return run


def _sees_one_loss(setup: Setup, batches: Batches) -> bool:
    """Whether every step has the whole training set as its batch, and nothing at random."""
    drops = any(isinstance(m, _DropoutNd) and m.p > 0 for m in setup.model.modules())
    return batches.are_whole and not drops
