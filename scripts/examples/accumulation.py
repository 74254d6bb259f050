"""Gradients of four micro-batches accumulated for each step, and clipped by their norm.

``python scripts/examples/accumulation.py FOLDER``. All that is neuralmech's are the lines that name it or `tracking`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import neuralmech

ACCUMULATE = 4


def main(folder: str) -> nn.Module:
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits["images"][:, None] / 16, dtype=torch.float32)
    batches = DataLoader(TensorDataset(x, torch.tensor(digits["target"])), batch_size=16, shuffle=True, drop_last=True)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, nesterov=True, weight_decay=1e-3)
    tracking = neuralmech.attach(model, optimizer, folder)
    for _ in range(2):
        for i, (images, labels) in enumerate(batches):
            loss = nn.functional.cross_entropy(model(images), labels)
            (loss / ACCUMULATE).backward()
            tracking.log(loss=loss)
            if (i + 1) % ACCUMULATE == 0:
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
    tracking.close()
    return model


if __name__ == "__main__":
    main(sys.argv[1])
