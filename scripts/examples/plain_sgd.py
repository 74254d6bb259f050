"""A plain loop: SGD with momentum and weight decay on handwritten digits.

``python scripts/examples/plain_sgd.py FOLDER``. All that is neuralmech's are the lines that name it or `tracking`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import neuralmech


def main(folder: str) -> nn.Module:
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits["data"] / 16, dtype=torch.float32), torch.tensor(digits["target"])
    batches = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True, drop_last=True)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    tracking = neuralmech.attach(model, optimizer, folder)
    for _ in range(3):
        for images, labels in batches:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            tracking.log(loss=loss)
    tracking.close()
    return model


if __name__ == "__main__":
    main(sys.argv[1])
