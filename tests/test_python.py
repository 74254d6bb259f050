"""Python as a way in: a run from a mapping, figures on demand, what objects show of themselves."""

import inspect
import sys

import numpy as np
import pytest

import made_runs
import neuralmech
from neuralmech.errors import UserError
from neuralmech.record import RecordError

SMALL = {"model": {"name": "mlp", "width": 6}, "data.batch_size": 16, "train.steps": 20, "device": "cpu"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return neuralmech.train({**SMALL, "optim": {"lr": 0.05, "weight_decay": 1e-3}}, tmp_path_factory.mktemp("run"))


def test_a_run_from_python_is_the_run_of_the_command_line(trained, tmp_path):
    words = ["model=mlp", "model.width=6", "data.batch_size=16", "train.steps=20", "device=cpu", "optim.lr=0.05"]
    again = neuralmech.train([*words, "optim.weight_decay=0.001"], tmp_path / "again")
    assert (again.rows, again.loss, again.accuracy) == (20, trained.loss, trained.accuracy)
    with trained.record() as one, again.record() as other:
        assert one.config == other.config
        for family in one.families:
            np.testing.assert_array_equal(one.charges(family).value[:], other.charges(family).value[:])
    assert len(repr(again).splitlines()) == 1


def test_the_function_is_there_whatever_was_imported():
    import neuralmech.training.loop

    assert neuralmech.training.loop.train is not None
    assert list(inspect.signature(neuralmech.train).parameters) == ["config", "folder"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model=mlp", r"give a list of overrides, \['model=mlp'\]"),
        (["--multirun"], "'--multirun' is no override"),
        (["model=mpl"], "model=mpl is unknown .did you mean mlp"),
        ({"model": {"name": "mlp", "widht": 3}}, "model.widht is no option; did you mean model.width"),
        ({"optim": {"lr": 0}}, "optim.lr=0.0 must be a positive number"),
        ({"colour": "red"}, "colour is no option"),
    ],
)
def test_a_wrong_config_is_one_line_and_leaves_nothing(tmp_path, config, message):
    with pytest.raises(UserError, match=message) as caught:
        neuralmech.train(config, tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_record_is_refused_and_the_default_one_is_new(trained, tmp_path, monkeypatch):
    with pytest.raises(RecordError, match="holds a record already"):
        neuralmech.train(SMALL, trained.folder)
    monkeypatch.chdir(tmp_path)
    assert neuralmech.train({**SMALL, "train.steps": 2, "track.steps": [[0, 1]]}).folder.parts[0] == "outputs"


def test_figures(trained):
    found = trained.analyze(laws=["discrete", "modified_flow"])
    figure = found.plot("rescale")
    assert len(figure.axes) == 2
    with pytest.raises(
        UserError, match=r"figure=scale is unknown .*choose one of training, norms, translation, rescale"
    ):
        found.plot("scale")
    with trained.record() as record:
        charges = record.charges("rescale")
        (axes,) = charges.plot(lines=3).axes
        assert len(axes.lines) == 3
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), charges.value[:, 0])
        with pytest.raises(AttributeError, match="no signal 'size'"):
            charges.plot("size")


def test_charges_as_xarray(trained, monkeypatch):
    pytest.importorskip("xarray")
    with trained.record() as record:
        found = record.charges("rescale").to_xarray()
        np.testing.assert_array_equal(found["value"], record.charges("rescale").value[:])
        assert found["value"].dims == ("row", "charge")
        assert list(found["step"].to_numpy()) == list(range(20))
        assert set(found["site"].to_numpy()) == set(record.charges("rescale").index["site"])
        monkeypatch.setitem(sys.modules, "xarray", None)
        with pytest.raises(ImportError, match=r"pip install 'neuralmech.xarray.'"):
            record.charges("rescale").to_xarray()


def test_what_is_returned_shows_itself_in_a_line(trained):
    from transformers import GPT2Config, GPT2Model

    big = GPT2Model(GPT2Config(n_embd=32, n_layer=4, n_head=4, vocab_size=50))
    import torch

    symmetries = neuralmech.find_symmetries(big, torch.randint(50, (2, 8)))
    with trained.record() as record:
        shown = [symmetries, record, record.charges("rescale"), trained.analyze()]
        for one in shown:
            assert len(repr(one)) < 400
            assert len(repr(one).splitlines()) == 1
            assert "<table>" in one._repr_html_()
            assert len(one._repr_html_()) < 6000
        charges = record.charges("rescale")
    for closed in (record, charges):
        assert "closed" in repr(closed)
        assert "closed" in closed._repr_html_()


def test_what_a_record_says_is_escaped(tmp_path):
    made_runs.job(tmp_path / "<b>", made_runs.config(0.1, 0))
    with neuralmech.load(tmp_path / "<b>") as record:
        assert "<b>" not in record._repr_html_()


def test_parts_of_symmetries_show_themselves_in_a_line():
    import torch
    from transformers import GPT2Config, GPT2Model

    big = GPT2Model(GPT2Config(n_embd=32, n_layer=4, n_head=4, vocab_size=50))
    found = neuralmech.find_symmetries(big, torch.randint(50, (2, 8)))
    assert {"translation", "scale", "rescale", "linear"} & set(found.families)
    for family in found.families.values():
        blocks = [block for site in getattr(family, "matrices", ()) for block in site.blocks]
        for one in (family, *family.terms, *getattr(family, "matrices", ()), *blocks):
            assert len(repr(one)) < 200
            assert len(repr(one).splitlines()) == 1
    assert len(repr(found.generators())) < 1000


def test_completion_offers_what_is_public():
    assert "import_module" not in vars(neuralmech)
    assert dir(neuralmech) == sorted(neuralmech.__all__)
    for name in dir(neuralmech):
        assert getattr(neuralmech, name) is not None
