"""Makes golden/safetensors: files written by the safetensors library and by transformers' save_pretrained.

    python make_safetensors.py       (needs torch, safetensors, transformers)
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save, save_file
from transformers import LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).parent / "safetensors"
TYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "complex64": "C64",
}


def raw(tensor):
    return bytes(tensor.reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


def fnv(data):
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def describe(tensors):
    return {
        name: {
            "dtype": TYPES[str(t.dtype).removeprefix("torch.")],
            "shape": list(t.shape),
            "fnv": f"{fnv(raw(t)):016x}",
        }
        for name, t in sorted(tensors.items())
    }


def write(name, tensors):
    (OUT / f"{name}.json").write_text(json.dumps(describe(tensors), indent=1) + "\n")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name in TYPES:
        dtype = getattr(torch, name)
        size = torch.empty((), dtype=dtype).element_size()
        data = torch.randint(0, 2 if name == "bool" else 256, (2, 3 * size), dtype=torch.uint8, generator=generator)
        tensors[f"a.{name}"] = data.view(dtype)
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros((0, 4), dtype=torch.float16)
    tensors["vector \u00e9\U0001f600\"\\"] = torch.arange(5, dtype=torch.int16)
    save_file(tensors, OUT / "types.safetensors", metadata={"format": "pt"})
    write("types", tensors)
    (OUT / "nothing.safetensors").write_bytes(save({}))

    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, dtype="bfloat16",
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.model.norm.to(torch.float32)
    model.save_pretrained(OUT / "llama")
    model.save_pretrained(OUT / "llama-parts", max_shard_size="3KB")
    write("llama", model.state_dict())


main()
