"""Callbacks for Lightning's and Hugging Face's Trainer: what they attach to, log and leave behind."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from neuralmech.errors import UserError
from neuralmech.record import open_record
from own_loops import data, law_errors, net, steps_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:::lightning"),  # its own deprecations, and advice on more workers
    pytest.mark.filterwarnings("ignore:::accelerate"),
    pytest.mark.filterwarnings("ignore:::transformers"),
]
FLOAT32 = 1e-5  # of charges that nearly cancel, after a dozen steps that round θ by 6·10⁻⁸


def lightning_module(*, fails_at=-1, manual=False):
    pytorch = pytest.importorskip("lightning.pytorch")

    class Module(pytorch.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.automatic_optimization, self.losses = net(torch.float32), not manual, []

        def training_step(self, batch, index):
            if index == fails_at:
                raise ValueError("no more")
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            if not manual:
                return {"loss": loss, "other": 1}
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
            return loss

        def configure_optimizers(self):
            parts = (self.net[:5], self.net[5]) if manual else (self.net,)
            return [torch.optim.SGD(part.parameters(), 0.05, momentum=0.9) for part in parts]

    return Module()


def fit(module, callback):
    pytorch = pytest.importorskip("lightning.pytorch")
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "barebones"), False
    )
    trainer = pytorch.Trainer(max_epochs=2, accelerator="cpu", callbacks=[callback], **quiet)
    trainer.fit(module, DataLoader(TensorDataset(*data(torch.float32)), batch_size=16))


def status(folder):
    with open_record(folder) as record:
        return record.status


@pytest.mark.parametrize("manual", [False, True])
def test_a_network_within_a_lightning_module(tmp_path, manual):
    pytest.importorskip("lightning.pytorch")
    from neuralmech.lightning import Charges

    module = lightning_module(manual=manual)
    callback = Charges(tmp_path, network="net", every=2)
    fit(module, callback)
    steps = steps_of(tmp_path)
    assert steps["step"].tolist() == list(range(0, 12, 2))
    assert steps["batch_size"].tolist() == [16] * 6
    np.testing.assert_allclose(steps["loss"], module.losses[::2], rtol=1e-6)
    assert status(tmp_path) == "complete"
    assert max(e for (family, _), e in law_errors(tmp_path).items() if family == "translation") < FLOAT32
    assert not callback.tracking.symmetries.families["translation"].sites[0].startswith("net.")


def test_lightning_that_stops(tmp_path):
    pytest.importorskip("lightning.pytorch")
    from neuralmech.lightning import Charges

    with pytest.raises(ValueError, match="no more"):
        fit(lightning_module(fails_at=3), Charges(tmp_path, "net"))
    assert status(tmp_path) == "stopped: ValueError"
    assert len(steps_of(tmp_path)["step"]) == 3


def test_a_lightning_module_that_is_not_called_is_named(tmp_path):
    pytest.importorskip("lightning.pytorch")
    from neuralmech.lightning import Charges

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(lightning_module(), Charges(tmp_path))
    assert any("attach the model that the loop calls" in str(w.message) for w in caught)
    with pytest.raises(UserError, match="Charges: network=nets: "):
        fit(lightning_module(), Charges(tmp_path, "nets"))


class Answers(nn.Module):
    """As models of transformers: the loss beside the logits, of a sum over micro-batches where that is asked for."""

    def __init__(self):
        super().__init__()
        self.net = net(torch.float32)

    def forward(self, x, labels=None, num_items_in_batch=None):
        from transformers.modeling_outputs import SequenceClassifierOutput

        logits = self.net(x)
        if labels is None:
            return SequenceClassifierOutput(logits=logits)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        loss = loss / (len(x) if num_items_in_batch is None else num_items_in_batch)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class Sums(Answers):
    """The Trainer says how many samples the loss is a mean of, where ``forward()`` takes any keyword."""

    def forward(self, x, labels=None, **keywords):
        return super().forward(x, labels, **keywords)


@pytest.mark.parametrize("kind", [Answers, Sums])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_accumulation_and_precision_of_the_trainer_of_transformers(tmp_path, precision, kind):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from neuralmech.transformers import Charges

    model = kind()
    options = {"output_dir": tmp_path / "out", "max_steps": 6, "per_device_train_batch_size": 8, "use_cpu": True,
               "gradient_accumulation_steps": 2, "save_strategy": "no", "report_to": [], "disable_tqdm": True,
               "bf16": precision == "bf16", "optim": "sgd", "learning_rate": 0.05, "logging_steps": 1}  # fmt: skip
    rows = [{"x": x, "labels": y} for x, y in zip(*data(torch.float32), strict=True)]
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(**options),
        train_dataset=rows,
        callbacks=[Charges(tmp_path / "run", families=["translation"])],
    )
    trainer.train()
    steps = steps_of(tmp_path / "run")
    assert steps["step"].tolist() == list(range(6))
    assert steps["batch_size"].tolist() == [16] * 6
    said = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    np.testing.assert_allclose(steps["loss"], said, rtol=1e-3)  # said to four digits
    assert max(law_errors(tmp_path / "run").values()) < FLOAT32
    assert not model._forward_hooks
    assert status(tmp_path / "run") == "complete"
