"""Small bases, adapters made by PEFT for them, and what PEFT's merge_and_unload makes of the two.

    python make_merge.py      (needs torch, transformers, peft)
"""
import json
import pathlib
import shutil

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

OUT = pathlib.Path(__file__).parent / "merge"
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=64,
             vocab_size=48, max_position_embeddings=64, tie_word_embeddings=False, pad_token_id=0, bos_token_id=0, eos_token_id=1)
BASES = {
    "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)),
    "phi3": transformers.Phi3ForCausalLM(transformers.Phi3Config(**SIZES)),
}
ADAPTERS = {
    "llama-mixed": dict(r=3, lora_alpha=7, use_rslora=True, target_modules=["q_proj", "k_proj", "o_proj", "down_proj"],
                        rank_pattern={"q_proj": 5}, alpha_pattern={"layers.1.mlp.down_proj": 2}),
    "llama-dora": dict(r=2, lora_alpha=4, use_dora=True, target_modules=["q_proj", "v_proj", "up_proj"]),
    "llama-whole": dict(r=2, lora_alpha=4, target_modules=["embed_tokens", "k_proj"], modules_to_save=["lm_head", "input_layernorm"]),
    "phi3-fused": dict(r=3, lora_alpha=5, target_modules=["qkv_proj", "gate_up_proj"]),
}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for name, model in BASES.items():
        torch.manual_seed(3)
        for p in model.parameters():
            p.data = 0.2 * torch.randn(p.shape) + (1.0 if p.dim() < 2 else 0.0)
        model.save_pretrained(OUT / name)
        (OUT / name / "generation_config.json").unlink()
    for name, settings in ADAPTERS.items():
        torch.manual_seed(4)
        base = transformers.AutoModelForCausalLM.from_pretrained(OUT / name.split("-")[0], dtype=torch.float32)
        model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
        for p in model.parameters():
            if p.requires_grad:
                p.data += 0.1 * torch.randn(p.shape)
        model.save_pretrained(OUT / name, save_embedding_layers=False)
        (OUT / name / "README.md").unlink()
        config = json.loads((OUT / name / "adapter_config.json").read_text())
        for key in ("target_modules", "modules_to_save"):
            config[key] = sorted(config[key] or []) or None
        config["base_model_name_or_path"] = "tiny/base"
        (OUT / name / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        merged = model.merge_and_unload().state_dict()
        before = load_file(OUT / name.split("-")[0] / "model.safetensors")
        changed = {k: v.contiguous() for k, v in merged.items() if not torch.equal(v, before[k])}
        save_file(changed, OUT / f"{name}-merged.safetensors")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    main()
