"""Sweeps by the command line: one table, failed jobs, going on, links in their folders."""

import os
import re
import shlex
import signal

import pandas as pd
import pytest

from command_line import OWN, SMALL, refused, there
from neuralmech.record import open_record
from neuralmech.training.process import locked
from neuralmech.training.rule import LearningRule

pytestmark = pytest.mark.usefixtures("found_once")


def test_a_sweep_is_one_table(command, tmp_path):
    code, out, _ = command("train", *SMALL, "--multirun", "optim.lr=0.01,0.1", "seed=0,1", "hydra.sweep.dir=sweep")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("Job ")] == [
        f"Job {number} ({number + 1} of 4): optim.lr={lr} seed={seed}"
        for number, (lr, seed) in enumerate(((0.01, 0), (0.01, 1), (0.1, 0), (0.1, 1)))
    ]
    code, out, _ = command("analyze", "sweep", "figures=false")
    assert code == 0
    assert re.search(r"^ 0.01 +2 +\S+ ± ", out, re.MULTILINE)  # one row of two seeds
    assert out.count("\n") < 25
    table = pd.read_csv(tmp_path / "sweep/analysis/comparison.csv")
    assert {tuple(row) for row in table[["optim.lr", "seed"]].to_numpy()} == {(0.01, 0), (0.01, 1), (0.1, 0), (0.1, 1)}


def test_a_failed_job_does_not_end_the_sweep(command, tmp_path):
    code, _, err = command("train", *SMALL, "--multirun", "optim.lr=-1,0.1", "hydra.sweep.dir=sweep")
    assert code == 2
    assert "optim.lr=-1.0 must be a positive number" in err
    assert (tmp_path / "sweep/1/record.h5").exists()
    code, out, _ = command("analyze", "sweep", "figures=false")
    assert code == 0
    assert "job 0 failed: optim.lr=-1.0 must be a positive number" in out
    runs = pd.read_csv(tmp_path / "sweep/analysis/runs.csv").set_index("job")
    assert runs["status"].to_dict() == {0: "failed", 1: "complete"}
    assert runs["optim.lr"].to_dict() == {0: -1, 1: 0.1}
    assert "must be a positive number" in runs.loc[0, "reason"]


def test_a_sweep_over_a_pattern_does_not_know_its_number_of_jobs(command):
    words = ["loss=glob(cross*)", "train.steps=2", "hydra.sweep.dir=sweep", "hydra.job.chdir=true"]
    code, out, _ = command("train", *SMALL, "-m", *words)
    assert code == 0
    assert "Job 0: loss=cross_entropy\n" in out


def test_jobs_that_work_in_their_folders_name_them_in_full(command, tmp_path):
    out = command("train", *SMALL, "train.steps=2", "hydra.run.dir=there", "hydra.job.chdir=true")[1]
    assert f"Run folder: {tmp_path / 'there'}\n" in out
    assert f"analyze {tmp_path / 'there'}\n" in out
    assert "Run folder: here\n" in command("train", *SMALL, "train.steps=2", "hydra.run.dir=here")[1]


def test_a_sweep_over_lists_is_analysed(command):
    command("train", *SMALL, "-m", "track.families=[rescale],[translation]", "hydra.sweep.dir=sweep")
    code, out, _ = command("analyze", "sweep", "figures=false")
    assert code == 0
    assert re.search(r"^ \['rescale'\] +1 ", out, re.MULTILINE)


def test_a_sweep_that_was_stopped_goes_on_where_it_was(command, tmp_path, monkeypatch):
    words = ["train", *SMALL, "-m", "seed=0,1,2", "hydra.sweep.dir=sweep"]
    real, calls = LearningRule.row, []

    def press(*arguments):
        calls.append(arguments)
        if len(calls) == 47:  # in the second job
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LearningRule, "row", press)
        code, _, err = command(*words)
    assert code == 143
    assert len(err.splitlines()) == 1
    again = re.search(r"; neuralmech (train .*) goes on with this job and those after it", err)[1]
    code, out, err = command(*shlex.split(again))
    assert (code, err) == (0, "")
    assert out.count("30 steps recorded") == 3
    assert {p.name for p in (tmp_path / "sweep").iterdir()} == {"0", "1", "2", "multirun.yaml", "sweep.json"}
    before = there(tmp_path / "sweep")
    code, _, err = command(*words[:-2], "seed=5,6", words[-1])
    assert code == 2
    assert "1 cannot be resumed with another seed (the run has 1); start a new run with another hydra.sweep.dir=" in err
    assert there(tmp_path / "sweep") == before
    for seed in range(3):
        with open_record(tmp_path / f"sweep/{seed}") as record:
            assert (record.rows, record.status, record.config["seed"]) == (30, "complete", seed)


def test_a_sweep_that_is_not_taken_up_leaves_what_was_there(command, tmp_path):
    words, sweep = ["train", *SMALL, "-m", "hydra.sweep.dir=sweep"], tmp_path / "sweep"
    refused(command(*words, "seed=0", "model=mpl,mlp"), "mpl")
    assert not sweep.exists()
    assert command(*words, "seed=0,1")[0] == 0
    before = there(sweep)
    for more in (["model=mpl,mlp"], ["optim.lr=-1,0.1"], ["seed=0,5"], ["seed=0,0", "data.batch_size=0"]):
        assert command(*words, *more)[0] == 2
        assert there(sweep) == before
    with locked(sweep / "1"):
        assert command(*words, "seed=0,1,2")[0] == 2
    assert {p.name for p in sweep.iterdir()} == {"0", "1", "2", "multirun.yaml", "sweep.json"}  # the new one is done
    assert command(*words, "seed=0,1,2")[0] == 0
    assert "seed=0,1,2" in (sweep / "multirun.yaml").read_text()
    (sweep / ".multirun.yaml.before").mkdir()
    (sweep / ".multirun.yaml.before/there").touch()
    before = there(sweep)
    refused(command(*words, "seed=0,1,2,3"), r"multirun.yaml.* cannot be used \(Is a directory\)")
    assert there(sweep) == before


def test_a_sweep_whose_jobs_run_elsewhere_is_described_by_its_file(command, tmp_path, monkeypatch):
    """Nothing of them is seen in the process that launched them, and that is no refusal."""
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    file = tmp_path / "sweep/multirun.yaml"
    monkeypatch.setattr(BasicLauncher, "launch", lambda *_, **__: [])
    for seeds in ("seed=0,1", "seed=0,1,2"):
        assert command("train", *SMALL, "-m", seeds, "hydra.sweep.dir=sweep")[::2] == (0, "")
        assert seeds in file.read_text()
        assert {p.name for p in file.parent.iterdir()} == {file.name, "sweep.json"}


def test_a_sweeps_file_that_was_left_aside_is_taken_back(command, tmp_path, monkeypatch):
    """The process that set it aside was killed; it comes back if the next one is refused, or stopped at once."""
    words, sweep = ["train", *SMALL, "-m", "hydra.sweep.dir=sweep"], tmp_path / "sweep"
    assert command(*words, "seed=0,1")[0] == 0
    before = there(sweep)
    (sweep / "multirun.yaml").rename(sweep / ".multirun.yaml.before")
    assert command(*words, "seed=0,5")[0] == 2
    assert there(sweep) == before
    (sweep / "multirun.yaml").rename(sweep / ".multirun.yaml.before")
    with monkeypatch.context() as patch:
        patch.setattr("omegaconf.OmegaConf.save", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert command(*words, "seed=0,1,2")[0] == 143
    assert there(sweep) == before
    (sweep / "multirun.yaml").rename(sweep / ".multirun.yaml.before")
    assert command(*words, "seed=0,1,2")[0] == 0
    assert {p.name for p in sweep.iterdir()} == {"0", "1", "2", "multirun.yaml", "sweep.json"}
    assert "seed=0,1,2" in (sweep / "multirun.yaml").read_text()


def test_a_sweep_from_somewhere_else_writes_through_no_link(command, tmp_path):
    precious, elsewhere = tmp_path / "precious", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (precious, elsewhere / "failed.txt"):
        path.write_text("precious")
    sweep = tmp_path / "sweep"
    for job in ("1/.hydra", "2"):
        (sweep / job).mkdir(parents=True)
    for link in ("multirun.yaml", "1/failed.txt", "1/failed.tmp", "1/.hydra/config.yaml", "1/.hydra/hydra.tmp"):
        (sweep / link).symlink_to(precious)
    for link in ("0", "2/.hydra"):
        (sweep / link).symlink_to(elsewhere)
    code, _, err = command("train", *SMALL, "-m", "optim.lr=-1,-2,-3", "hydra.sweep.dir=sweep")
    assert code == 2
    assert f"{sweep / '0'} is a link to another place; remove it" in err
    assert f"{sweep / '2/.hydra'} is a link to another place; remove it" in err
    assert (precious.read_text(), there(elsewhere)) == ("precious", {elsewhere / "failed.txt": b"precious"})
    assert (sweep / "multirun.yaml").is_symlink()  # as it was
    assert "optim.lr=-2" in (sweep / "1/failed.txt").read_text()
    assert not (sweep / "1/failed.txt").is_symlink()


def test_a_sweep_over_a_users_own_model_goes_on_too(command, tmp_path):
    (tmp_path / "swept_net.py").write_text(OWN)
    words = ["train", "-m", "model=custom", "model._target_=swept_net.MyNet", "+model.width=5,7", "device=cpu"]
    for steps in (20, 30):
        code, out, err = command(*words, f"train.steps={steps}", "hydra.sweep.dir=sweep")
        assert (code, err) == (0, "")
        assert out.count(f"{steps} steps recorded") == 2
