"""Makes models into one and compares with the papers' formulas in torch, and with mergekit where it is installed.

    python models.py WINDLASS CHECKPOINTS WORK
"""
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file

import adapters as shared
from adapters import windlass

WEIGHTS, DENSITIES = [0.5, 0.3, 0.9], [0.2, 0.5, 0.7]


def make(base, work):
    """Three models that learned something, and one that learned far more."""
    paths = []
    for i in range(4):
        path = work / f"model-{i}"
        shutil.copytree(base, path)
        torch.manual_seed(10 + i)
        weights = load_file(base / "model.safetensors")
        size = 1.0 if i == 3 else 0.1
        weights = {k: v.float() + size * v.float().std() * torch.randn(v.shape) for k, v in weights.items()}
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
        paths.append(path)
    return paths


def trim(change, density):
    k = max(1, int(density * change.numel()))
    return torch.where(change.abs() >= change.abs().flatten().topk(k).values[-1], change, 0)


def elect(changes, normalize):
    weighted = torch.stack([w * c for w, c in zip(WEIGHTS, changes)])
    agree = weighted.sign() == torch.where(weighted.sum(0) >= 0, 1, -1)
    weights = torch.tensor(WEIGHTS).view(-1, *[1] * (weighted.dim() - 1))
    divisor = (weights * agree).sum(0)
    total = (weighted * agree).sum(0)
    return total / torch.where(divisor == 0, 1, divisor) if normalize else total


def slerp(a, b, t):
    cosine = (a.flatten() @ b.flatten() / a.norm() / b.norm()).double()
    if cosine.abs() > 0.9995:
        return (1 - t) * a + t * b
    angle = torch.arccos(cosine)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def expected(method, base, models):
    changes = [m - base for m in models[:3]]
    if method == "linear":
        return sum(w * m for w, m in zip(WEIGHTS, models)) / sum(WEIGHTS)
    if method == "slerp":
        return slerp(models[0], models[3], 0.3)
    if method == "task":
        return base + 0.8 * sum(w * c for w, c in zip(WEIGHTS, changes))
    return base + 0.8 * elect([trim(c, d) for c, d in zip(changes, DENSITIES)], True)


def arguments(method, base, paths):
    if method == "slerp":
        return [f"{paths[0]}:0.7", f"{paths[3]}:0.3"]
    named = [f"{path}:{weight}" for path, weight in zip(paths, WEIGHTS)]
    if method == "linear":
        return named
    return named + ["--base", base, "--lambda", 0.8, "--density", ",".join(map(str, DENSITIES))]


def by_mergekit(method, base, paths, out):
    """mergekit's own result, through its command."""
    model = lambda i: dict(model=str(paths[i]), parameters=dict(weight=WEIGHTS[i], density=DENSITIES[i]))
    config = dict(merge_method={"task": "task_arithmetic"}.get(method, method), dtype="float32", models=[model(i) for i in range(3)])
    if method == "slerp":
        config |= dict(base_model=str(paths[0]), models=[dict(model=str(paths[i])) for i in (0, 3)], parameters=dict(t=0.3))
    elif method != "linear":
        config |= dict(base_model=str(base), parameters={"lambda": 0.8})
    file = out.with_suffix(".yml")
    file.write_text(json.dumps(config))
    done = subprocess.run([sys.executable, "-m", "mergekit.scripts.run_yaml", str(file), str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]
    return tensors(out)


def tensors(path):
    all = {}
    for part in sorted(path.glob("*.safetensors")):
        all |= load_file(part)
    return all


def worst(ours, theirs, bound):
    assert ours.keys() <= theirs.keys()
    errors = [((v.float() - theirs[k].float()).abs().max() / theirs[k].float().abs().max()).item() for k, v in ours.items()]
    assert max(errors) < bound, max(errors)
    return max(errors)


def main(checkpoints, work):
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    base = work / "base"
    windlass("convert", checkpoints / "llama", base, "--scheme", "f32")
    paths = make(base, work)
    values = [tensors(base)] + [tensors(path) for path in paths]
    # The same models in other containers.
    ggufs = [work / f"{path.name}.gguf" for path in [base] + paths]
    for path, gguf in zip([base] + paths, ggufs):
        windlass("convert", path, gguf)
    mlx = work / "mlx"
    windlass("convert", paths[1], mlx, "--to", "mlx")
    has_mergekit = importlib.util.find_spec("mergekit") is not None
    if not has_mergekit:
        print("skipped mergekit: it is not installed")
    for method in ("linear", "slerp", "task", "ties"):
        out = work / method
        report = windlass("merge", *arguments(method, base, paths), "--out", out, "--method", method)
        assert len(report["merged"]) == len(values[0]), report
        wanted = {k: expected(method, values[0][k], [v[k] for v in values[1:]]) for k in values[0]}
        errors = {"formula": worst(tensors(out), wanted, 1e-5 if method == "slerp" else 2e-6)}
        if has_mergekit:
            errors["mergekit"] = worst(tensors(out), by_mergekit(method, base, paths, work / f"{method}-mergekit"), 1e-5)
        mixed = [ggufs[1], mlx, ggufs[3], paths[3]]
        windlass("merge", *arguments(method, ggufs[0], mixed), "--out", work / f"{method}.gguf", "--method", method)
        windlass("convert", work / f"{method}.gguf", work / f"{method}-back", "--scheme", "f32")
        errors["mixed containers"] = worst(tensors(work / f"{method}-back"), wanted, 1e-5 if method == "slerp" else 2e-6)
        print(f"ok      {method:10}", *(f"{k} {v:.1e}" for k, v in errors.items()), flush=True)
    for method in ("dare", "dare-ties"):
        # What is kept is decided by counted random numbers: a share, the same every time, rescaled.
        out = [work / f"{method}-{i}" for i in range(3)]
        for path, seed in zip(out, (5, 5, 6)):
            windlass("merge", f"{paths[0]}:1", paths[1], "--base", base, "--out", path, "--method", method, "--density", "0.25,1", "--seed", seed)
        a, b, c = map(tensors, out)
        assert all(torch.equal(a[k], b[k]) for k in a) and not all(torch.equal(a[k], c[k]) for k in a)
        if method == "dare":
            key = "model.layers.0.mlp.up_proj.weight"
            first, second = (v[key] - values[0][key] for v in values[1:3])
            left = a[key] - values[0][key] - second
            kept = (left - 4 * first).abs() < 1e-5
            assert (kept | (left.abs() < 1e-5)).all() and abs(kept.float().mean() - 0.25) < 0.01
        print(f"ok      {method}", flush=True)


if __name__ == "__main__":
    shared.WINDLASS = sys.argv[1]
    main(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
