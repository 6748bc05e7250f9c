"""Small adapters as PEFT and mlx_lm write them, and the GGUF that llama.cpp's conversion of the first one gives.

    python make_adapters.py      (needs torch, transformers, peft, mlx_lm, gguf)
"""
import json
import pathlib
import tempfile

import gguf
import mlx.core as mx
import mlx.utils
import mlx_lm
import mlx_lm.tuner.utils
import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file

OUT = pathlib.Path(__file__).parent / "adapters"
CONFIG = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24,
              vocab_size=32, max_position_embeddings=64, tie_word_embeddings=False)


def seeded(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make_peft(model, path, safe=True, **settings):
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    for i, (key, p) in enumerate(sorted(model.named_parameters())):
        if "lora_" in key:
            p.data = torch.from_numpy(seeded(tuple(p.shape), i))
    model.save_pretrained(path, safe_serialization=safe, save_embedding_layers=False)
    (path / "README.md").unlink()
    config = json.loads((path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "tiny/base"
    config["target_modules"].sort()
    (path / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


def rotary(rows, heads):
    """llama.cpp's order of the rows of queries and keys: the two halves of every head take turns."""
    return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def make_gguf(source, path):
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "mlp.down_proj": "ffn_down"}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 3.0)
    for key, tensor in load_file(source / "adapter_model.safetensors").items():
        tensor, embedding = tensor.numpy(), "embed" in key
        key = key.removeprefix("base_model.model.").removeprefix("model.").replace("lora_embedding_", "lora_").removesuffix(".weight")
        module, factor = key.rsplit(".", 1)
        factor = factor.lower()
        if embedding:
            name, tensor = "token_embd", tensor.T if factor == "lora_a" else tensor
        elif module == "lm_head":
            name = "output"
        else:
            _, layer, module = module.split(".", 2)
            name = f"blk.{layer}.{names[module]}"
            if factor == "lora_b" and module.startswith("self_attn"):
                tensor = rotary(tensor, 2 if "q_proj" in module else 1)
        writer.add_tensor(f"{name}.weight.{factor}", np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_mlx(base, path, kind):
    model = mlx_lm.utils.load_model(base)[0]
    parameters = dict(rank=2, scale=2.5, dropout=0.0, keys=["self_attn.q_proj", "mlp.down_proj"])
    mlx_lm.tuner.utils.linear_to_lora_layers(model, 2, parameters, use_dora=kind == "dora")
    leaves = sorted(mlx.utils.tree_flatten(model.parameters()))
    leaves = [(k, v) for k, v in leaves if k.rsplit(".", 1)[-1] in ("lora_a", "lora_b", "m")]
    path.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(path / "adapters.safetensors"), {k: mx.array(seeded(v.shape, i)) for i, (k, v) in enumerate(leaves)})
    config = dict(fine_tune_type=kind, model="tiny/base", num_layers=2, lora_parameters=parameters)
    (path / "adapter_config.json").write_text(json.dumps(config, indent=4, sort_keys=True))


def main():
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        model = lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG))
        model().save_pretrained(base)
        (OUT / "base").mkdir(parents=True, exist_ok=True)
        (OUT / "base" / "config.json").write_bytes((base / "config.json").read_bytes())
        targets = ["q_proj", "k_proj", "down_proj", "embed_tokens", "lm_head"]
        make_peft(model(), OUT / "peft", r=2, lora_alpha=3, target_modules=targets, rank_pattern={"k_proj": 4})
        make_peft(model(), OUT / "peft-bin", safe=False, r=2, lora_alpha=3, target_modules=targets, rank_pattern={"k_proj": 4})
        make_gguf(OUT / "peft", OUT / "peft.gguf")
        make_peft(model(), OUT / "rslora", r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"], use_rslora=True,
                  rank_pattern={"q_proj": 4}, alpha_pattern={"layers.1.mlp.down_proj": 0.7})
        make_peft(model(), OUT / "dora", r=2, lora_alpha=3, target_modules=["q_proj"], use_dora=True)
        make_mlx(base, OUT / "mlx", "lora")
        make_mlx(base, OUT / "mlx-dora", "dora")


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    main()
