"""Pack matrices with optimum-quanto on the CPU.

    python make_quanto.py VECTORS-F32.safetensors VECTORS-BF16.safetensors

Writes `quanto.safetensors` beside this file. Of the two scheme vectors (see make.py) it keeps, as `f32/...` and `bf16/...`, the input, all
packed parts, and the first two rows of decoded values. The other keys are `<scheme>/<type>/<rows>x<columns>.<part>` for the matrices of
synthetic.py, rounded to a type: `data`, `scale`, `shift`, and `decoded`, the hash of the decoded values. The row counts leave the last
rows of packed data partly empty.
"""
import pathlib, sys
import torch
from optimum.quanto import AbsmaxOptimizer, MaxOptimizer, qfloat8, qint2, qint4, qint8, quantize_weight
from safetensors.torch import load_file, save_file
from synthetic import fnv, synthetic

out = {}
for name, path in zip(("f32", "bf16"), sys.argv[1:]):
    for key, value in load_file(path).items():
        if key == "input" or key.startswith("quanto"):
            out[f"{name}/{key}"] = value[:2].clone() if key.endswith("decoded") else value
for name, dtype in (("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)):
    for q in (qint4, qint2):
        for group in (128, 96, 64, 32):
            rows, columns = 7, group * (1 if group == 128 else 3)
            x = synthetic(rows, columns).to(dtype)
            scale, shift = MaxOptimizer()(x, q, 0, group)
            w = quantize_weight(x, q, 0, scale, shift, group, optimized=False)
            key = f"{q.name}{'' if group == 128 else f'-g{group}'}/{name}/{rows}x{columns}"
            out |= {f"{key}.data": w._data._data, f"{key}.scale": w._scale, f"{key}.shift": w._shift, f"{key}.decoded": fnv(w.dequantize())}
    for q in (qint8, qfloat8):
        x = synthetic(5, 333).to(dtype)
        w = quantize_weight(x, q, 0, AbsmaxOptimizer()(x, q, 0), optimized=False)
        key = f"{'qint8' if q is qint8 else 'qfloat8'}/{name}/5x333"
        out |= {f"{key}.data": w._data, f"{key}.scale": w._scale, f"{key}.decoded": fnv(w.dequantize())}
save_file({k: v.contiguous() for k, v in out.items()}, str(pathlib.Path(__file__).parent / "quanto.safetensors"))
