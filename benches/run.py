"""Tokens per second of windlass and of llama.cpp on the same GGUF, in turns.

    python benches/run.py WINDLASS CHECKPOINT [--schemes q4_0,q4_k_m,q8_0] [--rounds 5] [--threads 2] [--work DIR]

CHECKPOINT is a Hugging Face folder; it is quantized to a GGUF by windlass first. Needs llama-cpp-python, compiled for this
machine. Prints medians, and the ratio of each pair of turns as median (least to most): above 1 windlass is faster.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("windlass")
parser.add_argument("checkpoint")
parser.add_argument("--schemes", default="q4_0,q4_k_m,q8_0")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--prompt", type=int, default=512)
parser.add_argument("--generate", type=int, default=64)
parser.add_argument("--work", default="bench-work")
arguments = parser.parse_args()


def ours(model):
    command = [arguments.windlass, "bench", str(model), "--json", "--repeat", "1", "--threads", str(arguments.threads)]
    command += ["--prompt", str(arguments.prompt), "--generate", str(arguments.generate)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result["prompt_tokens_per_second"], result["tokens_per_second"], result["peak_memory_bytes"]


PEER = """
import json, resource, sys, time
import llama_cpp
model, prompt, generate, threads = sys.argv[1], *map(int, sys.argv[2:])
llama = llama_cpp.Llama(model_path=model, n_ctx=prompt + generate, n_batch=prompt, n_ubatch=prompt, n_threads=threads,
                        n_threads_batch=threads, verbose=False, flash_attn=True)
tokens = [(i * 7919) % 2000 + 3 for i in range(prompt)]
llama.eval(tokens[:8]); llama.reset()
start = time.perf_counter(); llama.eval(tokens); first = prompt / (time.perf_counter() - start)
start = time.perf_counter()
for i in range(generate):
    llama.eval([tokens[i % prompt]])
second = generate / (time.perf_counter() - start)
print(json.dumps([first, second, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def theirs(model):
    command = [sys.executable, "-c", PEER, str(model), str(arguments.prompt), str(arguments.generate), str(arguments.threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


work = pathlib.Path(arguments.work)
work.mkdir(parents=True, exist_ok=True)
for scheme in arguments.schemes.split(","):
    model = work / f"{scheme}.gguf"
    if not model.exists():
        subprocess.run([arguments.windlass, "convert", arguments.checkpoint, str(model), "--scheme", scheme, "-q"], check=True)
    pairs = []
    for _ in range(arguments.rounds):
        pairs.append((ours(model), theirs(model)))
        time.sleep(1)
    for i, what in enumerate(["prompt", "decode"]):
        mine, peer = [p[0][i] for p in pairs], [p[1][i] for p in pairs]
        ratio = [a / b for a, b in zip(mine, peer)]
        print(f"{scheme:8} {what}: {statistics.median(mine):7.1f} tokens/s, llama.cpp {statistics.median(peer):7.1f}, ratio {spread(ratio)}")
    print(f"{scheme:8} memory: {max(p[0][2] for p in pairs) / 2**20:.0f} MiB, llama.cpp {max(p[1][2] for p in pairs) / 2**20:.0f} MiB; file {model.stat().st_size / 2**20:.0f} MiB")
