"""LoRA on every linear layer beside torch, peft and bitsandbytes: tokens per second of training, in turns.

    python benches/train.py WINDLASS CHECKPOINT [--rounds 2]      (torch, transformers, peft, bitsandbytes)

One row of 256 tokens per step, rank 16, 2 threads, F32 arithmetic. A run is three steps in a process of its own; its figure is the
best of the last two. Prints both figures, their ratio and the peak resident memory of each.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

TOKENS = 256
PEER = """
import json, resource, sys, time, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
checkpoint, rows, scheme = sys.argv[1:]
torch.set_num_threads(2)
how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
more = {"quantization_config": how} if scheme == "nf4" else {}
model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, **more)
model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
model.train()
rates = []
for line in open(rows).read().splitlines()[:3]:
    start = time.perf_counter()
    tokens = torch.tensor([json.loads(line)["input_ids"]])
    loss = model(input_ids=tokens, labels=tokens).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    rates.append(tokens.numel() / (time.perf_counter() - start))
print(json.dumps([max(rates[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def peer(checkpoint, rows, scheme):
    command = [sys.executable, "-c", PEER, checkpoint, str(rows), scheme]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(out.splitlines()[-1])


def ours(windlass, checkpoint, rows, method):
    with tempfile.TemporaryDirectory() as out:
        command = [windlass, "train", "--model", checkpoint, "--data", str(rows), "--out", out, "--method", method]
        command += ["--steps", "3", "--no-shuffle", "--threads", "2", "--scheduler", "constant", "-q"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        steps = [json.loads(line) for line in (pathlib.Path(out) / "metrics.jsonl").read_text().splitlines()]
    return max(s["tokens_per_second"] for s in steps[1:]), steps[-1]["peak_memory_bytes"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("windlass")
    parser.add_argument("checkpoint")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    random.seed(3)
    with tempfile.TemporaryDirectory() as folder:
        rows = pathlib.Path(folder) / "rows.jsonl"
        line = lambda: json.dumps({"input_ids": [random.randrange(5, 100000) for _ in range(TOKENS)]})
        rows.write_text("".join(line() + "\n" for _ in range(3)))
        for method, scheme in [("qlora", "nf4"), ("lora", "f32")]:
            for _ in range(options.rounds):
                theirs = peer(options.checkpoint, rows, scheme)
                found = ours(options.windlass, options.checkpoint, rows, method)
                print(
                    f"{method}: {found[0]:.1f} tokens/s, {found[1] / 1e6:.0f} MB; peer ({scheme}) {theirs[0]:.1f} tokens/s, "
                    f"{theirs[1] / 1e6:.0f} MB; ratio {found[0] / theirs[0]:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
