"""transformers, timm and torchvision: what looks at images."""

from functools import partial
from typing import Any

import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn

from benchmarks.zoo.architecture import Architecture
from benchmarks.zoo.language import SMALL, made, sentences

VIT = {
    **SMALL,
    "image_size": 32,
    "patch_size": 8,
}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
DETR = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "num_queries": 5,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
DPT = {
    **VIT,
    "num_hidden_layers": 4,
    "backbone_out_indices": [0, 1, 2, 3],
    "neck_hidden_sizes": [8, 8, 16, 16],
    "fusion_hidden_size": 16,
    "reassemble_factors": [4, 2, 1, 0.5],
}
GLPN = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2]} | {
    "decoder_hidden_size": 16
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 90,
    "max_position_embeddings": 32,
    "eos_token_id": 2,
}


def pixels(batch: int, size: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.rand(batch, 3, size, size)}


def image(batch: int, size: int) -> Tensor:
    return torch.rand(batch, 3, size, size)


def image_and_text(batch: int, size: int) -> dict[str, Tensor]:
    return pixels(batch, 32) | sentences(batch, size)


def clip(batch: int, size: int) -> dict[str, Tensor]:
    return pixels(2, 32) | sentences(batch, size)


def detr(kind: str) -> nn.Module:
    backbone = transformers.ResNetConfig(**RESNET, out_features=["stage4"])
    return made(kind, **DETR, backbone_config=backbone)


SIZED: dict[str, dict[str, Any]] = {  # images of one size, of transformers
    "ViTModel": VIT,
    "DeiTModel": VIT,
    "BeitModel": VIT,
    "Dinov2Model": {**VIT, "mlp_ratio": 2},
    "DINOv3ViTModel": VIT,
    "SwinModel": SWIN,
    "Swinv2Model": SWIN,
    "YolosForObjectDetection": {**VIT, "image_size": [32, 32], "num_detection_tokens": 5},
    "PvtV2Model": {"image_size": 32, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
    | {"num_attention_heads": [1, 2, 2, 2]},
    "LevitModel": {"image_size": 64, "hidden_sizes": [16, 32, 48], "num_attention_heads": [1, 2, 2]}
    | {"depths": [1, 1, 1], "key_dim": [8, 8, 8]},
}
ANY_SIZE: dict[str, dict[str, Any]] = {
    "ResNetModel": RESNET,
    "RegNetModel": {**RESNET, "layer_type": "x", "groups_width": 8},
    "ConvNextModel": {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
    "ConvNextV2Model": {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
    "MobileNetV2Model": {"depth_multiplier": 0.35},
    "EfficientNetModel": {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
    "PoolFormerModel": {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
    "SegformerForSemanticSegmentation": {
        "hidden_sizes": [8, 16, 16, 32],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 2],
        "decoder_hidden_size": 16,
    },
    "FocalNetModel": {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1]},
    "MobileViTModel": {
        "hidden_sizes": [16, 24, 32],
        "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
        "image_size": 64,
        "num_attention_heads": 2,
    },
}
TIMM = [
    "resnet18",
    "resnet26t",
    "resnest14d",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "efficientnet_b0",
    "lcnet_050",
    "semnasnet_075",
    "ghostnet_050",
    "rexnet_100",
    "repvgg_a0",
    "mobileone_s0",
    "regnety_002",
    "densenet121",
    "dla34",
    "convnext_atto",
    "inception_next_atto",
    "convmixer_768_32",
    "eca_nfnet_l0",
    "skresnet18",
    "repvit_m0_9",
    "starnet_s1",
    "poolformer_s12",
    "fastvit_t8",
    "mambaout_femto",
    "edgenext_xx_small",
    "mobilevitv2_050",
]
TIMM_SIZED = [
    "vit_tiny_patch16_224",
    "pit_ti_224",
    "levit_128s",
    "mixer_s32_224",
    "resmlp_12_224",
    "gmlp_ti16_224",
    "efficientformer_l1",
    "tiny_vit_5m_224",
    "xcit_nano_12_p16_224",
    "swin_tiny_patch4_window7_224",
    "crossvit_tiny_240",
    "coatnet_nano_rw_224",
]
TORCHVISION = ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "googlenet"]


def _timm(name: str) -> nn.Module:
    return timm.create_model(name, pretrained=False, num_classes=5)


def _timm_side(name: str) -> int:
    return 240 if "240" in name else 224


def _torchvision(name: str) -> nn.Module:
    more = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    return getattr(torchvision.models, name)(num_classes=5, **more)


ZOO = {
    "vision": {
        **{
            kind: Architecture(
                partial(made, kind, **settings),
                pixels,
                (2, side := 64 if kind == "LevitModel" else 32),
                (3, side),
            )
            for kind, settings in SIZED.items()
        },
        **{
            kind: Architecture(
                partial(made, kind, **settings),
                pixels,
                (2, 64),
                (3, 64 if kind == "MobileViTModel" else 96),
            )
            for kind, settings in ANY_SIZE.items()
        },
        "DetrForObjectDetection": Architecture(lambda: detr("DetrForObjectDetection"), pixels, (2, 64), (3, 96)),
        "DPTForDepthEstimation": Architecture(lambda: made("DPTForDepthEstimation", **DPT), pixels, (2, 32), (3, 32)),
        "GLPNForDepthEstimation": Architecture(
            lambda: made("GLPNForDepthEstimation", **GLPN), pixels, (2, 64), (3, 96)
        ),
        "ViltModel": Architecture(lambda: made("ViltModel", **VIT, vocab_size=90), image_and_text, (2, 7), (3, 11)),
        "CLIPModel": Architecture(
            lambda: made("CLIPModel", text_config=TEXT, vision_config=VIT, projection_dim=16), clip
        ),
        "CLIPVisionModel": Architecture(lambda: made("CLIPVisionModel", **VIT), pixels, (2, 32), (3, 32)),
        "SiglipModel": Architecture(lambda: made("SiglipModel", text_config=TEXT, vision_config=VIT), clip),
    },
    "vision, timm": {
        **{n: Architecture(lambda n=n: _timm(n), image, (2, 64), (3, 96)) for n in TIMM},  # type: ignore[misc]
        **{
            n: Architecture(lambda n=n: _timm(n), image, (2, _timm_side(n)), (3, _timm_side(n)))  # type: ignore[misc]
            for n in TIMM_SIZED
        },
    },
    "vision, torchvision": {
        n: Architecture(lambda n=n: _torchvision(n), image, (2, 64), (3, 96))  # type: ignore[misc]
        for n in TORCHVISION
    },
}
