"""Checkpoints of libraries whose codes come from calibration, packed with numpy as their formats say.

    python packed.py FLOAT OUT

For each kind, OUT/KIND is the folder and OUT/KIND-plain the same model with the values that its codes stand for.
"""
import json
import pathlib
import shutil
import sys
import types

import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file, save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize

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


E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def compressed(w, kind, bits=8, numbers="int", strategy="channel", group=None, symmetric=True):
    """As compressed-tensors' own compressors store and unpack a matrix."""
    w = torch.from_numpy(w).to(torch.bfloat16)
    args = QuantizationArgs(num_bits=bits, type=numbers, strategy=strategy, group_size=group, symmetric=symmetric)
    parts = w.float().reshape(w.shape[0], -1, group or w.shape[1])
    state = {"weight": w}
    if kind.startswith("nvfp4"):
        state["weight_global_scale"] = world = (2688 / w.abs().max().float()).reshape(1)
        state["weight_scale"] = (world * parts.abs().amax(-1) / 6).to(torch.float8_e4m3fn).float()
    elif numbers == "float":
        state["weight_scale"] = (parts.abs().amax(-1) / 448).to(torch.bfloat16)
    elif symmetric:
        state["weight_scale"] = (parts.abs().amax(-1) / (2 ** (bits - 1) - 1)).to(torch.bfloat16)
    else:
        low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
        state["weight_scale"] = ((high - low) / (2**bits - 1)).to(torch.bfloat16)
        zeros = (-low / state["weight_scale"].float()).round() - 2 ** (bits - 1)
        state["weight_zero_point"] = zeros.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).to(torch.int8)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.get_value_from_registry(kind)
    stored = compressor.compress(state, scheme)
    back = compressor.decompress(dict(stored), scheme)["weight"].float()
    return {k: v for k, v in stored.items() if k.startswith("weight")}, back.numpy()


def config_compressed(kind, **weights):
    group = {"targets": ["Linear"], "weights": {"dynamic": False, "symmetric": True} | weights}
    return dict(quant_method="compressed-tensors", format=kind, quantization_status="compressed", config_groups={"group_0": group},
                ignore=["lm_head"], kv_cache_scheme=None)


def fp8(w):
    """As transformers quantizes blocks, filled up with zeros at the edges, and dequantizes them."""
    w = torch.from_numpy(w).to(torch.bfloat16)
    quantizer = types.SimpleNamespace(quantization_config=types.SimpleNamespace(weight_block_size=(128, 128), scale_fmt=None))
    rows, columns = w.shape
    padded = torch.nn.functional.pad(w, (0, -columns % 128, 0, -rows % 128))
    arrays = {k.split(".")[1]: v for k, v in Fp8Quantize(quantizer)._quantize_one("x.weight", padded).items()}
    back = Fp8Dequantize(quantizer)._dequantize_one(arrays["weight"], arrays["weight_scale_inv"], torch.float32)
    return arrays | {"weight": arrays["weight"][:rows, :columns].contiguous()}, back[:rows, :columns].float().numpy()


def modelopt(w):
    """NVFP4: the value is e2m1 * (scale * scale_2), the product of the scales being an F32."""
    w = torch.from_numpy(w)
    scale_2 = (w.abs().max() / 2688).reshape(())
    parts = w.reshape(w.shape[0], -1, 16)
    scale = (parts.abs().amax(-1) / 6 / scale_2).to(torch.float8_e4m3fn)
    both = (scale.float() * scale_2).unsqueeze(-1)
    codes = ((parts / both).nan_to_num().unsqueeze(-1) - E2M1).abs().argmin(-1).to(torch.uint8)
    arrays = dict(weight=codes.flatten(1)[:, ::2] | codes.flatten(1)[:, 1::2] << 4, weight_scale=scale, weight_scale_2=scale_2,
                  input_scale=torch.tensor(0.01))
    return arrays, (E2M1[codes.long()] * both).flatten(1).numpy()


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
    "awq4-g32": (lambda w: awq(w, 32), dict(quant_method="awq", bits=4, group_size=32, zero_point=True, version="gemm")),
    "ct4-g32": (lambda w: compressed(w, "pack-quantized", 4, "int", "group", 32, False),
                config_compressed("pack-quantized", num_bits=4, type="int", strategy="group", group_size=32, symmetric=False)),
    "ct8-row": (lambda w: compressed(w, "int-quantized"), config_compressed("int-quantized", num_bits=8, type="int", strategy="channel")),
    "ct-fp8": (lambda w: compressed(w, "float-quantized", 8, "float"),
               config_compressed("float-quantized", num_bits=8, type="float", strategy="channel")),
    "ct-nvfp4": (lambda w: compressed(w, "nvfp4-pack-quantized", 4, "float", "tensor_group", 16),
                 config_compressed("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16)),
    "fp8": (fp8, dict(quant_method="fp8", activation_scheme="dynamic", weight_block_size=[128, 128], modules_to_not_convert=["lm_head"])),
    "modelopt-nvfp4": (modelopt, dict(quant_method="modelopt", quant_algo="NVFP4", producer={"name": "modelopt"}, ignore=["lm_head"])),
}
# Libraries that are here, and how transformers is told to give back floats.
LOADED = ["ct4-g32", "ct8-row", "ct-fp8", "fp8"]


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
