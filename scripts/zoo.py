"""Find and verify the symmetries of torchvision's and Hugging Face's models; write docs/zoo.md.

Random weights, small images, no downloads. ``python scripts/zoo.py [NAME ...]`` does a part and prints it. Every
model has a process of its own, so that its memory is free for the next; the page is rewritten after each.
"""

import os
import platform
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuralmech.symmetry.discover import find_symmetries
from neuralmech.symmetry.group import FAMILIES, Symmetries
from neuralmech.symmetry.verify import Verification, verify

TARGET = Path(__file__).parents[1] / "docs" / "zoo.md"
VISION = (  # the VGGs, which take 6 GB each, apart from each other
    "alexnet", "vgg11", "resnet18", "resnet34", "resnet50", "resnext50_32x4d", "vgg16", "densenet121",
    "wide_resnet50_2", "googlenet", "inception_v3", "vgg16_bn", "squeezenet1_1", "mobilenet_v2",
    "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet1_0", "shufflenet_v2_x1_0", "efficientnet_b0",
    "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t",
    "maxvit_t",
)  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},  # with its auxiliary heads: the first tensor returned is the logits
    "inception_v3": {"init_weights": False, "aux_logits": False},  # its auxiliary head needs larger images
    "vit_b_16": {"image_size": 64},
}
SIZES = {"inception_v3": 75, "maxvit_t": 224}  # the others take 64 × 64
LANGUAGE = ("gpt2", "gpt_neox", "opt", "bert", "distilbert", "electra", "t5", "llama", "mistral", "qwen2")
IMAGES = ("vit", "deit", "dinov2", "convnext")
CLASSES, WORDS, BATCH = 100, 101, 2
SAMPLED = 4  # charges per model that are checked by finite transformations and Hessian-vector products
SAMPLED_OF_LARGE = 1  # the same for more than LARGE parameters
LARGE = 50_000_000
WORKERS = 2  # models at a time, each on one thread
COLUMNS = (
    "model", "parameters", *FAMILIES, "covered", "barriers", "s", "gradient", "finite", "Hessian", "failed claims",
)  # fmt: skip

Case = tuple[nn.Module, tuple[Tensor, ...], Tensor]


class Logits(nn.Module):
    """A Hugging Face model as a function of its inputs that returns its logits."""

    def __init__(self, model: nn.Module, *names: str, **options: Any) -> None:
        super().__init__()
        self.model, self.names, self.options = model, names, options

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits of the model."""
        return self.model(**dict(zip(self.names, inputs, strict=True)), **self.options).logits


def vision(name: str) -> Case:
    from torchvision import models

    model = getattr(models, name)(num_classes=CLASSES, **OPTIONS.get(name, {}))
    size = SIZES.get(name, 64)
    return model, (torch.randn(BATCH, 3, size, size),), torch.randint(CLASSES, (BATCH,))


def hugging_face(name: str) -> Case:
    import transformers as hf  # pyright: ignore[reportMissingImports]

    small: dict[str, Any] = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    }  # fmt: skip
    words = torch.randint(100, (BATCH, 8))
    causal: dict[str, Any] = {
        "gpt2": (hf.GPT2Config, hf.GPT2LMHeadModel, {"n_positions": 32, "n_embd": 64, "n_layer": 2, "n_head": 4,
                 "bos_token_id": 0, "eos_token_id": 0}),
        "gpt_neox": (hf.GPTNeoXConfig, hf.GPTNeoXForCausalLM, small),
        "opt": (hf.OPTConfig, hf.OPTForCausalLM, small | {"ffn_dim": 96, "word_embed_proj_dim": 64}),
        "llama": (hf.LlamaConfig, hf.LlamaForCausalLM, small | {"num_key_value_heads": 2}),
        "mistral": (hf.MistralConfig, hf.MistralForCausalLM, small | {"num_key_value_heads": 2}),
        "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM, small | {"num_key_value_heads": 2}),
    }  # fmt: skip
    if name in causal:
        config, kind, options = causal[name]
        model = kind(config(vocab_size=WORDS, **options))
        return Logits(model, "input_ids", use_cache=False), (words,), torch.randint(WORDS, words.shape)
    classify: dict[str, Any] = {
        "bert": (hf.BertConfig, hf.BertForSequenceClassification, small),
        "distilbert": (hf.DistilBertConfig, hf.DistilBertForSequenceClassification,
                       {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}),
        "electra": (hf.ElectraConfig, hf.ElectraForSequenceClassification, small | {"embedding_size": 32}),
    }  # fmt: skip
    if name in classify:
        config, kind, options = classify[name]
        model = kind(config(vocab_size=WORDS, num_labels=CLASSES, **options))
        return Logits(model, "input_ids"), (words,), torch.randint(CLASSES, (BATCH,))
    if name == "t5":
        config = hf.T5Config(vocab_size=WORDS, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4)
        model = Logits(hf.T5ForConditionalGeneration(config), "input_ids", "decoder_input_ids", use_cache=False)
        return model, (words, words), torch.randint(WORDS, words.shape)
    patches = {"image_size": 32, "patch_size": 8}
    see: dict[str, Any] = {
        "vit": (hf.ViTConfig, hf.ViTForImageClassification, small | patches),
        "deit": (hf.DeiTConfig, hf.DeiTForImageClassification, small | patches),
        "dinov2": (hf.Dinov2Config, hf.Dinov2ForImageClassification, small | patches),
        "convnext": (hf.ConvNextConfig, hf.ConvNextForImageClassification,
                     {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}),
    }  # fmt: skip
    config, kind, options = see[name]
    model = Logits(kind(config(num_labels=CLASSES, **options)), "pixel_values")
    return model, (torch.randn(BATCH, 3, 32, 32),), torch.randint(CLASSES, (BATCH,))


def row(name: str) -> tuple[str, str]:
    """Return the table's row of one model, and what its failed claims are."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, inputs, targets = vision(name) if name in VISION else hugging_face(name)
    start = time.perf_counter()
    found = find_symmetries(model, inputs)
    seconds = time.perf_counter() - start
    size = sum(p.numel() for p in model.parameters())
    most = SAMPLED if size < LARGE else SAMPLED_OF_LARGE
    report = verify(model, inputs, targets, found, sample=1, most=most, conditions=("exact",))
    failed = report.table[~report.table["holds"]]
    return _line(name, size, found, seconds, report), "\n".join(
        f"  {r['family']} {r['site']}: gradient {r['exact_gradient']:.1e}, finite {r['exact_finite']:.1e}, "
        f"Hessian {r['exact_hessian']:.1e}"
        for r in failed.to_dict("records")
    )


def _line(name: str, size: int, found: Symmetries, seconds: float, report: Verification) -> str:
    counts = [f"{len(found.families[f]) if f in found.families else 0:,}" for f in FAMILIES]
    barriers = ", ".join(f"{op} ×{n}" for op, n in Counter(b.operation for b in found.barriers).items()) or "none"
    worst = [_number(report.table[f"exact_{test}"].max()) for test in ("gradient", "finite", "hessian")]
    cells = [name, f"{size:,}", *counts, f"{found.covered_parameters() / size:.1%}", barriers, f"{seconds:.1f}"]
    return "| " + " | ".join([*cells, *worst, str(int((~report.table["holds"]).sum()))]) + " |"


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.0e}"


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    chosen = sys.argv[1:]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for line, failed in pool.map(row, chosen or (*LANGUAGE, *IMAGES, *VISION)):
            lines.append(line)
            print(line, *([failed] if failed else []), sep="\n", flush=True)
            if not chosen:
                TARGET.write_text(page(lines), encoding="utf-8")


def page(lines: list[str]) -> str:
    machine = ", ".join(f"{p} {version(p)}" for p in ("torch", "torchvision", "transformers"))
    return "\n".join(
        [
            "# Symmetries of well-known models",
            "",
            "Made by `scripts/zoo.py`: Hugging Face's models from small configs, then torchvision's at full size with",
            f"{CLASSES} classes and images of 64×64 (inception_v3 75×75, maxvit_t 224×224); random weights, training",
            "mode, cross-entropy. *covered*: share of parameters in at least one charge. *barriers*:",
            "operations at which symmetries end. *s*: seconds to trace and find. The rest is the check of the",
            "claims on a random batch, in float64 with norms' eps removed: *gradient* is the largest",
            "|⟨g, ∂ψ⟩| / (|g| |∂ψ|) over all charges; *finite* and *Hessian* are the largest violations among a",
            f"random sample of {SAMPLED} charges ({SAMPLED_OF_LARGE} above {LARGE // 10**6} million "
            "parameters; – where an operation has",
            "no second derivative). A claim fails above 1e-9 (Hessian: 1e-6).",
            "",
            *lines,
            "",
            f"{machine}, Python {platform.python_version()}, {platform.machine()} CPU, one thread.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
