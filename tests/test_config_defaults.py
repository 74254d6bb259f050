"""An option has one default, whether the command line, Python or the documentation says it."""

import re
from dataclasses import asdict
from inspect import signature
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from neuralmech.cli import config_folder
from neuralmech.compare.gather.options import Options
from neuralmech.compare.watch import WatchOptions
from neuralmech.config import OWN, Config, LoggerConfig, TrackConfig, TrainConfig
from neuralmech.config.composed import own_code
from neuralmech.loggers import LOGGERS
from neuralmech.record.schema import ALL_SIGNALS
from neuralmech.sweeps.show import SweepOptions
from neuralmech.verification.names import CONDITIONS
from neuralmech.verification.sampling import Sampling
from neuralmech.verification.verify import verify

DOCS = Path(__file__).parents[1] / "docs"
SCHEMAS = {**OWN, "track": TrackConfig}
CHOICES = [
    (group, path.stem) for group in SCHEMAS for path in sorted((config_folder() / group).glob("*.yaml"))
]  # fmt: skip
# What is usual with a rule; the options' own defaults are those of SGD, and of these not all are every rule's.
USUAL = {"adam": {"lr": 1e-3}, "adamw": {"lr": 1e-3}, "muon": {"lr": 1e-3, "momentum": 0.95, "nesterov": True}}
OF_SOME_RULES = ("momentum", "dampening", "nesterov", "betas", "eps", "amsgrad", "polar")


def composed(*overrides, command="train"):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return OmegaConf.to_container(compose(command, [*overrides]), resolve=True)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_a_group_on_the_command_line_has_the_defaults_of_its_options(group, name):
    found = composed(f"{group}={name}")[group]
    if name == "custom":
        found = own_code(group, {**found, "_target_": "mine"})
        wanted = asdict(OWN[group]["_target_"](target="mine"))
    elif group == "optim":
        wanted = asdict(OWN[group][name](name=name)) | USUAL.get(name, {})
        assert not {"lr", "weight_decay", "schedule"} - set(found)
        found = {**{key: wanted[key] for key in OF_SOME_RULES}, **found}
    elif group in OWN:
        wanted = asdict(SCHEMAS[group][name](name=name))
    else:
        wanted = asdict(SCHEMAS[group]())
    differ = sorted(key for key in {*found, *wanted} if found.get(key, ...) != wanted.get(key, ...))
    remedy = "; what is usual with a rule is in USUAL" if group == "optim" else ""
    assert not differ, f"conf/{group}/{name}.yaml and its dataclass differ in {differ}{remedy}"


def test_every_group_has_its_files():
    assert {group for group, _ in CHOICES} == set(SCHEMAS)
    for group in OWN:
        assert {name for g, name in CHOICES if g == group} == {*OWN[group], "custom"} - {"_target_"}


def test_the_rest_of_a_run():
    found = composed()
    assert found["train"] == asdict(TrainConfig())
    assert (found["seed"], found["device"]) == (Config.seed, Config.device)
    assert found["loss"]["name"] == signature(verify).parameters["loss"].default


def test_an_analysis():
    assert composed(command="analyze") == asdict(Options())


def test_a_logger():
    assert composed()["logger"] == asdict(LoggerConfig())
    for path in (config_folder() / "logger").glob("*.yaml"):
        assert composed(f"logger={path.stem}")["logger"] == asdict(LoggerConfig(path.stem))
    assert {path.stem for path in (config_folder() / "logger").glob("*.yaml")} == set(LOGGERS)


def test_a_sweep():
    assert composed(command="sweep") == asdict(SweepOptions())
    assert composed()["sweep"] == {"retry": False}


def test_watching():
    assert composed(command="watch") == asdict(WatchOptions())


def test_a_verification():
    found = composed(command="verify")
    assert found["verify"] == {"sample": Sampling().per_site}
    assert {"exact", *found["conditions"]} == set(CONDITIONS)
    assert f"the default is `[{','.join(found['conditions'])}]`" in (DOCS / "symmetries.md").read_text()


def test_the_table_of_what_is_recorded():
    rows = re.findall(r"^\| `track\.(\w+)` \| ([^|]+) \|", (DOCS / "recording.md").read_text(), re.MULTILINE)
    said = {name: None if value == "all" else yaml.safe_load(value.strip("`")) for name, value in rows}
    assert len(said) == 16
    assert {name: getattr(TrackConfig(), name) for name in said} == said


def test_the_table_of_signals():
    text = (DOCS / "recording.md").read_text().split("| signal | is | drives |")[1].split("\n\n")[0]
    said = {name for row in text.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert said == set(ALL_SIGNALS), "the table of signals in docs/recording.md has others than record/schema.py"


def test_the_table_of_checkpoints():
    text = (DOCS / "runs.md").read_text()
    rows = re.findall(r"^\| `train\.checkpoint\.(\w+)` \| [^|(]*\((\d+); ", text, re.MULTILINE)
    assert len(rows) == 2
    assert {name: float(value) for name, value in rows} == {
        name: getattr(TrainConfig().checkpoint, name) for name, _ in rows
    }
    assert TrainConfig().loss_precision == "fp64"
    assert "`train.loss_precision=fp64`, the default" in (DOCS / "theory.md").read_text()
