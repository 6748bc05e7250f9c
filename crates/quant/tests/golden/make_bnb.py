"""Pack matrices with bitsandbytes on the CPU.

    python make_bnb.py VECTORS-F32.safetensors VECTORS-BF16.safetensors

Writes `bnb.safetensors` beside this file. Of the two scheme vectors (see make.py) it keeps, as `f32/...` and `bf16/...`, the input, all
packed parts, and the first two rows of decoded values. The other keys are `<scheme>/<dtype>/<rows>x<columns>.<plane>` for the synthetic
matrices that `synthetic` below and the tests compute alike; `.decoded` is there the FNV-1a hash of the decoded bytes.
"""
import pathlib, sys
import numpy as np
import torch
import bitsandbytes.functional as F
from safetensors.torch import load_file, save_file

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def synthetic(rows, columns):
    """Numbers of 24 bits times a power of two that varies by column, from a hash of the position; some zeros and constants."""
    with np.errstate(over="ignore"):
        h = np.arange(rows * columns, dtype=np.uint64) + np.uint64(1)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h = h ^ (h >> np.uint64(31))
    v = ((h >> np.uint64(40)).astype(np.int64) - 2**23).astype(np.float32) * np.exp2(-23.0 - (h & np.uint64(3)).astype(np.float32)).astype(np.float32)
    i = np.arange(rows * columns)
    v = np.where(i // 128 % 7 == 2, np.float32(0), v)
    v = np.where(i // 128 % 11 == 4, np.float32(0.75), v)
    return v.reshape(rows, columns).astype(np.float32)


def fnv(tensor):
    value = 0xCBF29CE484222325
    for byte in tensor.contiguous().view(-1).view(torch.uint8).tolist():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return torch.tensor([value - 2**64 if value >= 2**63 else value])


def planes(x, kind, block, double):
    q, s = F.quantize_4bit(x, blocksize=block, quant_type=kind, compress_statistics=double)
    parts = {"packed": q, "absmax": s.absmax, "decoded": F.dequantize_4bit(q, s)}
    if double:
        parts |= {"nested_absmax": s.state2.absmax, "offset": s.offset.reshape(1)}
    return parts


out = {"dynamic_map": F.create_dynamic_map()}
for name, path in zip(("f32", "bf16"), sys.argv[1:]):
    for key, value in load_file(path).items():
        if key == "input" or key.startswith("bnb-") and "blockwise" not in key and not key.endswith("code"):
            out[f"{name}/{key}"] = value[:2].clone() if key.endswith("decoded") else value
for dtype, torch_type in TYPES.items():
    x = lambda rows, columns: torch.from_numpy(synthetic(rows, columns)).to(torch_type)
    cases = [(f"{k}-dq", (22, 832), k, 64, True) for k in ("nf4", "fp4")]
    if dtype != "f16":
        cases += [(f"{k}{'' if b == 64 else f'-b{b}'}", (1, 4096), k, b, False) for k in ("nf4", "fp4") for b in (32, 64, 128, 256, 512, 1024, 2048, 4096)]
    for scheme, shape, kind, block, double in cases:
        for part, value in planes(x(*shape), kind, block, double).items():
            key = f"{scheme}/{dtype}/{shape[0]}x{shape[1]}.{part}"
            out[key] = fnv(value) if part == "decoded" else value.reshape(-1)
    q, s, _ = F.int8_vectorwise_quant(x(5, 333).half())
    decoded = F.int8_vectorwise_dequant(q, s).to(torch_type)
    out |= {f"int8/{dtype}/5x333.packed": q.reshape(-1), f"int8/{dtype}/5x333.absmax": s, f"int8/{dtype}/5x333.decoded": fnv(decoded)}
save_file(out, str(pathlib.Path(__file__).parent / "bnb.safetensors"))
