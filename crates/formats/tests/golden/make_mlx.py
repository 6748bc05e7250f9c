"""Makes golden/mlx and golden/npz: folders written by mlx_lm, archives written by MLX and NumPy.

    python make_mlx.py       (needs numpy, mlx, mlx_lm)

`<folder>.values.json` holds a checksum (FNV-1a) of what MLX makes of each packed weight, as F32.
"""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.utils import quantize_model, save_config, save_model

OUT = Path(__file__).parent / "mlx"
NPZ = Path(__file__).parent / "npz"
CONFIG = dict(
    model_type="llama", num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, rms_norm_eps=1e-6, vocab_size=32, tie_word_embeddings=False,
)


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def write_values(name, model):
    values = {}
    for path, module in model.named_modules():
        if hasattr(module, "scales"):
            value = mx.dequantize(
                module.weight, module.scales, module.get("biases"), module.group_size, module.bits, module.mode
            )
            data = np.array(value.astype(mx.float32)).tobytes()
            values[f"{path}.weight"] = {"shape": list(value.shape), "fnv": f"{fnv(data):016x}"}
    (OUT / f"{name}.values.json").write_text(json.dumps(values, indent=1) + "\n")


def folder(name, dtype, predicate=None, hidden=64, **how):
    mx.random.seed(3)
    config = dict(CONFIG, hidden_size=hidden, intermediate_size=2 * hidden)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    model.set_dtype(dtype)
    if how:
        model, config = quantize_model(model, config, quant_predicate=predicate, **how)
    save_model(OUT / name, model)
    save_config(config, OUT / name / "config.json")
    if how:
        write_values(name, model)


def mixed(path, module):
    if "down_proj" in path:
        return {"group_size": 64, "bits": 8, "mode": "affine"}
    if "k_proj" in path:
        return {"group_size": 16, "bits": 4, "mode": "nvfp4"}
    if "v_proj" in path:
        return {"group_size": 32, "bits": 3}
    return "lm_head" not in path


def experts():
    """Weights of three dimensions, one matrix for each expert."""
    mx.random.seed(4)
    model = nn.Module()
    model.switch = SwitchLinear(64, 8, 3, bias=False)
    nn.quantize(model, group_size=32, bits=6)
    save_model(OUT / "experts", model)
    config = {"model_type": "experts", "quantization": {"group_size": 32, "bits": 6}}
    (OUT / "experts" / "config.json").write_text(json.dumps(config))
    write_values("experts", model)


def archives():
    """The older kind of folder, and plain archives."""
    mx.random.seed(5)
    linear = nn.QuantizedLinear(64, 4, bias=False, group_size=64, bits=4)
    (OUT / "old").mkdir()
    arrays = {f"layers.0.{name}": value for name, value in tree_flatten(linear.parameters())}
    arrays["norm.weight"] = mx.ones((4,), dtype=mx.bfloat16)
    mx.savez(str(OUT / "old" / "weights.npz"), **arrays)
    (OUT / "old" / "config.json").write_text(json.dumps({"quantization": {"group_size": 64, "bits": 4}}))
    model = nn.Module()
    model.layers = [linear]
    write_values("old", model)

    names = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8"]
    arrays = {n: np.arange(6).reshape(2, 3).astype(n) for n in names}
    arrays["scalar"] = np.float32(1.5)
    arrays["empty"] = np.zeros((0, 3), dtype="f4")
    arrays["column"] = np.asfortranarray(np.ones((3, 1), dtype="f4"))
    np.savez(NPZ / "types.npz", **arrays)
    np.save(NPZ / "one.npy", np.arange(4, dtype="f4"))


def main():
    for out in (OUT, NPZ):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
    folder("plain", mx.float16, hidden=16)
    folder("affine", mx.bfloat16, group_size=64, bits=4)
    folder("mixed", mx.float16, mixed, group_size=32, bits=4, mode="mxfp4")
    experts()
    archives()


main()
