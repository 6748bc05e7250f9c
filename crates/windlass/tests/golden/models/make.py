"""Tiny random models of every decoder, and the logits that transformers computes from them in float32.

    python make.py        (torch and transformers; writes NAME/config.json, NAME/model.safetensors, NAME/logits.safetensors)

`logits` is [tokens, vocabulary] for `tokens`.
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

COMMON = dict(
    vocab_size=128,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
MODELS = {
    "llama": {},
    "llama3": dict(
        rope_parameters=dict(
            rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "yarn": dict(
        rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64),
    ),
    "mistral": dict(sliding_window=8),
    "qwen2": {},
    "qwen3": dict(tie_word_embeddings=True),
    "phi3": dict(original_max_position_embeddings=256),
    "gemma2": dict(sliding_window=8, query_pre_attn_scalar=16),
    "gemma3": dict(sliding_window=8, query_pre_attn_scalar=16),
    "mixtral": dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    "qwen3moe": dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True),
}
TYPES = {"llama3": "llama", "yarn": "llama", "gemma3": "gemma3_text", "qwen3moe": "qwen3_moe"}

for name, settings in MODELS.items():
    torch.manual_seed(0)
    config = AutoConfig.for_model(TYPES.get(name, name), **(COMMON | settings))
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.3 if parameter.ndim == 1 else 0.15) + (0.5 if parameter.ndim == 1 else 0))
    folder = pathlib.Path(__file__).parent / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = torch.randint(3, 128, (1, 24))
    # Loaded anew: casting a model rounds its rotary frequencies too.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logits = model(tokens).logits[0]
    save_file({"logits": logits.contiguous(), "tokens": tokens[0]}, folder / "logits.safetensors")
    print(name, sum(p.numel() for p in model.parameters()), float(logits.abs().max()))
