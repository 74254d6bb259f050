"""Muon for the matrices and AdamW for the rest, each with a scheduler of its own.

``python scripts/examples/two_optimizers.py FOLDER``. All that is neuralmech's are the lines that name it or `tracking`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import neuralmech

STEPS = 60


def main(folder: str) -> nn.Module:
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits["data"] / 16, dtype=torch.float32), torch.tensor(digits["target"])
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    matrices, rest = ([p for p in model.parameters() if (p.dim() == 2) == is_matrix] for is_matrix in (True, False))
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1)
    adamw = torch.optim.AdamW(rest, lr=1e-3, weight_decay=0.01)
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS) for o in (muon, adamw)]
    tracking = neuralmech.attach(model, [muon, adamw], folder)
    for _ in range(STEPS):
        batch = torch.randint(len(x), (64,))
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        model.zero_grad()
        loss.backward()
        muon.step()
        adamw.step()
        for scheduler in schedulers:
            scheduler.step()
        tracking.log(loss=loss)
    tracking.close()
    return model


if __name__ == "__main__":
    main(sys.argv[1])
