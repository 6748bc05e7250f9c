"""Pack matrices with bitsandbytes on the CPU.

    python make_bnb.py VECTORS-F32.safetensors VECTORS-BF16.safetensors

Writes `bnb.safetensors` beside this file. Of the two scheme vectors (see make.py) it keeps, as `f32/...` and `bf16/...`, the input, all
packed parts, and the first two rows of decoded values. The other keys are `<scheme>/<dtype>/<rows>x<columns>.<plane>` for the synthetic
matrices of synthetic.py; `.decoded` is there the FNV-1a hash of the decoded bytes.
"""
import pathlib, sys
import torch
import bitsandbytes.functional as F
from safetensors.torch import load_file, save_file
from synthetic import fnv, synthetic

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


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
    x = lambda rows, columns: synthetic(rows, columns).to(torch_type)
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
