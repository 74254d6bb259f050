"""What Python shows of options: what differs from the defaults, as one would write it, and no more."""

import dataclasses
from importlib import import_module

import pytest

from conftest import config
from neuralmech.config import TrainConfig
from neuralmech.words import Differing

ROOMS = (
    "config.optim", "config.options", "models.options", "data.options", "losses.builtin", "compare.gather.options",
    "compare.watch", "sweeps.show", "track.options",
)  # fmt: skip
MODULES = [import_module(f"neuralmech.{name}") for name in ROOMS]
NAMES = {name: value for module in MODULES for name, value in vars(module).items() if isinstance(value, type)}
KINDS = {name: kind for name, kind in NAMES.items() if issubclass(kind, Differing) and dataclasses.is_dataclass(kind)}


def required(kind):
    nothing = dataclasses.MISSING
    return [f for f in dataclasses.fields(kind) if f.default is nothing and f.default_factory is nothing]


def test_there_are_options():
    assert {"TrackConfig", "OptimConfig", "MLPOptions", "DigitsOptions", "CrossEntropy", "WatchOptions"} <= set(KINDS)


@pytest.mark.parametrize("kind", [k for k in KINDS.values() if not required(k)], ids=lambda kind: kind.__name__)
def test_defaults_are_not_shown_and_what_is_shown_makes_it_again(kind):
    assert repr(kind()) == f"{kind.__name__}()"
    for field in dataclasses.fields(kind):
        if isinstance(getattr(kind(), field.name), float):
            other = dataclasses.replace(kind(), **{field.name: 0.125})
            assert repr(other) == f"{kind.__name__}({field.name}=0.125)"
            assert eval(repr(other), NAMES) == other


def test_a_config_is_a_line_of_what_was_chosen():
    made = config(train={"steps": 7, "checkpoint": {"keep": None}})
    assert "train=TrainConfig(steps=7, eval_every=0, checkpoint=CheckpointConfig(keep=None))" in repr(made)
    assert eval(repr(made), NAMES) == made
    assert len(repr(made)) < 320
    assert repr(TrainConfig()) == "TrainConfig()"
