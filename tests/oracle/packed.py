"""Checkpoints of libraries whose codes come from calibration, packed with numpy as their formats say.

    python packed.py FLOAT OUT

For each kind, OUT/KIND is the folder and OUT/KIND-plain the same model with the values that its codes stand for.
"""
import json
import pathlib
import shutil
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def groups(w, bits, group, symmetric=False):
    """Codes, F16 scales and zeros: rounding to nearest, which calibration would improve."""
    rows, columns = w.shape
    g = w.reshape(rows, -1, group or columns)
    low, high, top = np.minimum(g.min(-1), 0), np.maximum(g.max(-1), 0), 2**bits - 1
    scales = np.maximum((high - low) / top, 1e-6).astype(np.float16)
    zeros = np.full(scales.shape, 2 ** (bits - 1)) if symmetric else np.clip(np.round(-low / scales), 0, top)
    if symmetric:
        scales = np.maximum(np.abs(g).max(-1) / (top // 2), 1e-6).astype(np.float16)
    codes = np.clip(np.round(g / scales.astype(np.float32)[..., None]) + zeros[..., None], 0, top)
    return codes.reshape(rows, columns).astype(np.uint64), scales, zeros.astype(np.uint64)


def values(codes, scales, zeros, g_idx):
    """The exact products, which fit F32. The libraries round them to the type of the scales."""
    return ((codes.astype(np.int64) - zeros.astype(np.int64)[:, g_idx]) * scales.astype(np.float64)[:, g_idx]).astype(np.float32)


def words(codes, bits):
    """Bits of the last dimension, one after the other from the low end, as I32."""
    stream = ((codes[..., None] >> np.arange(bits, dtype=np.uint64)) & 1).reshape(*codes.shape[:-1], -1, 32)
    return (stream << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(np.int32)


def gptq(w, bits, group, act_order=False, v2=False, symmetric=False):
    rows, columns = w.shape
    width = group or columns
    order = np.random.default_rng(columns).permutation(columns) if act_order else np.arange(columns)
    codes, scales, zeros = groups(w[:, order], bits, group, symmetric)
    g_idx = np.empty(columns, np.int32)
    g_idx[order] = np.arange(columns) // width
    back = np.empty_like(codes)
    back[:, order] = codes
    stored = zeros if v2 else (zeros - 1) % 2**bits
    arrays = dict(qweight=words(back, bits).T.copy(), qzeros=words(stored.T.copy(), bits), scales=scales.T.copy(), g_idx=g_idx)
    return arrays, values(back, scales, zeros, g_idx)


def awq(w, group):
    codes, scales, zeros = groups(w, 4, group)
    def pack(a):
        return words(a.reshape(a.shape[0], -1, 8)[..., AWQ_ORDER].reshape(a.shape), 4)
    columns = w.shape[1]
    arrays = dict(qweight=pack(codes.T.copy()), qzeros=pack(zeros.T.copy()), scales=scales.T.copy())
    return arrays, values(codes, scales, zeros, np.arange(columns) // (group or columns))


def config_gptq(bits, group, act_order, v2, symmetric=False, **more):
    return dict(quant_method="gptq", bits=bits, group_size=group or -1, desc_act=act_order, sym=symmetric, lm_head=False,
                checkpoint_format="gptq_v2" if v2 else "gptq", **more)


KINDS = {
    "gptq4-g128": (lambda w: gptq(w, 4, 128), config_gptq(4, 128, False, False)),
    "gptq4-sym-g32": (lambda w: gptq(w, 4, 32, symmetric=True), config_gptq(4, 32, False, False, True)),
    "gptq4-act-v2": (lambda w: gptq(w, 4, 64, True, True), config_gptq(4, 64, True, True)),
    "gptq8-row": (lambda w: gptq(w, 8, None), config_gptq(8, None, False, False)),
    "gptq3-g128": (lambda w: gptq(w, 3, 128), config_gptq(3, 128, False, False)),
    "gptq2-g64": (lambda w: gptq(w, 2, 64), config_gptq(2, 64, False, False)),
    "awq4-g64": (lambda w: awq(w, 64), dict(quant_method="awq", bits=4, group_size=64, zero_point=True, version="gemm",
                                             modules_to_not_convert=None)),
}


def save(source, out, kind):
    """Writes OUT/KIND and OUT/KIND-plain."""
    pack, config = KINDS[kind]
    packed, plain = {}, {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            plain[name] = packed[name] = tensor.to(torch.float16)
            continue
        arrays, plain_values = pack(tensor.float().numpy())
        plain[name] = torch.from_numpy(np.ascontiguousarray(plain_values))
        for suffix, array in arrays.items():
            array = array if torch.is_tensor(array) else torch.from_numpy(np.ascontiguousarray(array))
            packed[name[: -len("weight")] + suffix] = array
    for folder, tensors, quantization in [(out / kind, packed, config), (out / f"{kind}-plain", plain, None)]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        path = folder / "config.json"
        settings = json.loads(path.read_text()) | {"dtype": "float16"}
        path.write_text(json.dumps(settings | ({"quantization_config": quantization} if quantization else {}), indent=2))


if __name__ == "__main__":
    for kind in KINDS:
        save(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), kind)
