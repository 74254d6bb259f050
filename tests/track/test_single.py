"""Single parameters are recorded beside a charge that they are part of, at the value they have there."""

import numpy as np
import pytest
import torch

from conftest import config
from neuralmech.discovery.discover import find_symmetries
from neuralmech.record import open_record
from neuralmech.training.begin import begin
from neuralmech.training.checkpoint import path_of, read_checkpoint

MODELS = {
    "normed": {"name": "mlp", "width": 6, "depth": 3, "norm": "batch"},
    "linear": {"name": "mlp", "width": 5, "depth": 3, "activation": "none"},
}


@pytest.mark.parametrize("charges", ["all", "site", "sample"])
@pytest.mark.parametrize("name", MODELS)
def test_recorded_parameters_move_with_their_charge(run, name, charges):
    parts = {"model": MODELS[name], "train": {"steps": 8, "precision": "fp64"}}
    folder = run(**parts, track={"charges": charges, "sample": 2, "full": 3, "parameters": 3})
    model = begin(config(**parts)).setup.model
    found = find_symmetries(model, begin(config(**parts)).setup.data.example(torch.float32))
    start = read_checkpoint(path_of(folder / "checkpoints", 0))["model"]
    with open_record(folder) as record:
        for family in record.families:
            recorded = record.charges(family)
            index = recorded.parameter_index
            assert len(index) == min(3, len(recorded))
            assert "parameters" not in recorded.signals
            assert np.ptp(recorded.parameters[:], axis=0).any()  # not all: a norm ignores the bias before it
            for k, (parameter, entry, charge) in enumerate(index.itertuples(index=False)):
                assert recorded.parameters[0, k] == start[parameter].flatten()[entry]
                assert _is_part(found, family, parameter, entry, recorded.index.iloc[charge], charges)


def _is_part(found, family, parameter, entry, place, charges):
    """Whether some charge of that site (and channel, unless summed) contains the parameter."""
    names = list(found.shapes)
    offset = sum(int(np.prod(found.shapes[n])) for n in names[: names.index(parameter)]) + entry
    if family == "linear":
        site = next(m for m in found.families[family].matrices if m.name == place["site"])
        channels = range(site.size) if charges == "site" else [place["channel"]]
        return any((site.generator(i, i, found.shapes).row == offset).any() for i in channels)
    claims = found.families[family]
    charge = [
        i
        for i, (site, channel) in enumerate(zip(claims.sites, claims.channels, strict=True))
        if site == place["site"] and (charges == "site" or channel == place["channel"])
    ]
    return any(found.generators()[family][[i], :].toarray()[0, offset] for i in charge)


def test_none_are_recorded_if_none_are_wanted(run):
    with open_record(run(model=MODELS["normed"], track={"parameters": 0})) as record:
        assert all(record.charges(family).parameter_index.empty for family in record.families)
