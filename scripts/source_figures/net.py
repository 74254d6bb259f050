"""A conv net that has charges of three families at once."""

from __future__ import annotations

from torch import Tensor, nn


class MixedNet(nn.Module):
    """Two convolutions, of which the first is batch-normalised, a hidden layer and a classifier, for 8×8 digits.

    Scale charges are those of the normalised filters, rescale charges those of all ReLUs, translation charges the
    column sums of the classifier.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.hidden = nn.Linear(8 * width, 4 * width)
        self.classifier = nn.Linear(4 * width, 10)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, 10) of images (batch, 1, 8, 8)."""
        x = self.pool(self.relu(self.norm(self.first(x))))
        x = self.pool(self.relu(self.second(x)))
        return self.classifier(self.relu(self.hidden(x.flatten(1))))
