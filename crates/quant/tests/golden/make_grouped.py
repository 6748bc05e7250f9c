"""Small GPTQ and AWQ tensors as checkpoints store them, and their values by the published formulas.

    python make_grouped.py

GPTQ (GPTQModel's TorchLinear.dequantize_weight): scales[g_idx] * (code - zeros[g_idx]), where a checkpoint of the first version stores
zeros less one, modulo 2^bits. AWQ (AutoAWQ's dequantize_gemm): (code - zero) * scale. Both compute in the type of the scales, which is
the type of `decoded` here. Bit strings are built from single bits, not by the arithmetic that a reader would use.
"""
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

ROWS, COLUMNS = 32, 256
rng = np.random.default_rng(7)
out = {}


def words(codes, bits):
    """Rows of codes [n, k] as little-endian bit strings in words: [n, k * bits / 32]."""
    stream = (codes[:, :, None] >> np.arange(bits)) & 1
    stream = stream.reshape(len(codes), -1, 32).astype(np.uint32)
    return (stream << np.arange(32, dtype=np.uint32)).sum(2, dtype=np.uint32).view(np.int32)


def parts(bits, groups, dtype):
    codes = rng.integers(0, 1 << bits, (ROWS, COLUMNS))
    zeros = rng.integers(0, 1 << bits, (ROWS, groups))
    scales = torch.from_numpy((rng.standard_normal((ROWS, groups)) * 0.01).astype(np.float32)).to(dtype)
    return codes, zeros, scales


def decoded(codes, zeros, scales, order):
    difference = torch.from_numpy(codes - zeros[:, order]).to(scales.dtype)
    return (scales[:, torch.from_numpy(order)] * difference).contiguous()


def put(name, **arrays):
    for key, value in arrays.items():
        out[f"{name}.{key}"] = (torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value).contiguous()


def gptq(bits, group, version, order, dtype=torch.float16):
    size = COLUMNS if group == "row" else int(group[1:])
    groups = COLUMNS // size
    codes, zeros, scales = parts(bits, groups, dtype)
    g_idx = np.arange(COLUMNS, dtype=np.int32) // size
    if order == "act":
        g_idx = rng.permutation(g_idx)
    stored = (zeros - (version == "v1")) % (1 << bits)
    name = f"gptq{bits}-{group}.{version}.{order}"
    put(name, qweight=words(codes, bits).T, qzeros=words(stored.T, bits), scales=scales.T, decoded=decoded(codes, zeros, scales, g_idx))
    if order != "none":
        put(name, g_idx=g_idx)


def awq(group):
    size = COLUMNS if group == "row" else int(group[1:])
    codes, zeros, scales = parts(4, COLUMNS // size, torch.float16)
    pack = lambda m: words(m.reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]], 4).reshape(m.shape[0], -1)
    order = np.arange(COLUMNS) // size
    put(f"awq4-{group}.gemm.none", qweight=pack(codes.T), qzeros=pack(zeros.T), scales=scales.T, decoded=decoded(codes, zeros, scales, order))


gptq(2, "g64", "v1", "plain")
gptq(2, "g32", "v2", "act")
gptq(3, "g32", "v1", "act")
gptq(3, "row", "v2", "none")
gptq(4, "g128", "v1", "act")
gptq(4, "g128", "v1", "none")
gptq(4, "g32", "v2", "plain", torch.bfloat16)
gptq(4, "row", "v1", "plain")
gptq(8, "g64", "v1", "none")
gptq(8, "g128", "v2", "act", torch.bfloat16)
awq("g128")
awq("g64")
awq("row")
save_file(out, pathlib.Path(__file__).parent / "grouped.safetensors")
