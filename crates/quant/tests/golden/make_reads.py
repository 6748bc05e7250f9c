"""Small tensors of compressed-tensors, transformers' FP8 and gpt-oss's MXFP4 as checkpoints store them, and their values.

    python make_reads.py

compressed-tensors compresses and decompresses with its own compressors, in the type of the scales; transformers' Fp8Quantize and
Fp8Dequantize compute in float32, as does its convert_moe_packed_tensors when asked to; ModelOpt's NVFP4 is its formula:
e2m1 * (float32(scale) * scale_2). Keys: SCHEME.NAMING.[OPTIONS].ARRAY; `decoded` is in the type that the library returned.
"""
import math, pathlib, types

import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from safetensors.torch import save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

ROWS, COLUMNS = 16, 256
torch.manual_seed(5)
out = {}


def put(name, arrays):
    for key, value in arrays.items():
        out[f"{name}.{key}"] = value.contiguous().clone()


def scheme(weights):
    return QuantizationScheme(targets=["Linear"], weights=weights)


def compressed(name, kind, args, state, rounded):
    """A state is compressed and decompressed; its arrays and values are kept. `rounded` are types of scales."""
    compressor = BaseCompressor.get_value_from_registry(kind)
    stored = compressor.compress(dict(state), scheme(args))
    back = compressor.decompress(dict(stored), scheme(args))
    arrays = {k: v for k, v in stored.items() if k.startswith("weight")}
    assert back["weight"].dtype == rounded, (name, back["weight"].dtype)
    put(name, arrays | {"decoded": back["weight"]})
    return arrays


def integers(name, kind, bits, strategy, dtype, group=None, symmetric=True):
    weight = (torch.randn(ROWS, COLUMNS) * 0.02).to(dtype)
    groups = {"group": COLUMNS // (group or COLUMNS), "channel": 1, "tensor": 1}[strategy]
    shape = (1,) if strategy == "tensor" else (ROWS, groups)
    scale = (torch.rand(shape) * 0.004 + 0.002).to(dtype) * (16 / 2**bits)
    args = QuantizationArgs(num_bits=bits, type="int", strategy=strategy, group_size=group, symmetric=symmetric)
    state = {"weight": weight, "weight_scale": scale}
    if not symmetric:
        half = 1 << (bits - 1)
        state["weight_zero_point"] = torch.randint(-half, half, shape, dtype=torch.int8)
    return compressed(name, kind, args, state, dtype)


# The fields of a name: p(acked), a(symmetric), o(ne scale), g_idx.
integers("ct4-g128.ct.p", "pack-quantized", 4, "group", torch.bfloat16, 128)
integers("ct4-g32.ct.pa", "pack-quantized", 4, "group", torch.float16, 32, symmetric=False)
integers("ct4-row.ct.pa", "pack-quantized", 4, "channel", torch.bfloat16, symmetric=False)
integers("ct8-g64.ct.pa", "pack-quantized", 8, "group", torch.float16, 64, symmetric=False)
integers("ct8-row.ct.p", "pack-quantized", 8, "channel", torch.float32)
integers("ct8-row.ct.-", "int-quantized", 8, "channel", torch.bfloat16)
integers("ct8-row.ct.a", "int-quantized", 8, "channel", torch.float16, symmetric=False)
integers("ct8-row.ct.o", "int-quantized", 8, "tensor", torch.bfloat16)
integers("ct8-g32.ct.a", "naive-quantized", 4, "group", torch.float16, 32, symmetric=False)

# Activation order: columns keep their places, g_idx names their groups.
ordered = integers("ct4-g64.ct.pg", "pack-quantized", 4, "group", torch.float16, 64)
g_idx = (torch.arange(COLUMNS) // 64)[torch.randperm(COLUMNS)].to(torch.int32)
plain = out["ct4-g64.ct.pg.decoded"].reshape(ROWS, 4, 64) / ordered["weight_scale"].unsqueeze(-1)
codes = plain.to(torch.float32).round().reshape(ROWS, COLUMNS)
put("ct4-g64.ct.pg", {"weight_g_idx": g_idx, "decoded": codes.to(torch.float16) * ordered["weight_scale"][:, g_idx.long()]})


def floats(name, strategy, weight, shape, dtype, block=None):
    args = QuantizationArgs(num_bits=8, type="float", strategy=strategy, block_structure=block, symmetric=True)
    state = {"weight": (torch.randn(weight) * 0.02).to(dtype), "weight_scale": (torch.rand(shape) * 1e-4 + 1e-4).to(dtype)}
    compressed(name, "float-quantized", args, state, dtype)


floats("fp8-row.scale.bf16", "channel", (ROWS, COLUMNS), (ROWS, 1), torch.bfloat16)
floats("fp8.scale.f32", "tensor", (ROWS, COLUMNS), (1,), torch.float32)
floats("fp8.scale.f16", "tensor", (ROWS, COLUMNS), (1,), torch.float16)
floats("fp8-b128.scale.bf16", "block", (130, 136), (2, 2), torch.bfloat16, [128, 128])


def transformers_fp8(name, weight, block, fmt=None):
    """Blocks at the edges are filled up with zeros, which change neither scale nor codes, and cut off again."""
    config = types.SimpleNamespace(weight_block_size=block, scale_fmt=fmt)
    quantizer = types.SimpleNamespace(quantization_config=config)
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % block[1], 0, -rows % block[0]))
    stored = Fp8Quantize(quantizer)._quantize_one("x.weight", padded)
    arrays = {k.split(".")[1]: v for k, v in stored.items()}
    decoded = Fp8Dequantize(quantizer)._dequantize_one(arrays["weight"], arrays["weight_scale_inv"], torch.bfloat16)
    put(name, arrays | {"weight": arrays["weight"][:rows, :columns], "input": weight, "decoded": decoded[:rows, :columns]})


edges = torch.randn(130, 136) * torch.rand(130, 1) * 0.1
edges[:128, 128:] = 0
edges[128, 3:7] = torch.tensor([448.0, 1e-3, -3e-5, 17.0])
transformers_fp8("fp8-b128.inverse.f32", edges.to(torch.bfloat16), (128, 128))
transformers_fp8("fp8-b128.inverse.e8m0", edges[:128, :128].to(torch.bfloat16), (128, 128), "ue8m0")
special = torch.randn(8, 136)
special[0, 5], special[1, 7], special[2], special[3], special[4, 9] = math.nan, math.inf, 0, 1e-42, 1e38
transformers_fp8("fp8-row.inverse.f32", special, (1, 136))

# NVFP4 of compressed-tensors: the value is e2m1 * (scale / global), in bfloat16.
weight = torch.randn(ROWS, COLUMNS) * 0.02
top = weight.abs().max().to(torch.float32)
world = (448.0 * 6.0 / top).reshape(1)
scales = (world * weight.reshape(ROWS, -1, 16).abs().amax(-1) / 6.0).to(torch.float8_e4m3fn)
args = QuantizationArgs(num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True, scale_dtype=torch.float8_e4m3fn)
state = {"weight": weight, "weight_scale": scales.to(torch.float32), "weight_global_scale": world}
compressed("nvfp4-ct.ct.-", "nvfp4-pack-quantized", args, state, torch.bfloat16)

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
packed = torch.randint(0, 256, (ROWS, COLUMNS // 2), dtype=torch.uint8)
scale_2 = (top / 2688.0).reshape(1)
codes = torch.stack([packed & 15, packed >> 4], -1).reshape(ROWS, -1, 16)
values = E2M1[codes.long()] * (scales.to(torch.float32) * scale_2).unsqueeze(-1)
put("nvfp4-modelopt.modelopt.-", {"weight": packed, "weight_scale": scales, "weight_scale_2": scale_2, "decoded": values.reshape(ROWS, COLUMNS)})

# gpt-oss: stacks of experts; transformers hands the values back transposed.
blocks = torch.randint(0, 256, (3, 8, COLUMNS // 32, 16), dtype=torch.uint8)
exponents = torch.randint(100, 140, (3, 8, COLUMNS // 32), dtype=torch.uint8)
values = convert_moe_packed_tensors(blocks, exponents, dtype=torch.float32)
put("mlx-mxfp4.gptoss.-", {"blocks": blocks, "scales": exponents, "decoded": values.transpose(1, 2)})


def microscaled(name, kind, bits):
    args = QuantizationArgs(num_bits=bits, type="float", strategy="group", group_size=32, symmetric=True, scale_dtype=torch.uint8)
    weight = (torch.randn(ROWS, COLUMNS) * 0.02).to(torch.bfloat16)
    scale = 2.0 ** torch.randint(-12, -4, (ROWS, COLUMNS // 32))
    compressed(name, kind, args, {"weight": weight, "weight_scale": scale.to(torch.bfloat16)}, torch.bfloat16)


microscaled("mlx-mxfp4.ct.-", "mxfp4-pack-quantized", 4)
microscaled("mlx-mxfp8.ct.-", "mxfp8-quantized", 8)
save_file(out, pathlib.Path(__file__).parent / "reads.safetensors")
