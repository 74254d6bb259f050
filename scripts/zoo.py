"""Find and verify the symmetries of torchvision's and Hugging Face's models; write docs/zoo.md.

Random weights, small images, no downloads. ``python scripts/zoo.py [NAME ...]`` does a part and prints it.
"""

import platform
import sys
import time
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuralmech.symmetry.discover import find_symmetries
from neuralmech.symmetry.verify import verify

TARGET = Path(__file__).parents[1] / "docs" / "zoo.md"
VISION = (  # by size; written out, the generators of AlexNet or a VGG take more memory than a small machine has
    "squeezenet1_1", "squeezenet1_0", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "mnasnet0_5", "mobilenet_v3_small",
    "mobilenet_v2", "mnasnet1_0", "regnet_y_400mf", "regnet_x_400mf", "mobilenet_v3_large", "efficientnet_b0",
    "regnet_x_800mf", "efficientnet_b1", "googlenet", "densenet121", "resnet18", "resnet34", "resnext50_32x4d",
    "resnet50", "convnext_tiny", "swin_t",
)  # fmt: skip
LANGUAGE = ("gpt2", "bert", "llama", "vit", "t5")
HEAD = "| model | parameters | translation | scale | rescale | covered | barriers | s | worst violation | claims |"


class Logits(nn.Module):
    """A Hugging Face model as a function of its inputs that returns its logits."""

    def __init__(self, model: nn.Module, *names: str) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits of the model."""
        return self.model(**dict(zip(self.names, inputs, strict=True)), use_cache=False).logits


class Images(Logits):
    """The same for a model of images, which has no cache to switch off."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits of the model."""
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def vision(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...], torch.Tensor]:
    from torchvision import models

    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = getattr(models, name)(num_classes=100, **extra)
    return model, (torch.randn(2, 3, 64, 64),), torch.randint(100, (2,))


def language(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...], torch.Tensor]:
    import transformers as hf  # pyright: ignore[reportMissingImports]

    small: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
    }
    words = torch.randint(100, (2, 8))
    if name == "gpt2":
        config = hf.GPT2Config(
            vocab_size=101, n_positions=32, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
        )
        return Logits(hf.GPT2LMHeadModel(config), "input_ids"), (words,), torch.randint(101, (2, 8))
    if name == "llama":
        config = hf.LlamaConfig(vocab_size=101, num_key_value_heads=2, **small)
        return Logits(hf.LlamaForCausalLM(config), "input_ids"), (words,), torch.randint(101, (2, 8))
    if name == "bert":
        config = hf.BertConfig(vocab_size=101, **small)
        return Images(hf.BertForSequenceClassification(config), "input_ids"), (words,), torch.randint(2, (2,))
    if name == "t5":
        config = hf.T5Config(vocab_size=101, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4)
        model = Logits(hf.T5ForConditionalGeneration(config), "input_ids", "decoder_input_ids")
        return model, (words, words), torch.randint(101, (2, 8))
    config = hf.ViTConfig(image_size=32, patch_size=8, **small)
    return (
        Images(hf.ViTForImageClassification(config), "pixel_values"),
        (torch.randn(2, 3, 32, 32),),
        torch.randint(2, (2,)),
    )


def row(name: str) -> str:
    torch.manual_seed(0)
    model, inputs, targets = language(name) if name in LANGUAGE else vision(name)
    start = time.perf_counter()
    found = find_symmetries(model, inputs)
    seconds = time.perf_counter() - start
    total = sum(p.numel() for p in model.parameters())
    report = verify(model, inputs, targets, found, sample=1, most=12, conditions=("exact",))
    counts = [len(found.families[f]) if f in found.families else 0 for f in ("translation", "scale", "rescale")]
    barriers = ", ".join(f"{op} ×{n}" for op, n in Counter(b.operation for b in found.barriers).items()) or "none"
    verdict = "hold" if report.passed else "FAIL: " + ", ".join(report.table[~report.table["holds"]]["site"])
    cells = [name, f"{total:,}", *(f"{c:,}" for c in counts), f"{found.covered_parameters() / total:.1%}", barriers]
    return "| " + " | ".join([*cells, f"{seconds:.1f}", f"{report.worst:.0e}", verdict]) + " |"


def main() -> None:
    warnings.simplefilter("ignore")
    chosen = sys.argv[1:]
    lines = [HEAD, "|" + " --- |" * HEAD.count(" |")]
    for name in chosen or (*LANGUAGE, *VISION):
        lines.append(row(name))
        print(lines[-1], flush=True)
        if not chosen:
            TARGET.write_text(page(lines), encoding="utf-8")


def page(lines: list[str]) -> str:
    machine = ", ".join(f"{p} {version(p)}" for p in ("torch", "torchvision", "transformers"))
    return "\n".join(
        [
            "# Symmetries of well-known models",
            "",
            "Made by `scripts/zoo.py`: torchvision models with 100 classes on 64×64 images, Hugging Face models",
            "from small configs, random weights. *covered*: share of parameters in at least one charge. *s*:",
            "seconds to trace and find. *worst violation*: largest |⟨g, ∂ψ⟩| / (|g| |∂ψ|) over all charges, in",
            "float64 with norms' eps removed; a random sample of at most 12 charges was also checked by finite",
            "transformations and Hessian-vector products.",
            "",
            *lines,
            "",
            f"{machine}, Python {platform.python_version()}, {platform.machine()} CPU, one thread.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
