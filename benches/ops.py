"""Milliseconds of ops of windlass and of torch, in turns, and of copies with the same reads and writes.

    cargo build --release -p windlass-cpu --example ops
    python benches/ops.py target/release/examples/ops [--rounds 5] [--threads 2]

Prints a row of a Markdown table for each op: medians, the ratio of each pair of turns as median (least to most; above 1
windlass is faster), and for what memory bounds the share of the copy's speed.
"""

import argparse
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("example")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--only", nargs="*", help="these ops")
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
torch.manual_seed(1)

square = torch.randn(2048, 2048)
large = torch.randn(4096, 4096)
weight = torch.randn(4096)
heads = torch.randn(1024, 16, 128)
keys = torch.randn(1, 16, 1024, 128)
angles = torch.arange(1024)[:, None] * 1e6 ** -(torch.arange(64) / 64)
cosine = torch.cat([angles.cos()] * 2, -1)[:, None]
sine = torch.cat([angles.sin()] * 2, -1)[:, None]


def rotate(x):
    # As transformers does it, with cosines and sines at hand.
    first, second = x[..., :64], x[..., 64:]
    return x * cosine + torch.cat((-second, first), -1) * sine


def stepper(make):
    with torch.enable_grad():
        parameter = torch.nn.Parameter(large.clone())
    parameter.grad = large
    return make([parameter]).step


query = heads.transpose(0, 1)[None]
PEER = {
    "matmul": lambda: square @ square,
    "rms_norm": lambda: F.rms_norm(large, (4096,), weight, 1e-6),
    "softmax": lambda: large.softmax(-1),
    "rope": lambda: rotate(heads),
    "swiglu": lambda: F.silu(large) * large,
    "attention": lambda: F.scaled_dot_product_attention(query, keys, keys, is_causal=True),
    "adam_step": stepper(lambda p: torch.optim.AdamW(p, fused=True)),
    "momentum_step": stepper(lambda p: torch.optim.SGD(p, momentum=0.9, fused=True)),
}
# MiB that an op must read and write; those of steps of optimizers it changes where they are.
CHANGE = {"adam_step": (256, 192), "adam8_step": (161, 97), "momentum_step": (192, 128), "lion_step": (192, 128)}
COPY = {"rms_norm": (64, 64), "softmax": (64, 64), "rope": (8, 8), "swiglu": (128, 64)}

ours = subprocess.Popen([arguments.example, str(arguments.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(line):
    ours.stdin.write(line + "\n")
    ours.stdin.flush()
    return float(ours.stdout.readline())


def theirs(call):
    best = float("inf")
    for turn in range(8):
        start = time.perf_counter()
        call()
        best = min(best, (time.perf_counter() - start) * 1e3) if turn else best
    return best


print("| op | windlass ms | torch ms | torch / windlass (min-max) | share of a copy |\n|---|---|---|---|---|")
with torch.no_grad():
    for name, call in PEER.items():
        if arguments.only and name not in arguments.only:
            continue
        turns = []
        for _ in range(arguments.rounds):
            copy = ask("copy %d %d" % COPY[name]) if name in COPY else 0
            copy = ask("change %d %d" % CHANGE[name]) if name in CHANGE else copy
            turns.append((ask(name), theirs(call), copy))
        mine, peer, copies = zip(*turns)
        ratios = [p / m for m, p, _ in turns]
        share = f"{statistics.median(c / m for m, _, c in turns):.0%}" if copies[0] else ""
        print(
            f"| {name} | {statistics.median(mine):.2f} | {statistics.median(peer):.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) | {share} |"
        )
print(f"\nA call of an op on one value: {ask('dispatch') * 1e3:.2f} us.")
