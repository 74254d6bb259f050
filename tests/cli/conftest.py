"""The command line as a user meets it: output, files, exit codes, one line per error."""

import shutil

import pytest

from command_line import SMALL, unhurried
from neuralmech.cli import main


def exit_code(*words):
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    try:
        main(list(words))
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command line in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = exit_code(*words)
        out = capsys.readouterr()
        return code, out.out, unhurried(out.err)

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder in which ``run`` was trained, not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert exit_code("train", *SMALL, "hydra.run.dir=run") == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A run in the folder where commands are given, as ``command("train", *SMALL, "hydra.run.dir=run")`` leaves it."""
    return shutil.copytree(trained / "run", tmp_path / "run")
