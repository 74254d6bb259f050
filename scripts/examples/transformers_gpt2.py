"""A small GPT-2, trained by Hugging Face's Trainer on sequences that count.

``python scripts/examples/transformers_gpt2.py FOLDER``. All that is neuralmech's are the lines that name it.
"""

import sys

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from neuralmech.transformers import Charges


def counting(samples: int, length: int, words: int) -> list[dict[str, torch.Tensor]]:
    """Sequences a, a + b, a + 2b, … modulo the number of words."""
    start, pace = torch.randint(words, (2, samples, 1))
    tokens = (start + pace * torch.arange(length)) % words
    return [{"input_ids": row, "labels": row} for row in tokens]


def main(folder: str) -> nn.Module:
    set_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=61, n_positions=16))
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=folder,
            max_steps=40,
            per_device_train_batch_size=16,
            learning_rate=1e-3,
            weight_decay=0.1,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=counting(256, 16, 61),
        callbacks=[Charges(folder)],  # neuralmech
    )
    trainer.train()
    return model


if __name__ == "__main__":
    main(sys.argv[1])
