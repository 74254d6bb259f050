"""Hugging Face's models for the zoo, from small configs, each as a function of its inputs that returns its logits."""

from typing import Any

import torch
from torch import Tensor, nn

CLASSES, WORDS, BATCH, TOKENS = 100, 101, 2, 8
SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
}  # fmt: skip
IDS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 16} | IDS
EXPERTS = GROUPED | {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
LATENT = {
    "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
STATES = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4} | IDS
ENCODER_DECODER = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "max_position_embeddings": 32,
} | IDS  # fmt: skip
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_positions": 32, "n_embd": 64, "n_layer": 2, "n_head": 4} | IDS),
    "gpt_neo": ("GPTNeo", {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "intermediate_size": 96,
                           "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 32} | IDS),
    "gptj": ("GPTJ", {"n_positions": 32, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8} | IDS),
    "gpt_neox": ("GPTNeoX", SMALL),
    "opt": ("OPT", SMALL | {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "bloom": ("Bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4} | IDS),
    "mpt": ("Mpt", {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 32} | IDS),
    "falcon": ("Falcon", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4} | IDS),
    "phi": ("Phi", SMALL | IDS),
    "phi3": ("Phi3", SMALL | IDS),
    "codegen": ("CodeGen", {"n_positions": 32, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8} | IDS),
    "llama": ("Llama", SMALL | {"num_key_value_heads": 2}),
    "mistral": ("Mistral", SMALL | {"num_key_value_heads": 2}),
    "qwen2": ("Qwen2", SMALL | {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", GROUPED),
    "gemma": ("Gemma", GROUPED),
    "gemma2": ("Gemma2", GROUPED | {"query_pre_attn_scalar": 16}),
    "gemma3": ("Gemma3", GROUPED | {"query_pre_attn_scalar": 16}),
    "olmo": ("Olmo", GROUPED),
    "olmo2": ("Olmo2", GROUPED),
    "cohere": ("Cohere", GROUPED),
    "stablelm": ("StableLm", GROUPED),
    "nemotron": ("Nemotron", GROUPED),
    "starcoder2": ("Starcoder2", GROUPED),
    "granite": ("Granite", GROUPED),
    "glm4": ("Glm4", GROUPED),
    "mixtral": ("Mixtral", GROUPED | {"num_local_experts": 4}),
    "qwen2_moe": ("Qwen2Moe", EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 32}),
    "qwen3_moe": ("Qwen3Moe", EXPERTS | {"num_experts": 4}),
    "olmoe": ("Olmoe", GROUPED | {"num_experts": 4, "num_experts_per_tok": 2}),
    "gpt_oss": ("GptOss", GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "granitemoe": ("GraniteMoe", GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "phimoe": ("Phimoe", GROUPED | {"num_local_experts": 4}),
    "deepseek_v2": ("DeepseekV2", SMALL | IDS | LATENT | {"moe_intermediate_size": 32, "num_experts_per_tok": 2}),
    "deepseek_v3": ("DeepseekV3", SMALL | IDS | LATENT | {"moe_intermediate_size": 32, "num_experts_per_tok": 2}),
    "mamba": ("Mamba", STATES),
    "falcon_mamba": ("FalconMamba", STATES),
    "mamba2": ("Mamba2", STATES | {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 4}),
    "jamba": ("Jamba", GROUPED | {"num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4, "attn_layer_period": 2,
                                  "attn_layer_offset": 1, "expert_layer_period": 2, "use_mamba_kernels": False}),
    "bamba": ("Bamba", GROUPED | {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 4, "mamba_n_groups": 1,
                                  "attn_layer_indices": [1], "mamba_chunk_size": 4}),
    "recurrent_gemma": ("RecurrentGemma", GROUPED | {"lru_width": 64, "num_hidden_layers": 3}),
    "rwkv": ("Rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32} | IDS),
    "lfm2": ("Lfm2", GROUPED | {"layer_types": ["conv", "full_attention"], "block_ff_dim": 96}),
    "qwen3_next": ("Qwen3Next", EXPERTS | {
        "num_experts": 4, "shared_expert_intermediate_size": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}),
    "diffllama": ("DiffLlama", GROUPED),
}  # fmt: skip
CLASSIFY: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SMALL),
    "roberta": ("Roberta", SMALL | {"max_position_embeddings": 32}),
    "distilbert": ("DistilBert", {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}),
    "electra": ("Electra", SMALL | {"embedding_size": 32}),
    "albert": ("Albert", SMALL | {"embedding_size": 32}),
    "deberta": ("Deberta", SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"],
                                    "max_relative_positions": 8, "max_position_embeddings": 16}),
    "deberta_v2": ("DebertaV2", SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"],
                                         "max_relative_positions": 8, "max_position_embeddings": 16,
                                         "position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": True}),
    "roformer": ("RoFormer", SMALL | {"embedding_size": 64, "max_position_embeddings": 32}),
    "mpnet": ("MPNet", SMALL | {"max_position_embeddings": 32}),
    "xlnet": ("XLNet", {"d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96}),
    "funnel": ("Funnel", {"d_model": 64, "block_sizes": [1, 1], "num_decoder_layers": 1, "n_head": 4, "d_head": 16,
                          "d_inner": 96}),
    "convbert": ("ConvBert", SMALL | {"embedding_size": 64}),
    "fnet": ("FNet", SMALL),
    "squeezebert": ("SqueezeBert", SMALL | {"embedding_size": 64}),
    "modernbert": ("ModernBert", SMALL | IDS | {"cls_token_id": 0, "sep_token_id": 0}),
    "nystromformer": ("Nystromformer", SMALL | {"segment_means_seq_len": 8, "num_landmarks": 4}),
    "esm": ("Esm", SMALL | {"position_embedding_type": "rotary", "pad_token_id": 0, "mask_token_id": 1}),
    "mobilebert": ("MobileBert", {"hidden_size": 64, "embedding_size": 32, "num_hidden_layers": 2,
                                  "num_attention_heads": 4, "intermediate_size": 96, "intra_bottleneck_size": 32,
                                  "true_hidden_size": 32}),
}  # fmt: skip
TRANSLATE: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", T5),
    "mt5": ("MT5", T5),
    "umt5": ("UMT5", T5),
    "switch_transformers": ("SwitchTransformers", T5 | {
        "num_experts": 4, "expert_capacity": 8, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}),
    "bart": ("Bart", ENCODER_DECODER | {"decoder_start_token_id": 0}),
    "pegasus": ("Pegasus", ENCODER_DECODER | {"decoder_start_token_id": 0}),
    "whisper": ("Whisper", ENCODER_DECODER | {"num_mel_bins": 8, "max_source_positions": 8,
                                              "max_target_positions": 16, "decoder_start_token_id": 0}),
}  # fmt: skip
PATCHES = SMALL | {"image_size": 32, "patch_size": 8}
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", PATCHES),
    "deit": ("DeiT", PATCHES),
    "dinov2": ("Dinov2", PATCHES),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}),
    "convnextv2": ("ConvNextV2", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}),
    "beit": ("Beit", PATCHES | {"use_relative_position_bias": True, "use_shared_relative_position_bias": False,
                                "out_indices": None}),
    "data2vec_vision": ("Data2VecVision", PATCHES | {"use_shared_relative_position_bias": True}),
    "swin": ("Swin", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
                      "window_size": 4}),
    "swinv2": ("Swinv2", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
                          "window_size": 4}),
    "cvt": ("Cvt", {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3],
                    "cls_token": [False, False, True]}),
    "focalnet": ("FocalNet", {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1],
                              "focal_levels": [2, 2], "focal_windows": [3, 3]}),
    "mobilevit": ("MobileViT", {"image_size": 32, "hidden_sizes": [16, 24, 32], "num_attention_heads": 4,
                                "neck_hidden_sizes": [8, 8, 12, 16, 16, 16, 32]}),
    "mobilevitv2": ("MobileViTV2", {"image_size": 64, "width_multiplier": 0.5}),
    "poolformer": ("PoolFormer", {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}),
    "pvt_v2": ("PvtV2", {"image_size": 32, "hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1]}),
    "segformer": ("Segformer", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}),
    "hiera": ("Hiera", {"image_size": [32, 32], "patch_stride": [4, 4], "embed_dim": 16, "depths": [1, 1, 2],
                        "num_heads": [1, 2, 4], "masked_unit_size": [4, 4], "num_query_pool": 2,
                        "query_stride": [2, 2]}),
    "bit": ("Bit", {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_groups": 4}),
    "regnet": ("RegNet", {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1],
                          "groups_width": 8}),
    "siglip": ("Siglip", {"vision_config": PATCHES}),
    "levit": ("Levit", {"image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4],
                        "depths": [1, 1, 1], "key_dim": [8, 8, 8]}),
}  # fmt: skip
SIDES = {"mobilevitv2": 64, "levit": 64}  # the others take images of 32 × 32
WAVES = SMALL | {
    "conv_dim": (16, 16), "conv_kernel": (8, 4), "conv_stride": (4, 4), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 32,
    "mask_time_prob": 0.0, "layerdrop": 0.0,
}  # fmt: skip
SOUNDS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2", WAVES),
    "wavlm": ("WavLM", WAVES | {"num_buckets": 8, "max_bucket_distance": 16}),
    "wav2vec2_conformer": ("Wav2Vec2Conformer", WAVES | {"position_embeddings_type": "relative",
                                                         "conv_depthwise_kernel_size": 3}),
}  # fmt: skip
NAMES = (*CAUSAL, *CLASSIFY, *TRANSLATE, *IMAGES, *SOUNDS, "sam", "clip")

Case = tuple[nn.Module, tuple[Tensor, ...], Tensor]


class Logits(nn.Module):
    """A Hugging Face model as a function of its inputs that returns its logits."""

    def __init__(self, model: nn.Module, *names: str, **options: Any) -> None:
        super().__init__()
        self.model, self.names, self.options = model, names, options

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits of the model."""
        return self.model(**dict(zip(self.names, inputs, strict=True)), **self.options).logits


class Pooled(nn.Module):
    """Linear classifier on the mean over positions of what a vision encoder returns, (batch, height, width, width)."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the images."""
        return self.head(self.encoder(images).last_hidden_state.mean((2, 3)))


class Contrast(nn.Module):
    """CLIP's similarities of every image with every text, times its learned temperature."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, words: Tensor) -> Tensor:
        """Logits (images, texts)."""
        return self.model(pixel_values=images, input_ids=words).logits_per_image


def case(name: str) -> Case:
    """Model, inputs and labels of one of `NAMES`."""
    import transformers as hf  # pyright: ignore[reportMissingImports]

    def build(kind: str, head: str, **options: Any) -> nn.Module:
        head = "LMHeadModel" if kind == "GPT2" else f"For{head}"
        text = "Text" if kind == "Gemma3" else ""
        return getattr(hf, kind + head)(getattr(hf, f"{kind}{text}Config")(**options))

    words = torch.randint(100, (BATCH, TOKENS))
    labels = torch.randint(CLASSES, (BATCH,))
    if name in CAUSAL:
        kind, options = CAUSAL[name]
        model = build(kind, "CausalLM", vocab_size=WORDS, **options)
        return Logits(model, "input_ids", use_cache=False), (words,), torch.randint(WORDS, words.shape)
    if name in CLASSIFY:
        kind, options = CLASSIFY[name]
        model = build(kind, "SequenceClassification", vocab_size=WORDS, num_labels=CLASSES, **options)
        return Logits(model, "input_ids"), (words,), labels
    if name in TRANSLATE:
        kind, options = TRANSLATE[name]
        model = build(kind, "ConditionalGeneration", vocab_size=WORDS, **options)
        source = "input_features" if name == "whisper" else "input_ids"
        given = torch.randn(BATCH, 8, 16) if name == "whisper" else words
        every = torch.ones(words.shape, dtype=torch.long)
        masks = {"attention_mask": every, "decoder_attention_mask": every} if name == "switch_transformers" else {}
        reads = Logits(model, source, "decoder_input_ids", use_cache=False, **masks)
        return reads, (given, words), torch.randint(WORDS, words.shape)
    if name in SOUNDS:
        kind, options = SOUNDS[name]
        model = build(kind, "SequenceClassification", num_labels=CLASSES, **options)
        return Logits(model, "input_values"), (torch.randn(BATCH, 256),), labels
    if name == "sam":
        encoder = hf.SamVisionModel(hf.SamVisionConfig(
            hidden_size=32, output_channels=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=4,
            window_size=4, global_attn_indexes=[1], mlp_dim=64, initializer_range=0.02,
        ))  # fmt: skip
        return Pooled(encoder, 16), (torch.randn(BATCH, 3, 32, 32),), labels
    if name == "clip":
        text = SMALL | {"vocab_size": WORDS, "max_position_embeddings": 16} | IDS
        model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=PATCHES, projection_dim=24))
        return Contrast(model), (torch.randn(4, 3, 32, 32), torch.randint(1, 100, (4, TOKENS))), torch.arange(4)
    kind, options = IMAGES[name]
    side, batch = SIDES.get(name, 32), 8 if name == "levit" else BATCH  # its last BatchNorms see one pixel of a sample
    labels = torch.randint(CLASSES, (batch,))
    model = Logits(build(kind, "ImageClassification", num_labels=CLASSES, **options), "pixel_values")
    return model, (torch.randn(batch, 3, side, side),), labels
