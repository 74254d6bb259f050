"""AdamW with weight decay on matrices alone, and a learning rate that warms up and falls along a cosine.

``python scripts/examples/adamw_groups.py FOLDER``. All that is neuralmech's are the lines that name it or `tracking`.
"""

import math
import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import neuralmech

STEPS, WARMUP = 80, 10


def rate(step: int) -> float:
    """Of the largest learning rate."""
    return min(1.0, step / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / STEPS))


def main(folder: str) -> nn.Module:
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits["data"] / 16, dtype=torch.float32), torch.tensor(digits["target"])
    model = nn.Sequential(
        nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10)
    )
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    tracking = neuralmech.attach(model, optimizer, folder)
    for _ in range(STEPS):
        batch = torch.randint(len(x), (64,))
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
        tracking.log(loss=loss)
    tracking.close()
    return model


if __name__ == "__main__":
    main(sys.argv[1])
