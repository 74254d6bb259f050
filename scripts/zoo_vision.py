"""Models of torchvision, timm and segmentation-models-pytorch for the zoo: random weights, small images."""

from typing import Any

import torch
from torch import Tensor, nn

CLASSES, BATCH = 100, 2
MORE = {"efficientvit_m0": 8, "efficientvim_m1": 8}  # samples where the last BatchNorms see one pixel of each
LABELS = 5  # classes of a pixel
TORCHVISION = (  # the VGGs, which take 6 GB each, apart from each other
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
SIZED: dict[str, Any] = {"img_size": 64}
TOKENS = SIZED | {"embed_dim": 96, "depth": 2, "num_heads": 4}
STAGES: dict[str, Any] = {"depths": (1, 1, 2, 1)}
TIMM: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": TOKENS,
    "deit3_small_patch16_224": TOKENS,
    "beit_base_patch16_224": TOKENS,
    "beitv2_base_patch16_224": TOKENS,
    "vit_relpos_small_patch16_224": TOKENS,
    "vit_srelpos_small_patch16_224": TOKENS,
    "samvit_base_patch16": TOKENS | {"window_size": 2, "global_attn_indexes": (1,)},
    "eva02_tiny_patch14_224": TOKENS | {"img_size": 56},
    "vit_medium_patch16_rope_reg1_gap_256": TOKENS,
    "cait_xxs24_224": TOKENS,
    "convit_tiny": TOKENS | {"local_up_to_layer": 1},
    "swin_tiny_patch4_window7_224": SIZED | STAGES | {"window_size": 4, "embed_dim": 48},
    "swinv2_tiny_window8_256": SIZED | STAGES | {"window_size": 4, "embed_dim": 48},
    "swinv2_cr_tiny_224": SIZED | STAGES | {"window_size": 2, "embed_dim": 48},
    "coatnet_nano_rw_224": SIZED | STAGES,
    "coatnet_rmlp_nano_rw_224": SIZED | STAGES,
    "maxvit_rmlp_pico_rw_256": SIZED | STAGES,
    "maxxvit_rmlp_nano_rw_256": SIZED | STAGES,
    "tiny_vit_5m_224": STAGES,
    "levit_128s": SIZED | {"depth": (1, 1, 1)},
    "levit_conv_128s": SIZED | {"depth": (1, 1, 1)},
    "sam2_hiera_tiny": {"stages": (1, 1, 2, 1), "global_att_blocks": (3,)},
    "hiera_tiny_224": SIZED | {"stages": (1, 1, 2, 1)},
    "mvitv2_tiny": SIZED,
    "gcvit_xxtiny": SIZED,
    "botnet26t_256": SIZED,
    "lambda_resnet26t": SIZED,
    "mixer_s32_224": SIZED,
    "gmlp_ti16_224": SIZED,
    "resmlp_12_224": SIZED,
    "crossvit_tiny_240": {},
    "davit_tiny": {"depths": (1, 1, 1, 1), "embed_dims": (48, 96, 144, 192)},
    "efficientformerv2_s0": SIZED,
    "efficientvit_b0": {},
    "efficientvit_m0": SIZED,
    "efficientvim_m1": {},
    "fastvit_t8": {},
    "focalnet_tiny_srf": {},
    "ghostnet_050": {},
    "hrnet_w18_small": {},
    "inception_next_atto": STAGES,
    "mambaout_femto": STAGES,
    "caformer_s18": {},
    "nest_tiny": SIZED,
    "nf_resnet26": {},
    "pit_ti_224": SIZED | {"depth": (1, 1, 1)},
    "pvt_v2_b0": {"depths": (1, 1, 1, 1)},
    "repvit_m0_9": SIZED,
    "res2net50_26w_4s": {"layers": (1, 1, 1, 1)},
    "resnest14d": {},
    "resnetv2_50": {"layers": (1, 1, 1, 1)},
    "rexnet_100": {},
    "seresnet18": {},
    "skresnet18": {},
    "sequencer2d_s": SIZED | {"layers": (1, 1, 1, 1)},
    "tnt_s_patch16_224": SIZED | {"depth": 2},
    "twins_svt_small": SIZED | {"depths": (2, 2, 2, 2)},
    "visformer_tiny": SIZED | {"depth": (1, 1, 1)},
    "xcit_nano_12_p16_224": SIZED | {"depth": 2},
    "xception41": {},
    "dla34": {},
    "dpn48b": {},
    "cspresnet50": {},
    "edgenext_xx_small": STAGES,
    "swiftformer_xs": SIZED | {"layers": (1, 1, 2, 1)},
    "ese_vovnet19b_dw": {},
    "starnet_s1": STAGES,
    "hgnet_tiny": {},
    "mobilenetv4_conv_small": {},
    "mobileone_s0": SIZED,
    "shvit_s1": {},
}
SEGMENTATION = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "UPerNet", "Segformer",
)  # fmt: skip

Case = tuple[nn.Module, tuple[Tensor, ...], Tensor]


def torchvision(name: str) -> Case:
    """Model, inputs and labels of one of `TORCHVISION`, at full size."""
    from torchvision import models

    model = getattr(models, name)(num_classes=CLASSES, **OPTIONS.get(name, {}))
    size = SIZES.get(name, 64)
    return model, (torch.randn(BATCH, 3, size, size),), torch.randint(CLASSES, (BATCH,))


def timm(name: str) -> Case:
    """Model, inputs and labels of one of `TIMM`."""
    from timm import create_model  # pyright: ignore[reportMissingImports]

    options, batch = TIMM[name], MORE.get(name, BATCH)
    size = options.get("img_size", 64)
    model = create_model(name, num_classes=CLASSES, **options)
    return model, (torch.randn(batch, 3, size, size),), torch.randint(CLASSES, (batch,))


def segmentation(name: str) -> Case:
    """Model, inputs and labels of every pixel for one of `SEGMENTATION`."""
    import segmentation_models_pytorch as smp  # pyright: ignore[reportMissingImports]

    model = getattr(smp, name)("resnet18", encoder_weights=None, classes=LABELS)
    return model, (torch.randn(BATCH, 3, 64, 64),), torch.randint(LABELS, (BATCH, 64, 64))
