"""Tiny checkpoints of every architecture with seeded weights, as transformers saves them.

    python checkpoints.py OUT
"""
import json
import pathlib
import sys

import torch
import transformers as t
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
COMMON = dict(hidden_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=512,
              vocab_size=1024, max_position_embeddings=512, bos_token_id=0, eos_token_id=2, pad_token_id=0)
EXPERTS = dict(num_experts_per_tok=2, head_dim=64, tie_word_embeddings=False)
LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=128)
YARN = dict(rope_type="yarn", rope_theta=150000.0, factor=8.0, beta_fast=32.0, beta_slow=1.0, original_max_position_embeddings=64)
MODELS = {
    "llama": (t.LlamaConfig, t.LlamaForCausalLM, dict(tie_word_embeddings=False)),
    "llama3": (t.LlamaConfig, t.LlamaForCausalLM, dict(tie_word_embeddings=True, rope_parameters=LLAMA3)),
    "mistral": (t.MistralConfig, t.MistralForCausalLM, dict(tie_word_embeddings=False, sliding_window=None)),
    "qwen2": (t.Qwen2Config, t.Qwen2ForCausalLM, dict(tie_word_embeddings=False)),
    "qwen3": (t.Qwen3Config, t.Qwen3ForCausalLM, dict(head_dim=64, tie_word_embeddings=True)),
    "qwen3moe": (t.Qwen3MoeConfig, t.Qwen3MoeForCausalLM, EXPERTS | dict(num_experts=4, moe_intermediate_size=256, norm_topk_prob=True)),
    "mixtral": (t.MixtralConfig, t.MixtralForCausalLM, EXPERTS | dict(num_local_experts=4, sliding_window=None)),
    # Experts are square, as in the published models, so that only names tell which way they are stored.
    "gptoss": (t.GptOssConfig, t.GptOssForCausalLM, EXPERTS | dict(num_local_experts=4, intermediate_size=256, sliding_window=8,
               rope_parameters=YARN)),
    # llama.cpp expects tokens of the real vocabulary in a model whose name has "phi3".
    "fused": (t.Phi3Config, t.Phi3ForCausalLM, dict(tie_word_embeddings=False)),
    "gemma2": (t.Gemma2Config, t.Gemma2ForCausalLM, dict(head_dim=64, query_pre_attn_scalar=64, sliding_window=64)),
    "gemma3": (t.Gemma3TextConfig, t.Gemma3ForCausalLM,
               dict(head_dim=64, query_pre_attn_scalar=64, sliding_window=64, num_hidden_layers=7)),
}


def tokenizer():
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tok.train([__file__], trainer)
    return tok


def main(out):
    for name, (config, model, settings) in MODELS.items():
        torch.manual_seed(0)
        m = model(config(**COMMON | settings)).to(torch.bfloat16)
        for p in m.parameters():
            if p.dim() < 2:
                p.data += 0.1 * torch.randn(p.shape).to(p.dtype)
        m.save_pretrained(out / name)
        t.PreTrainedTokenizerFast(tokenizer_object=tokenizer(), eos_token="<|im_end|>",
                                  pad_token="<|endoftext|>").save_pretrained(out / name)
        path = out / name / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "Qwen2Tokenizer"}, indent=1))


if __name__ == "__main__":
    t.logging.set_verbosity_error()
    main(pathlib.Path(sys.argv[1]))
