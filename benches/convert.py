"""Conversion against its peers, interleaved in one run; prints ratios of medians with their spread.

    python convert.py WINDLASS MODEL WORK [--runs 3] [--converter convert_hf_to_gguf.py] [--only NAME,...]

MODEL is a Hugging Face folder in bfloat16, WORK a folder with room for several copies of it (a memory file system leaves the
disk out). Needs llama-cpp-python and mlx-lm for the peers; `cp` needs nothing. Times are of the whole process; for windlass,
the time it waits for the disk at the end (`sync_seconds`) is taken off, because no peer waits.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import sys
import time

QUANTIZE = """
import sys, llama_cpp
p = llama_cpp.llama_model_quantize_default_params()
p.ftype, p.nthread = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + sys.argv[3]), 2
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), p))
"""
MLX = """
import sys, mlx.core as mx, mlx_lm
mx.set_default_device(mx.cpu)
mlx_lm.convert(sys.argv[1], sys.argv[2], quantize=True, q_group_size=64, q_bits=4)
"""


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def run(command, target):
    """Seconds and peak memory (MiB) of a command that writes target."""
    remove(target)
    start = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 1, "/tmp/bench.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_OPEN, 2, "/tmp/bench.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)])
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{command} failed:\n" + pathlib.Path("/tmp/bench.err").read_text()[-2000:])
    return seconds, usage.ru_maxrss / 1024


def windlass(program, source, target, scheme):
    seconds, memory = run([program, "convert", str(source), str(target), "--scheme", scheme, "--json"], target)
    report = json.loads(pathlib.Path("/tmp/bench.out").read_text())
    return seconds - report["sync_seconds"], memory


def main():
    a = argparse.ArgumentParser()
    a.add_argument("windlass")
    a.add_argument("model", type=pathlib.Path)
    a.add_argument("work", type=pathlib.Path)
    a.add_argument("--runs", type=int, default=3)
    a.add_argument("--converter")
    a.add_argument("--only")
    a = a.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    bf16, ours, theirs = a.work / "bf16.gguf", a.work / "ours.gguf", a.work / "theirs.gguf"
    windlass(a.windlass, a.model, bf16, "bf16")
    python = sys.executable
    weights = a.model / "model.safetensors"
    jobs = {
        "copy of the file (cp)": ("bf16", ours, ["cp", str(weights), str(theirs)], theirs),
        "llama-quantize Q8_0": ("q8_0", ours, [python, "-c", QUANTIZE, str(bf16), str(theirs), "Q8_0"], theirs),
        "llama-quantize Q4_0": ("q4_0", ours, [python, "-c", QUANTIZE, str(bf16), str(theirs), "Q4_0"], theirs),
        "llama-quantize Q4_K_M": ("q4_k_m", ours, [python, "-c", QUANTIZE, str(bf16), str(theirs), "Q4_K_M"], theirs),
        "mlx_lm convert 4 bits": ("mlx4-g64", a.work / "ours-mlx", [python, "-c", MLX, str(a.model), str(a.work / "theirs-mlx")],
                                  a.work / "theirs-mlx"),
    }
    if a.converter:
        command = [python, a.converter, str(a.model), "--outfile", str(theirs), "--outtype", "bf16"]
        jobs["convert_hf_to_gguf bf16"] = ("bf16", ours, command, theirs)
    print("| peer | peer s | windlass s | ratio (min-max) | peer MiB | windlass MiB |\n|---|---|---|---|---|---|")
    for name, (scheme, ours, command, theirs) in jobs.items():
        if a.only and not any(word in name for word in a.only.split(",")):
            continue
        rows = []
        for _ in range(a.runs):
            rows.append((run(command, theirs), windlass(a.windlass, a.model, ours, scheme)))
        ratios = [p[0] / w[0] for p, w in rows]
        median = lambda f: statistics.median(f(r) for r in rows)
        print(f"| {name} | {median(lambda r: r[0][0]):.2f} | {median(lambda r: r[1][0]):.2f} | {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f}-{max(ratios):.2f}) | {median(lambda r: r[0][1]):.0f} | {median(lambda r: r[1][1]):.0f} |", flush=True)


main()
