"""A ResNet-18 with BatchNorm, trained by Lightning's Trainer.

``python scripts/examples/lightning_resnet.py FOLDER``. All that is neuralmech's are the lines that name it.
"""

import sys
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from neuralmech.lightning import Charges


class Net(LightningModule):
    """ResNet-18 for ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=10)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


def main(folder: str) -> nn.Module:
    seed_everything(0, verbose=False)
    digits = load_digits()
    x = torch.tensor(digits["images"][:64, None] / 16, dtype=torch.float32)
    images = nn.functional.interpolate(x, size=32).repeat(1, 3, 1, 1)
    batches = DataLoader(TensorDataset(images, torch.tensor(digits["target"][:64])), batch_size=16, shuffle=True)
    net = Net()
    trainer = Trainer(
        callbacks=[Charges(folder)],  # neuralmech
        max_epochs=2,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net, batches)
    return net


if __name__ == "__main__":
    main(sys.argv[1])
