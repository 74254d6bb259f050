"""The experiments that are shipped: each claim has one at the scale of its source and a small twin; all are valid."""

import contextlib
import io
from pathlib import Path

import pytest
import yaml

import neuralmech
from neuralmech.cli.entry import main
from neuralmech.config import resolve

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf/experiment").glob("*.yaml"))


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    if not (ROOT / "scripts").is_dir():
        pytest.skip("scripts/ is not part of this installation")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def test_every_claim_has_an_experiment_and_a_twin():
    from claims import CLAIMS

    assert set(EXPERIMENTS) == {"first_light", *CLAIMS, *(f"{name}_small" for name in CLAIMS)}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_configs_are_valid_in_every_job(name):
    """Hydra composes each job of the sweep, and every option is one; twins sweep over the same keys."""
    from hydra import compose, initialize_config_dir

    text = (ROOT / f"conf/experiment/{name}.yaml").read_text(encoding="utf-8")
    assert "# Expected:" in text or name.endswith("_small") or name == "first_light"
    swept = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for key, values in swept.items():
            for value in str(values).split(","):
                resolve(compose("train", [f"experiment={name}", f"{key}={value}"]))
    if name.endswith("_small"):
        full = (ROOT / f"conf/experiment/{name.removesuffix('_small')}.yaml").read_text(encoding="utf-8")
        assert set(yaml.safe_load(full)["hydra"]["sweeper"]["params"]) == set(swept)


@pytest.mark.parametrize(("changed", "holds"), [([], True), (["optim.momentum=0.95"], False)])
def test_a_claim_is_measured_and_can_fail(tmp_path, monkeypatch, changed, holds):
    """Column sums decay as e^{−λt}; with momentum their inertia delays them, which that law does not know."""
    from claims import CLAIMS
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    monkeypatch.chdir(tmp_path)
    words = ["experiment=translation_small", "train.steps=150", "hydra.sweep.dir=sweep", "optim.weight_decay=0,0.05"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main(["train", *words, "track.parameters=0", *changed])
    assert CLAIMS["translation"].measure(neuralmech.analyze("sweep")).holds == holds
