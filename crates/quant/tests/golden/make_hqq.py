"""Pack matrices with hqq on the CPU.

    python make_hqq.py VECTORS-F32.safetensors VECTORS-BF16.safetensors

Writes `hqq.safetensors` beside this file. Of the two scheme vectors (see make.py) it keeps, as `f32/...` and `bf16/...`, the input, all
packed parts, and the first two rows of decoded values. The other keys are `<scheme>/<factor>/<rows>x<columns>.<part>` for the matrices
of synthetic.py times a factor: `W_q`, `scale`, `zero`, `steps` that the optimizer took, and for each compute type (`f32`, `f16`, `bf16`)
the hash of the decoded values.
"""
import pathlib, sys
import torch
import hqq.core.optimize as optimize
from hqq.core.quantize import Quantizer
from safetensors.torch import load_file, save_file
from synthetic import fnv, synthetic

taken = 0
step = optimize.optimize_weights_proximal_legacy_step


def counted(*args):
    global taken
    taken += 1
    return step(*args)


optimize.optimize_weights_proximal_legacy_step = counted
out = {}
for name, path in zip(("f32", "bf16"), sys.argv[1:]):
    for key, value in load_file(path).items():
        if key == "input" or key.startswith("hqq"):
            out[f"{name}/{key}"] = value[:2].clone() if key.endswith("decoded") else value
cases = [(b, g, 1, (24, 384)) for b in (8, 4, 3, 2, 1) for g in (16, 32, 64, 128)]
cases += [(b, 64, 16, (8, 512)) for b in (8, 4, 3, 2, 1)]
for bits, group, factor, shape in cases:
    taken = 0
    x = synthetic(*shape) * factor
    q, m = Quantizer.quantize(x, nbits=bits, group_size=group, axis=1, device="cpu", compute_dtype=torch.float32)
    key = f"hqq{bits}-g{group}/{factor}/{shape[0]}x{shape[1]}"
    out |= {f"{key}.W_q": q, f"{key}.scale": m["scale"], f"{key}.zero": m["zero"], f"{key}.steps": torch.tensor([taken], dtype=torch.uint8)}
    for name, dtype in (("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)):
        meta = dict(m, scale=m["scale"].to(dtype), zero=m["zero"].to(dtype), compute_dtype=dtype)
        out[f"{key}.{name}"] = fnv(Quantizer.dequantize(q, meta))
save_file(out, str(pathlib.Path(__file__).parent / "hqq.safetensors"))
print({k: int(v) for k, v in out.items() if k.endswith("steps")})
