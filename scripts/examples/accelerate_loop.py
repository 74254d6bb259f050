"""A loop with Hugging Face's accelerate, which wraps the optimiser and accumulates gradients.

``python scripts/examples/accelerate_loop.py FOLDER``. All that is neuralmech's are the lines that name it or
`tracking`.
"""

import sys

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import neuralmech


def main(folder: str) -> nn.Module:
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits["data"] / 16, dtype=torch.float32), torch.tensor(digits["target"])
    batches = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True, drop_last=True)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 40, gamma=0.1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer, batches, scheduler = accelerator.prepare(model, optimizer, batches, scheduler)
    tracking = neuralmech.attach(model, optimizer, folder)
    for _ in range(3):
        for images, labels in batches:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(images), labels)
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            tracking.log(loss=loss)
    tracking.close()
    return accelerator.unwrap_model(model)


if __name__ == "__main__":
    main(sys.argv[1])
