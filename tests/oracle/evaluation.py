"""Perplexities against transformers and llama.cpp, and how far quantized arithmetic is from exact arithmetic.

    python evaluation.py WINDLASS CHECKPOINTS WORK

Weights are made four times as large, so that the models have opinions. The exact model is what the GGUF decodes to, run
by transformers in double precision; our divergence from it must be no larger than llama.cpp's own.
"""
import ctypes
import json
import pathlib
import shutil
import subprocess
import sys

import llama_cpp
import numpy as np
import safetensors.torch
import torch
import transformers

WINDOW = 128
SCHEMES = ["q4_0", "q4_k", "q8_0", "q4_k_m", "q6_k"]
TEXT = pathlib.Path(__file__).parent / "compare.py"


def windlass(*arguments, code=0):
    done = subprocess.run([WINDLASS, *map(str, arguments), "--json"], capture_output=True, text=True)
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def strong(folder, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    path = target / "model.safetensors"
    tensors = {k: v * 4 if v.dim() > 1 else v for k, v in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    return target


def windows(folder):
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(TEXT.read_text()).input_ids
    return [tokens[i : i + WINDOW] for i in range(0, len(tokens) - WINDOW + 1, WINDOW)]


def by_transformers(folder, parts, dtype=torch.float64):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    with torch.no_grad():
        return np.stack([model(torch.tensor([part])).logits[0].double().numpy() for part in parts])


def by_llama_cpp(path, parts):
    model = llama_cpp.Llama(str(path), n_ctx=WINDOW, n_batch=WINDOW, logits_all=True, verbose=False, n_threads=2,
                            type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32)
    logits = []
    for part in parts:
        model.reset()
        model.eval(part)
        logits.append(np.array(model.scores[:WINDOW], dtype=np.float64))
    return np.stack(logits)


def by_windlass(path, parts, work):
    logits = []
    for part in parts:
        out = work / "logits.safetensors"
        windlass("logits", path, "--tokens", ",".join(map(str, part)), "--out", out, "--overwrite")
        logits.append(safetensors.torch.load_file(out)["logits"].double().numpy())
    return np.stack(logits)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def scored(logits):
    """The positions that llama.cpp's perplexity looks at."""
    return log_softmax(logits[:, WINDOW // 2 : WINDOW - 1])


def perplexity(logits, parts):
    next_tokens = np.array(parts)[:, WINDOW // 2 + 1 :]
    return float(np.exp(-np.take_along_axis(scored(logits), next_tokens[..., None], -1).mean()))


def divergence(logits, base):
    p, q = scored(base), scored(logits)
    return (np.exp(p) * (p - q)).sum(-1)


def near(what, found, expected, tolerance):
    assert abs(found - expected) <= tolerance * abs(expected), (what, found, expected)


def check(name, folder, work):
    folder = strong(folder, work / f"{name}-strong")
    parts = windows(folder)
    float_logits = by_transformers(folder, parts, torch.float32)
    report = windlass("eval", folder, "--text", TEXT, "--context", WINDOW)
    near("perplexity", report["perplexity"], perplexity(float_logits, parts), 1e-4)
    assert report["tokens"] == len(parts) * (WINDOW // 2 - 1), report
    lines = [f"perplexity {report['perplexity']:.3f} as transformers"]
    for scheme in SCHEMES:
        packed, exact = work / f"{name}-{scheme}.gguf", work / f"{name}-{scheme}-exact"
        windlass("convert", folder, packed, "--scheme", scheme, "--overwrite")
        windlass("convert", packed, exact, "--scheme", "f32", "--overwrite")
        base = by_transformers(exact, parts)
        theirs, ours = by_llama_cpp(packed, parts), by_windlass(packed, parts, work)
        against = windlass("eval", packed, "--against", exact, "--text", TEXT, "--context", WINDOW)
        near(f"{scheme} perplexity", against["perplexity"], perplexity(theirs, parts), 2e-2)
        near(f"{scheme} perplexity", against["base_perplexity"], perplexity(base, parts), 1e-4)
        kl_ours, kl_theirs = divergence(ours, base), divergence(theirs, base)
        near(f"{scheme} mean KL", against["mean_kld"], kl_ours.mean(), 2e-2)
        near(f"{scheme} p99 KL", against["p99_kld"], np.percentile(kl_ours, 99), 5e-2)
        same = (scored(ours).argmax(-1) == scored(base).argmax(-1)).mean()
        near(f"{scheme} agreement", against["top1_agreement"], same, 1e-2)
        # The same quantization of activations gives the same error but for chance: a tenth is within it.
        assert kl_ours.mean() <= 1.1 * kl_theirs.mean() + 1e-9, (scheme, kl_ours.mean(), kl_theirs.mean())
        lines.append(f"{scheme} KL {kl_ours.mean():.2e} (llama.cpp {kl_theirs.mean():.2e})")
        failed = windlass("eval", packed, "--against", folder, "--text", TEXT, "--context", WINDOW, "--max-kld", "1e-9",
                          code=5)
        assert failed["error"]["code"] == "gate" and failed["mean_kld"] > 1e-9, failed
    return "; ".join(lines)


def main(checkpoints, work):
    work.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in ["llama", "qwen3"]:
        try:
            print(f"ok      {name:10} {check(name, checkpoints / name, work)}", flush=True)
        except Exception as e:
            failed += 1
            print(f"FAILED  {name:10} {type(e).__name__}: {str(e)[:400]}", flush=True)
    sys.exit(f"{failed} failed" if failed else 0)


if __name__ == "__main__":
    WINDLASS = sys.argv[1]
    transformers.logging.set_verbosity_error()
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    main(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
