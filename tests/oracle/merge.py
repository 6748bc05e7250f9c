"""Merges LoRA adapters into bases and compares with peft's merge_and_unload, mlx_lm's fuse and llama.cpp's adapters at run time.

    python merge.py WINDLASS CHECKPOINTS WORK
"""
import ctypes
import json
import pathlib
import shutil
import sys

import llama_cpp
import mlx.core as mx
import mlx.utils
import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file

import adapters as shared
from adapters import closest, distance, logits_by_llama_cpp, logits_by_peft, make_mlx, windlass

KINDS = {
    "plain": dict(r=4, lora_alpha=8),
    "rslora": dict(r=8, lora_alpha=6, use_rslora=True),
    "patterns": dict(r=4, lora_alpha=8) | shared.MIXED,
    "dora": dict(r=4, lora_alpha=8, use_dora=True),
    "embedding": dict(r=4, lora_alpha=8),
    "whole": dict(r=4, lora_alpha=8, modules_to_save=["lm_head", "norm"], bias="lora_only"),
}
FUSED = {"phi3", "fused"}


def load(base, dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation="eager")


def make(name, kind, base, path, seed=1):
    torch.manual_seed(seed)
    targets = list(shared.FUSED if name in FUSED else shared.ALL)
    if kind == "embedding":
        targets = ["embed_tokens", "q_proj", "lm_head"]
    model = peft.get_peft_model(load(base, torch.float32), peft.LoraConfig(target_modules=targets, task_type="CAUSAL_LM", **KINDS[kind]))
    for key, p in model.named_parameters():
        if "lora_" in key:
            p.data = p.data * (1 + 0.1 * torch.rand_like(p)) if "magnitude" in key else 0.05 * torch.randn_like(p)
        elif "modules_to_save" in key or p.requires_grad:
            p.data += 0.01 * torch.randn_like(p)
    model.save_pretrained(path, save_embedding_layers=False)


def merged_by_peft(base, paths, dtype=torch.float32):
    model = load(base, dtype)
    for path in paths:
        model = peft.PeftModel.from_pretrained(model, path).merge_and_unload()
    return {k: v.detach() for k, v in model.state_dict().items()}


def tensors(path):
    if path.is_file():
        return load_file(path)
    all = {}
    for part in sorted(path.glob("*.safetensors")):
        all |= load_file(part)
    return all


def same_values(ours, theirs, bound, what):
    """Largest difference over the largest value, of each tensor."""
    worst = 0.0
    for key, value in ours.items():
        expected = theirs[key].to(torch.float32)
        difference = ((value.to(torch.float32) - expected).abs().max() / expected.abs().max()).item()
        assert value.shape == expected.shape and difference <= bound, (what, key, difference)
        worst = max(worst, difference)
    missing = set(theirs) - set(ours) - {"lm_head.weight"}
    assert not missing, missing
    return worst


def check_float(name, kind, base, gguf, work):
    adapter, out = work / f"{name}-{kind}", work / f"{name}-{kind}-out"
    make(name, kind, base, adapter)
    out.mkdir()
    expected = merged_by_peft(base, [adapter])
    report = windlass("merge", base, out / "f32", "--adapter", adapter, "--scheme", "f32")
    assert report["merged"] and report["relative_error"] == 0 and report["relative_change"] > 1e-3, report
    errors = {"f32": same_values(tensors(out / "f32"), expected, 1e-6, "f32")}
    # In bf16 the sum is rounded once; peft rounds the change as well.
    windlass("merge", base, out / "bf16", "--adapter", adapter)
    ours, theirs = tensors(out / "bf16"), merged_by_peft(base, [adapter], torch.bfloat16)
    assert all(v.dtype == torch.bfloat16 for v in ours.values())
    for key, value in ours.items():
        exact = expected[key].to(torch.float32)
        mine, other = ((x[key].to(torch.float32) - exact).norm() for x in (ours, theirs))
        assert mine <= other * 1.0001 + 1e-9, ("bf16 is further away than peft", key, mine.item(), other.item())
        assert torch.equal(value, exact.to(torch.bfloat16)) or kind == "dora" or (value != exact.to(torch.bfloat16)).float().mean() < 1e-3, key
    # Into GGUF, whose rows have another order, and from GGUF back.
    windlass("merge", base, out / "f32.gguf", "--adapter", adapter, "--scheme", "f32")
    windlass("convert", out / "f32.gguf", out / "back", "--scheme", "f32")
    errors["gguf"] = same_values(tensors(out / "back"), expected, 1e-6, "gguf")
    windlass("merge", gguf, out / "from-gguf", "--adapter", adapter, "--scheme", "f32", "--to", "safetensors")
    errors["from gguf"] = same_values(tensors(out / "from-gguf"), expected, 1e-6, "from gguf")
    windlass("merge", base, out / "mlx", "--adapter", adapter, "--to", "mlx", "--scheme", "f32")
    windlass("convert", out / "mlx", out / "mlx-back", "--to", "safetensors")
    errors["mlx"] = same_values(tensors(out / "mlx-back"), expected, 1e-6, "mlx")
    if kind in ("plain", "rslora", "patterns"):
        windlass("convert", adapter, out / "a.gguf", "--config-from", base, "--scheme", "f32")
        windlass("merge", gguf, out / "gg.gguf", "--adapter", out / "a.gguf", "--scheme", "f32")
        at_run_time = logits_by_llama_cpp(gguf, out / "a.gguf")
        errors["llama.cpp"] = closest(logits_of_gguf(out / "gg.gguf"), at_run_time, "llama.cpp")
        errors["peft at run time"] = closest(logits_of_gguf(out / "gg.gguf"), logits_by_peft(base, adapter), "peft")
        # Straight into quantized schemes: what quantizing the merged model gives, to the bit.
        for scheme in ("q8_0", "q4_k", "nf4"):
            target = out / (f"{scheme}.gguf" if scheme[0] == "q" else scheme)
            other = target.with_name("two-" + target.name)
            windlass("merge", base, target, "--adapter", adapter, "--scheme", scheme)
            windlass("convert", out / "f32", other, "--scheme", scheme)
            if scheme == "nf4":
                # The base's type is the type that NF4 decodes to, which rounds.
                worst = min(t["sqnr_db"] or 200 for t in windlass("diff", other, target)["tensors"])
                assert worst > 45, worst
            else:
                assert not different(target, other), (scheme, different(target, other))
        # Into a quantized base: what decoding it, merging and encoding again gives.
        windlass("convert", base, out / "base-q4_k.gguf", "--scheme", "q4_k")
        report = windlass("merge", out / "base-q4_k.gguf", out / "merged-q4_k.gguf", "--adapter", adapter)
        schemes = {t["scheme"] for t in report["merged"]}
        assert "q4_k" in schemes and 0 < report["relative_error"] < 0.2, report
        errors["q4_k lost"] = report["relative_error"]
        windlass("convert", out / "base-q4_k.gguf", out / "base-f32.gguf", "--scheme", "f32")
        windlass("merge", out / "base-f32.gguf", out / "two.gguf", "--adapter", adapter, "--scheme", "f32")
        windlass("convert", out / "two.gguf", out / "floats-q4_k.gguf", "--scheme", "q4_k")
        touched = {t["name"] for t in report["merged"]}
        assert not different(out / "merged-q4_k.gguf", out / "floats-q4_k.gguf") & touched
        assert not different(out / "merged-q4_k.gguf", out / "base-q4_k.gguf") - touched
    return errors


def different(a, b):
    """Names of tensors with different values."""
    return {t["name"] for t in windlass("diff", a, b)["tensors"] if not t["identical"]}


def logits_of_gguf(path):
    model = llama_cpp.Llama(str(path), n_ctx=64, type_k=0, type_v=0, logits_all=True, verbose=False, n_threads=2)
    model.eval(shared.TOKENS)
    return np.array(model.scores[: len(shared.TOKENS)])


def check_two(name, base, gguf, work):
    """Two adapters one after the other, the second at half its strength, DoRA among them."""
    first, second, out = work / f"{name}-plain", work / f"{name}-two", work / f"{name}-two-out"
    make(name, "plain", base, second, seed=7)
    half = json.loads((second / "adapter_config.json").read_text())
    third = work / f"{name}-two-half"
    shutil.copytree(second, third)
    (third / "adapter_config.json").write_text(json.dumps(half | {"lora_alpha": half["lora_alpha"] / 2}))
    paths = [first, third] + [work / f"{name}-dora"]
    expected = merged_by_peft(base, paths)
    windlass("merge", base, out, "--adapter", first, "--adapter", f"{second}:0.5", "--adapter", paths[2], "--scheme", "f32")
    return {"f32": same_values(tensors(out), expected, 1e-6, "two")}


def check_mlx(name, kind, base, work):
    """An adapter of mlx_lm, into the model as it is and into one that mlx quantized, against mlx_lm's own fuse."""
    adapter, out = work / f"{name}-{kind}-mlx", work / f"{name}-{kind}-mlx-out"
    make_mlx(base, adapter, kind)
    out.mkdir()
    errors = {}
    for scheme in ("f32", "mlx4-g64"):
        quantized = out / f"base-{scheme}"
        windlass("convert", base, quantized, "--to", "mlx", "--scheme", scheme)
        model = shared.load_mlx(quantized)
        model = shared.mlx_lm.tuner.utils.load_adapters(model, str(adapter))
        fused = [(n, m.fuse()) for n, m in model.named_modules() if hasattr(m, "fuse")]
        model.update_modules(mlx.utils.tree_unflatten(fused))
        theirs = dict(mlx.utils.tree_flatten(model.parameters()))
        windlass("merge", quantized, out / scheme, "--adapter", adapter, "--to", "mlx")
        ours = mx.load(str(next((out / scheme).glob("*.safetensors"))))
        if scheme == "f32":
            worst = 0
            for key, value in ours.items():
                a, b = (np.array(x.astype(mx.float32)) for x in (value, theirs[key]))
                worst = max(worst, distance(a, b))
            assert worst < 2e-6, worst
            errors["f32"] = worst
            continue
        # mlx_lm rounds scale and sum to the model's type before it quantizes: a few codes differ by one.
        apart = total = 0
        for key in (k for k in ours if k.endswith(".weight") and ours[k].dtype == mx.uint32):
            a, b = (np.array(x[key]).view(np.uint8) for x in (ours, theirs))
            a, b = (np.stack([x & 15, x >> 4]).astype(int) for x in (a, b))
            apart, total = apart + (np.abs(a - b) > 0).sum(), total + a.size
        errors["codes apart"] = apart / total
        assert apart / total < 0.02, apart / total
    return errors


def check_refusals(name, base, work):
    other = "qwen2" if name != "qwen2" else "llama"
    adapter = work / f"{name}-refuse"
    make(name, "plain", base, adapter)
    config = base.parent / other
    if name not in FUSED:
        said = windlass("merge", base.parent / "fused", work / "no", "--adapter", adapter, code=3)
        assert "which a base of architecture phi3 does not have" in said and "lora_A" in said, said
    narrow = work / f"{name}-narrow"
    shutil.copytree(adapter, narrow)
    weights = load_file(narrow / "adapter_model.safetensors")
    key = next(k for k in weights if k.endswith("o_proj.lora_A.weight"))
    weights[key] = weights[key][:, :-4].contiguous()
    from safetensors.torch import save_file
    save_file(weights, narrow / "adapter_model.safetensors", metadata={"format": "pt"})
    said = windlass("merge", base, work / "no", "--adapter", narrow, code=3)
    assert "expected factors for [" in said and key in said, said
    assert not (work / "no").exists() and config.exists()
    return {}


def main(checkpoints, work):
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    mx.set_default_device(mx.cpu)
    failed = 0
    for base in sorted(p for p in checkpoints.iterdir() if p.name in MODELS):
        name, gguf = base.name, work / f"{base.name}.gguf"
        windlass("convert", base, gguf, "--scheme", "f32")
        tied = name not in shared.UNTIED
        checks = [(kind, check_float, (name, kind, base, gguf, work)) for kind in KINDS
                  if not (tied and kind in ("embedding", "whole"))]
        checks.append(("two", check_two, (name, base, gguf, work)))
        checks.append(("refusals", check_refusals, (name, base, work)))
        if shared.runs_in_mlx(base):
            checks += [(f"mlx {kind}", check_mlx, (name, kind, base, work)) for kind in ("lora", "dora")]
        for kind, check, arguments in checks:
            try:
                errors = check(*arguments)
                print(f"ok      {name:10} {kind:10}", *(f"{k} {v:.1e}" for k, v in errors.items()), flush=True)
            except Exception as e:
                failed += 1
                print(f"FAILED  {name:10} {kind}: {type(e).__name__}: {str(e)[:600]}", flush=True)
    sys.exit(f"{failed} failed" if failed else 0)


MODELS = {"llama", "qwen2", "qwen3", "fused", "gemma3"}

if __name__ == "__main__":
    shared.WINDLASS = sys.argv[1]
    transformers.logging.set_verbosity_error()
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    main(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
