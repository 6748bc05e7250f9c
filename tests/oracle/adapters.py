"""Converts LoRA adapters between PEFT, GGUF and MLX, and compares what the owners of the formats compute with them.

    python adapters.py WINDLASS CHECKPOINTS WORK
"""
import ctypes
import json
import pathlib
import shutil
import subprocess
import sys

import llama_cpp
import mlx.core as mx
import mlx.utils
import mlx_lm
import mlx_lm.tuner.utils
import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

TOKENS = [1, 5, 17, 900, 42, 300, 7, 11, 250, 600, 3, 77]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
MIXED = dict(rank_pattern={"q_proj": 8, "layers.1.mlp.up_proj": 2}, alpha_pattern={"k_proj": 3, "down_proj": 5.5})
KINDS = {
    "plain": dict(r=4, lora_alpha=8),
    "rslora": dict(r=8, lora_alpha=6, use_rslora=True),
    "patterns": dict(r=4, lora_alpha=8) | MIXED,
    "mixed": dict(r=4, lora_alpha=8, use_rslora=True) | MIXED,
    "bf16": dict(r=4, lora_alpha=7),
    "dora": dict(r=4, lora_alpha=8, use_dora=True),
    "embedding": dict(r=4, lora_alpha=8),
}
UNTIED = {"llama", "mistral", "qwen2", "fused", "phi3"}


def windlass(*arguments, code=0):
    done = subprocess.run([WINDLASS, *map(str, arguments), "--json"], capture_output=True, text=True)
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout) if code == 0 else done.stderr + done.stdout


def make_peft(name, kind, base, path):
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    targets = list(FUSED if name in ("phi3", "fused") else ALL)
    if kind == "embedding":
        targets = ["embed_tokens", "q_proj"] + (["lm_head"] if name in UNTIED else [])
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, task_type="CAUSAL_LM", **KINDS[kind]))
    for key, p in model.named_parameters():
        if "lora_" in key:
            p.data = p.data * (1 + 0.1 * torch.rand_like(p)) if "magnitude" in key else 0.05 * torch.randn_like(p)
    model.save_pretrained(path, save_embedding_layers=False)
    if kind == "bf16":
        weights = {k: v.to(torch.bfloat16) for k, v in load_file(path / "adapter_model.safetensors").items()}
        save_file(weights, path / "adapter_model.safetensors", metadata={"format": "pt"})


def logits_by_peft(base, path):
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    model = peft.PeftModel.from_pretrained(model, path)
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0].numpy()


def logits_by_llama_cpp(base, path):
    model = llama_cpp.Llama(str(base), lora_path=str(path), n_ctx=64, type_k=0, type_v=0, logits_all=True, verbose=False, n_threads=2)
    model.eval(TOKENS)
    return np.array(model.scores[: len(TOKENS)])


def load_mlx(base):
    # mlx_lm looks for the base of the rotary frequencies where transformers kept it before its version 5.
    config = json.loads((base / "config.json").read_text())
    older = {k: v for k, v in config.get("rope_parameters", {}).items() if k == "rope_theta"}
    # So it does the number of experts.
    older |= {"num_experts": config["num_local_experts"]} if "num_local_experts" in config else {}
    return mlx_lm.load(str(base), model_config=older)[0]


def logits_by_mlx(base, path):
    model = load_mlx(base)
    model.set_dtype(mx.float32)
    model = mlx_lm.tuner.utils.load_adapters(model, str(path))
    model.eval()
    return np.array(model(mx.array([TOKENS]))[0].astype(mx.float32))


def runs_in_mlx(base):
    try:
        load_mlx(base)(mx.array([TOKENS]))
        return True
    except (IndexError, TypeError) as e:
        print(f"skipped {base.name:10} mlx: mlx_lm cannot run the base itself ({e})", flush=True)
        return False


def make_mlx(base, path, kind, keys=None):
    model = load_mlx(base)
    mx.random.seed(3)
    keys = keys or ["self_attn.qkv_proj" if "fused" in base.name else "self_attn.q_proj", "mlp.down_proj"]
    parameters = dict(rank=8, scale=2.5, dropout=0.0, keys=keys)
    mlx_lm.tuner.utils.linear_to_lora_layers(model, 2, parameters, use_dora=kind == "dora")
    leaves = dict(mlx.utils.tree_flatten(model.parameters()))
    leaves = {k: v for k, v in leaves.items() if k.rsplit(".", 1)[-1] in ("lora_a", "lora_b", "m")}
    random = {k: v * 1.1 if k.endswith(".m") else 0.05 * mx.random.normal(v.shape) for k, v in leaves.items()}
    path.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(path / "adapters.safetensors"), random)
    config = dict(fine_tune_type=kind, model=str(base), num_layers=2, lora_parameters=parameters)
    (path / "adapter_config.json").write_text(json.dumps(config, indent=4, sort_keys=True))


def distance(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def check_equal(a, b, file):
    assert (a / file).read_bytes() == (b / file).read_bytes(), (b, file)


def closest(x, y, what):
    error = distance(x, y)
    assert error < 1e-3, (what, error)
    return error


def check_peft(name, kind, base, gguf_base, work):
    path, out = work / f"{name}-{kind}", work / f"{name}-{kind}-out"
    make_peft(name, kind, base, path)
    out.mkdir()
    expected = logits_by_peft(base, path)
    plain = distance(logits_of_base(base), expected)
    assert plain > 1e-2, ("the adapter does nothing", plain)
    errors = {}
    if kind == "dora":
        assert "DoRA" in windlass("convert", path, out / "a.gguf", "--config-from", base, code=3)
    else:
        windlass("convert", path, out / "a.gguf", "--config-from", base)
        # llama.cpp rounds what it multiplies with bf16 to bf16 too.
        windlass("convert", path, out / "f32.gguf", "--config-from", base, "--scheme", "f32")
        errors["llama.cpp"] = closest(logits_by_llama_cpp(gguf_base, out / "f32.gguf"), expected, "llama.cpp")
        windlass("convert", out / "a.gguf", out / "back")
        check_back(path, out / "back", exact=kind not in ("mixed", "patterns"))
        windlass("convert", out / "a.gguf", out / "gguf-mlx", "--to", "mlx")
        if base not in NOT_IN_MLX:
            errors["gguf to mlx"] = closest(logits_by_mlx(base, out / "gguf-mlx"), expected, "gguf to mlx")
    windlass("convert", path, out / "mlx", "--to", "mlx")
    if base not in NOT_IN_MLX:
        errors["mlx"] = closest(logits_by_mlx(base, out / "mlx"), expected, "mlx")
    windlass("convert", out / "mlx", out / "mlx-back")
    check_back(path, out / "mlx-back", exact=kind not in ("mixed", "patterns"))
    errors["back"] = closest(logits_by_peft(base, out / "mlx-back"), expected, "back")
    return errors


def check_back(before, after, exact):
    check_equal(before, after, "adapter_config.json")
    if exact:
        check_equal(before, after, "adapter_model.safetensors")
        return
    a, b = load_file(before / "adapter_model.safetensors"), load_file(after / "adapter_model.safetensors")
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and ((a[key] - b[key]).abs() <= 2.5e-7 * a[key].abs()).all(), key


def check_mlx(name, kind, base, gguf_base, work):
    path, out = work / f"{name}-{kind}-mlx", work / f"{name}-{kind}-mlx-out"
    make_mlx(base, path, kind)
    out.mkdir()
    expected = logits_by_mlx(base, path)
    windlass("convert", path, out / "peft")
    errors = {"peft": closest(logits_by_peft(base, out / "peft"), expected, "peft")}
    windlass("convert", out / "peft", out / "again", "--to", "mlx")
    check_mlx_equal(path, out / "again")
    if kind == "lora":
        windlass("convert", path, out / "a.gguf", "--config-from", base)
        errors["llama.cpp"] = closest(logits_by_llama_cpp(gguf_base, out / "a.gguf"), expected, "llama.cpp")
        windlass("convert", out / "a.gguf", out / "gguf-mlx", "--to", "mlx")
        check_mlx_equal(path, out / "gguf-mlx")
    return errors


def check_experts(name, base, gguf_base, work):
    """Experts of a layer together in MLX and GGUF, one by one in PEFT, which stacks them when it loads them."""
    path, out = work / f"{name}-experts", work / f"{name}-experts-out"
    mlp = "block_sparse_moe" if name == "mixtral" else "mlp"
    make_mlx(base, path, "lora", ["self_attn.q_proj"] + [f"{mlp}.switch_mlp.{p}_proj" for p in ("gate", "up", "down")])
    out.mkdir()
    expected = logits_by_mlx(base, path)
    plain = distance(logits_of_base(base), expected)
    assert plain > 1e-2, ("the adapter does nothing", plain)
    windlass("convert", path, out / "peft", "--config-from", base)
    errors = {"peft": closest(logits_by_peft(base, out / "peft"), expected, "peft")}
    windlass("convert", path, out / "a.gguf", "--config-from", base)
    errors["llama.cpp"] = closest(logits_by_llama_cpp(gguf_base, out / "a.gguf"), expected, "llama.cpp")
    for source in ("peft", "a.gguf"):
        windlass("convert", out / source, out / f"{source}-mlx", "--to", "mlx", "--config-from", base)
        check_mlx_equal(path, out / f"{source}-mlx")
    windlass("convert", out / "a.gguf", out / "a-peft", "--to", "safetensors", "--config-from", base)
    check_equal(out / "peft", out / "a-peft", "adapter_model.safetensors")
    return errors


def check_mlx_equal(before, after):
    check_equal(before, after, "adapter_config.json")
    a, b = (mx.load(str(p / "adapters.safetensors")) for p in (before, after))
    assert a.keys() == b.keys() and all(mx.array_equal(a[k], b[k]) for k in a), after


def check_foreign_gguf(name, base, gguf_base, work):
    """A GGUF adapter as llama.cpp's own script writes it: no key beside those that llama.cpp needs."""
    import gguf
    source, path, out = work / f"{name}-plain-out" / "a.gguf", work / f"{name}-foreign.gguf", work / f"{name}-foreign"
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    windlass("convert", path, out, "--config-from", base)
    windlass("convert", out, work / f"{name}-foreign-again.gguf", "--config-from", base)
    a, b = ({t.name: np.array(t.data) for t in gguf.GGUFReader(p).tensors} for p in (path, work / f"{name}-foreign-again.gguf"))
    assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
    expected = logits_by_llama_cpp(gguf_base, path)
    return {"peft": closest(logits_by_peft(base, out), expected, "foreign")}


def check_trained(name, method, base, gguf_base, work):
    """An adapter that was trained here, on the folder or on its GGUF, leaves for every container with the same logits."""
    out = work / f"{name}-trained-{method}"
    out.mkdir()
    rows = [dict(input_ids=[(7 * i + 3 * j) % 1000 + 3 for j in range(24)]) for i in range(8)]
    (out / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = gguf_base if method == "rslora" else base
    windlass("train", "--model", model, "--data", out / "rows.jsonl", "--out", out / "run", "--method", method, "--steps", 6,
             "--batch-size", 4, "--rank", 4, "--learning-rate", "0.02", "--context", 64)
    path = out / "run" / "adapter"
    expected = logits_by_peft(base, path)
    plain = distance(logits_of_base(base), expected)
    assert plain > 1e-2, ("the adapter does nothing", plain)
    errors = {"changes": plain}
    windlass("convert", path, out / "mlx", "--to", "mlx", "--config-from", base)
    if base not in NOT_IN_MLX:
        errors["mlx"] = closest(logits_by_mlx(base, out / "mlx"), expected, "mlx")
    if method != "dora":
        windlass("convert", path, out / "a.gguf", "--config-from", base)
        errors["llama.cpp"] = closest(logits_by_llama_cpp(gguf_base, out / "a.gguf"), expected, "llama.cpp")
    windlass("merge", base, out / "merged", "--adapter", path, "--scheme", "f32")
    errors["merged"] = closest(logits_of_folder(out / "merged"), expected, "merged")
    return errors


def logits_of_folder(path):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0].numpy()


def check_tied(name, base, work):
    path = work / f"{name}-tied"
    make_peft(name, "embedding", base, path)
    assert "which the base shares" in windlass("convert", path, work / "tied.gguf", "--config-from", base, code=3)
    return {}


BASES = {}
NOT_IN_MLX = set()


def logits_of_base(base):
    if base not in BASES:
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
        with torch.no_grad():
            BASES[base] = model(torch.tensor([TOKENS])).logits[0].numpy()
    return BASES[base]


def run(name, kind, check, arguments):
    """Whether the check failed."""
    try:
        errors = check(*arguments)
        print(f"ok      {name:10} {kind:10}", *(f"{k} {v:.1e}" for k, v in errors.items()), flush=True)
        return False
    except Exception as e:
        print(f"FAILED  {name:10} {kind}: {type(e).__name__}: {str(e)[:400]}", flush=True)
        return True


def main(checkpoints, work):
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    mx.set_default_device(mx.cpu)
    failed = 0
    for base in sorted(p for p in checkpoints.iterdir() if p.name in MODELS | OF_EXPERTS):
        name, gguf_base = base.name, work / f"{base.name}.gguf"
        windlass("convert", base, gguf_base, "--scheme", "f32")
        if name in OF_EXPERTS:
            failed += run(name, "experts", check_experts, (name, base, gguf_base, work))
            continue
        checks = [(kind, check_peft, (name, kind, base, gguf_base, work)) for kind in KINDS
                  if kind != "embedding" or name in UNTIED]
        # llama.cpp applies a change of a shared embedding to the output too, and stops.
        checks += [] if name in UNTIED else [("tied", check_tied, (name, base, work))]
        if not runs_in_mlx(base):
            NOT_IN_MLX.add(base)
        checks += [] if base in NOT_IN_MLX else [(f"mlx {kind}", check_mlx, (name, kind, base, gguf_base, work)) for kind in ("lora", "dora")]
        checks += [(f"trained {method}", check_trained, (name, method, base, gguf_base, work)) for method in ("lora", "rslora", "dora")]
        checks.append(("foreign", check_foreign_gguf, (name, base, gguf_base, work)))
        for kind, check, arguments in checks:
            failed += run(name, kind, check, arguments)
    sys.exit(f"{failed} failed" if failed else 0)


OF_EXPERTS = {"qwen3moe", "mixtral"}
MODELS = {"llama", "qwen2", "qwen3", "fused", "phi3", "gemma2", "gemma3"}

if __name__ == "__main__":
    WINDLASS = sys.argv[1]
    transformers.logging.set_verbosity_error()
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    main(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
