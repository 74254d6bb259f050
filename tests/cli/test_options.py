"""What is typed, and what configuration says: help, completion, one line for what is wrong."""

import re
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from command_line import SMALL, refused
from neuralmech.cli import config_folder
from neuralmech.cli.entry import COMMANDS
from neuralmech.cli.explained import TAKEN, comments_in


def test_help_and_version(command):
    assert command("--help")[1].startswith("neuralmech: predict")
    assert command()[0] == 0
    assert re.fullmatch(r"neuralmech \d+\.\d+\.\d+\n", command("--version")[1])
    assert command("train", "--version")[:2] == command("--version")[:2]
    code, _, err = command("trian")
    assert code == 2
    assert "did you mean train" in err
    for name in ("train", "analyze", "watch", "forecast", "symmetries", "verify", "data"):
        assert f"neuralmech {name}" in command(name, "--help")[1]
    assert "weight_decay: 0.0" in command("train", "--cfg", "job")[1]


def keys_in(config, above=""):
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from keys_in(value, f"{above}{key}.")
        elif key not in ("name", "_target_") or above.count(".") != 1:
            yield f"{above}{key}"


@pytest.mark.parametrize("command_name", list(COMMANDS))
def test_help_explains_every_option_with_its_value(command, command_name):
    """Each key of the composed config has a line; that of each is what the YAML file says beside it."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        composed = OmegaConf.to_container(compose(command_name))
    text = command(command_name, "--help")[1]
    shown = dict(re.findall(r"^  ([\w.]+)=(?:\S+)(.*(?:\n {30,}.*)*)", text, re.MULTILINE))
    keys = set(keys_in(composed))
    if command_name in TAKEN:
        own = {"certify", "verify.sample", "conditions", "checkpoint"}
        keys = {key for key in keys if key in own or key.startswith(TAKEN[command_name])}
    assert set(shown) == keys
    assert [key for key, says in shown.items() if not says.strip()] == []


def test_help_follows_what_is_chosen(command, tmp_path):
    (tmp_path / "mine/model").mkdir(parents=True)
    (tmp_path / "mine/model/tiny.yaml").write_text("# Mine.\nname: mlp\nwidth: 2 # of my own\ndepth: 1\n")
    text = command("train", "--config-dir", "mine", "model=tiny", "optim=adam", "optim.lr=0.25", "--help")[1]
    assert re.search(r"^ +model.width=2 +of my own$", text, re.MULTILINE)
    assert re.search(r"^ +tiny +Mine\.$", text, re.MULTILINE)
    assert re.search(r"^ +optim.lr=0.25 +learning rate", text, re.MULTILINE)
    assert "optim.betas=[0.9,0.999]" in text
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_every_key_of_every_config_file_has_a_comment():
    for path in config_folder().rglob("*.yaml"):
        if path.parent.name == "experiment":
            continue
        head, says = comments_in(path.read_text())
        assert head, path
        keys = set(keys_in({k: v for k, v in OmegaConf.to_container(OmegaConf.load(path)).items() if k != "hydra"}))
        assert keys - set(says) - {"defaults", "name", "_target_"} == set(), path


def test_python_m():
    done = subprocess.run([sys.executable, "-m", "neuralmech", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("neuralmech ")


def test_completion_offers_commands_then_keys(command, monkeypatch):
    def complete(line):
        monkeypatch.setenv("COMP_LINE", line)
        return command("-sc", "query=bash")[1].split()

    assert complete("neuralmech tr") == ["train"]
    every = ["train", "analyze", "sweep", "watch", "forecast", "symmetries", "verify", "data"]
    assert complete("neuralmech ") == every
    models = ("convnet", "custom", "mlp", "torchvision", "transformer")
    assert complete("neuralmech train model=") == [f"model={name}" for name in models]
    assert "optim.lr=" in complete("neuralmech train optim.l")
    assert complete("neuralmech data f") == ["folder="]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=0", "optim.lr=0.0 must be a positive number"),
        ("optim.lr=fast", "optim.lr: .*fast.* could not be converted to Float"),
        ("optim.momentum=1", r"optim.momentum=1.0 must lie in \[0, 1\)"),
        ("optim.weight_decay=-1", "optim.weight_decay=-1.0 must not be negative"),
        ("optim.nesterov=true", "optim.nesterov=true needs optim.momentum > 0"),
        ("model=mpl", "model=mpl is unknown .did you mean mlp.*choose one of convnet, custom, mlp, torchvision"),
        ("data=mnits", "data=mnits is unknown .did you mean mnist.*choose one of cifar10"),
        ("data.batch_size=5000", "data.batch_size=5000 is larger than the training data .1438 samples"),
        ("model.widht=3", "model.widht is no option; did you mean model.width"),
        ("+model.widht=3", "model.widht is no option; did you mean model.width"),
        ("colour=red", "colour is no option"),
        ("lr=0.1", "lr is no option; did you mean optim.lr[?]"),
        ("epochs=3", "epochs is no option; did you mean train.epochs[?]"),
        ("train.lr=0.1", "train.lr is no option; did you mean optim.lr[?]"),
        ("checkpoint.keep=1", "checkpoint.keep is no option; did you mean train.checkpoint.keep[?]"),
        ("train.checkpoint_every=5", "train.checkpoint_every is no option; did you mean train.checkpoint.every[?]"),
        ("++momentun=0.1", "momentun is no option; did you mean optim.momentum[?]"),
        ("data=tokens", "model=convnet needs real numbers, data has tokens; use model=transformer"),
        ("model=transformer", r"model=transformer needs tokens, data has real numbers .1, 8, 8.; use data=tokens"),
        ("model.norm=bach", "model.norm=bach is unknown .did you mean batch"),
        ("device=cuda:99", "device=cuda:99 asks for a GPU that is not there; use device=cpu"),
        ("device=tpu", "device=tpu is unknown"),
        ("train.steps=0", "train.steps=0 is too small"),
        ("train.epochs=3", "give one of them"),
        ("device=3", "device=3 is unknown"),
        ("seed=99999999999999999999", "seed=99999999999999999999 must lie in"),
        ("optim.schedule=cosine", "set optim.schedule.name=cosine"),
        ("track.families=scale", r"must be a list, such as \[scale\]"),
        ("track.families=[scale]", "track.families=scale: this model has no such charges; it has translation, rescale"),
        ("data.test_fraction=0.0001", "holds out 0 of 1797 samples"),
        ("track.families=[scal]", "track.families=scal is unknown"),
        ("optim.schedule.name=cos", "did you mean cosine"),
        ("optim={lr:", "no viable alternative|mismatched|extraneous"),
        ("--frobnicate", "unrecognized arguments: --frobnicate"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(command, tmp_path, override, message):
    refused(command("train", override), message)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_made_is_one_line(command, tmp_path):
    (tmp_path / "file").write_text("")
    refused(command("train", *SMALL, "hydra.run.dir=file/run"), "file/run cannot be used")


def test_a_users_own_config_folder(command, tmp_path):
    (tmp_path / "mine/model").mkdir(parents=True)
    (tmp_path / "mine/model/tiny.yaml").write_text("name: mlp\nwidth: 2\ndepth: 1\n")
    code, out, _ = command("symmetries", "--config-dir", str(tmp_path / "mine"), "model=tiny")
    assert code == 0
    assert re.search(r"features.0 -> classifier *│ +2 ", out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"optim: {lr: 0.5}\n", r"conf/experiment/mine.yaml sets experiment.optim, which has no effect; make `# @pack"),
        (b"# hello\n# @package _global_\noptim: {lr: 0.5}\n", r"mine.yaml sets experiment.optim, which has no effect"),
        (b"# @package _global_ # mine\noptim: {lr: 0.5}\n", r"mine.yaml begins with a header that is none"),
        (b"# @package _global_\n# Gr\xf6\xdfe\n", r"mine.yaml is not UTF-8 .invalid start byte at byte 24.; save it"),
        ("# @package _global_\n".encode("utf-16"), r"mine.yaml is not UTF-8"),
    ],
)
def test_a_config_file_without_effect_is_named(command, tmp_path, content, message):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_bytes(content)
    refused(command("train", "--config-dir", "conf", "experiment=mine"), message)
    assert [p.name for p in tmp_path.iterdir()] == ["conf"]


def test_a_byte_order_mark_does_not_matter_and_shadowed_files_are_named(command, tmp_path):
    for group in ("experiment", "optim"):
        (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_bytes(b"\xef\xbb\xbf# @package _global_\noptim: {lr: 0.625}\n")
    assert "lr: 0.625" in command("train", "--config-dir", "conf", "experiment=mine", "--cfg", "job")[1]
    (tmp_path / "conf/optim/sgd.yaml").write_text("name: sgd\nlr: 0.5\n")
    refused(command("train", "--config-dir", "conf"), "conf/optim/sgd.yaml has no effect: optim=sgd is .*first")
