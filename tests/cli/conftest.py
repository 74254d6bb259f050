"""The command line as a user meets it: output, files, exit codes, one line per error."""

import pytest

from neuralmech.cli import main


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command line in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        from hydra.core.global_hydra import GlobalHydra

        GlobalHydra.instance().clear()
        code = 0
        try:
            main(list(words))
        except SystemExit as stop:
            code = stop.code
        out = capsys.readouterr()
        return code, out.out, out.err

    return call
