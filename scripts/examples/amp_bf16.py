"""Automatic mixed precision: forward and backward in bfloat16, parameters and steps in float32.

``python scripts/examples/amp_bf16.py FOLDER``. All that is neuralmech's are the lines that name it or `tracking`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import neuralmech

STEPS = 80


def main(folder: str) -> nn.Module:
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits["data"] / 16, dtype=torch.float32), torch.tensor(digits["target"])
    model = nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    tracking = neuralmech.attach(model, optimizer, folder)
    for _ in range(STEPS):
        batch = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        tracking.log(loss=loss)
    tracking.close()
    return model


if __name__ == "__main__":
    main(sys.argv[1])
