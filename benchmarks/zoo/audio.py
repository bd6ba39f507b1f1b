"""transformers: what listens, and what follows numbers in time."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.zoo.architecture import Architecture
from benchmarks.zoo.language import SMALL, made, tokens

WAVE = {
    **SMALL,
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 3),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
    "mask_time_prob": 0.0,
}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "max_target_positions": 32,
    "vocab_size": 90,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
AST = {
    **SMALL,
    "max_length": 32,
    "num_mel_bins": 16,
    "patch_size": 8,
    "frequency_stride": 8,
    "time_stride": 8,
}
SERIES = {"context_length": 32, "num_input_channels": 2, "patch_length": 8, "patch_stride": 8, "d_model": 16}


def sound(batch: int, hundreds: int) -> dict[str, Tensor]:
    return {"input_values": torch.randn(batch, 100 * hundreds)}


def spectrum(batch: int, _: int) -> dict[str, Tensor]:
    return {"input_features": torch.randn(batch, 8, 40)}


def spectrum_and_words(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_features": torch.randn(batch, 8, 40), "decoder_input_ids": tokens(batch, length)}


def frames(batch: int, _: int) -> dict[str, Tensor]:
    return {"input_values": torch.randn(batch, 32, 16)}


def past(batch: int, _: int) -> dict[str, Tensor]:
    return {"past_values": torch.randn(batch, 32, 2)}


def whisper_encoder() -> Any:
    return made("WhisperModel", **WHISPER).get_encoder()  # type: ignore[operator]


WAVES: dict[str, dict[str, Any]] = {
    "Wav2Vec2Model": WAVE,
    "Wav2Vec2ForCTC": {**WAVE, "vocab_size": 20},
    "HubertModel": WAVE,
    "WavLMModel": WAVE,
    "UniSpeechModel": WAVE,
    "SEWModel": {**WAVE, "squeeze_factor": 2},
    "Data2VecAudioModel": {**WAVE, "conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2},
}

ZOO = {
    "audio": {
        **{kind: Architecture(partial(made, kind, **settings), sound) for kind, settings in WAVES.items()},
        "WhisperModel, encoder": Architecture(whisper_encoder, spectrum),
        "WhisperModel": Architecture(lambda: made("WhisperModel", **WHISPER), spectrum_and_words),
        "ASTModel": Architecture(lambda: made("ASTModel", **AST), frames),
    },
    "series": {
        "PatchTSTModel": Architecture(
            lambda: made("PatchTSTModel", **SERIES, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32), past
        ),
        "PatchTSMixerModel": Architecture(lambda: made("PatchTSMixerModel", **SERIES, num_layers=2), past),
    },
}
