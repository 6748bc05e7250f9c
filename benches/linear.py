"""Mat-vec products of one row of activations with quantized weights, in turns with llama.cpp, MLX and bitsandbytes.

    cargo build --release -p windlass-cpu --example linear
    python benches/linear.py target/release/examples/linear iq2_xxs iq3_s mlx4-g64 nf4

Shapes are those of Qwen3-0.6B's layers, as many layers as make 280 MB, 2 threads. GB/s count the bytes of the weights; each
side gives its best pass over all layers, and a row is the median of three rounds. llama.cpp is measured through the ggml of
llama-cpp-python.
"""

import ctypes
import glob
import os
import re
import statistics
import subprocess
import sys
import time

SHAPES = [(2048, 1024), (1024, 1024), (1024, 1024), (1024, 2048), (3072, 1024), (3072, 1024), (1024, 3072)]
SET = 280 << 20
THREADS = 2
PASSES = 8

# Numbers of ggml_type.
GGML = {
    "q4_0": 2, "q8_0": 8, "q2_k": 10, "q3_k": 11, "q4_k": 12, "q5_k": 13, "q6_k": 14, "iq2_xxs": 16, "iq2_xs": 17,
    "iq3_xxs": 18, "iq1_s": 19, "iq4_nl": 20, "iq3_s": 21, "iq2_s": 22, "iq4_xs": 23, "iq1_m": 29, "tq1_0": 34,
    "tq2_0": 35, "mxfp4": 39,
}


def best(work):
    """Seconds of the fastest of some passes."""
    seconds = []
    for _ in range(PASSES):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class Ggml:
    """Graphs of mul_mat in ggml."""

    class Init(ctypes.Structure):
        _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]

    def __init__(self):
        import llama_cpp

        folder = os.path.join(os.path.dirname(llama_cpp.__file__), "lib")
        found = lambda name: ctypes.CDLL(sorted(glob.glob(os.path.join(folder, name)))[0], mode=ctypes.RTLD_GLOBAL)
        self.base, self.cpu = found("libggml-base.so*"), found("libggml-cpu.so*")
        self.base.ggml_init.argtypes, self.base.ggml_init.restype = [self.Init], ctypes.c_void_p
        pointer, long = ctypes.c_void_p, ctypes.c_int64
        for name, arguments in {
            "ggml_new_tensor_2d": [pointer, ctypes.c_int, long, long],
            "ggml_mul_mat": [pointer, pointer, pointer],
            "ggml_new_graph_custom": [pointer, ctypes.c_size_t, ctypes.c_bool],
            "ggml_get_data": [pointer],
        }.items():
            getattr(self.base, name).argtypes, getattr(self.base, name).restype = arguments, pointer
        self.base.ggml_build_forward_expand.argtypes = [pointer, pointer]
        self.base.ggml_free.argtypes = self.base.ggml_nbytes.argtypes = [pointer]
        self.base.ggml_nbytes.restype = ctypes.c_size_t
        self.cpu.ggml_graph_compute_with_ctx.argtypes = [pointer, pointer, ctypes.c_int]
        self.cpu.ggml_cpu_init()

    def speed(self, name):
        """GB/s of weights."""
        kind, base = GGML[name], self.base
        context = base.ggml_init(self.Init(SET + (256 << 20), None, False))
        graph = base.ggml_new_graph_custom(context, 8192, False)
        inputs = {columns: base.ggml_new_tensor_2d(context, 0, columns, 1) for _, columns in SHAPES}
        for columns, x in inputs.items():
            ctypes.memmove(base.ggml_get_data(x), (ctypes.c_float * columns)(*[0.5] * columns), 4 * columns)
        pattern = (bytes(range(1, 60)) * (64 << 10))[: 3 << 20]
        size = 0
        while size < SET:
            for rows, columns in SHAPES:
                weight = base.ggml_new_tensor_2d(context, kind, columns, rows)
                length = base.ggml_nbytes(weight)
                ctypes.memmove(base.ggml_get_data(weight), (pattern * (length // len(pattern) + 1))[:length], length)
                base.ggml_build_forward_expand(graph, base.ggml_mul_mat(context, weight, inputs[columns]))
                size += length
        seconds = best(lambda: self.cpu.ggml_graph_compute_with_ctx(context, graph, THREADS))
        base.ggml_free(context)
        return size / seconds / 1e9


def mlx_speed(name):
    """GB/s of MLX on the processor; it takes as many threads as it wants."""
    import mlx.core as mx

    bits, group = (int(n) for n in re.fullmatch(r"mlx(\d)-g(\d+)", name).groups())
    mx.set_default_device(mx.cpu)
    layers, size = [], 0
    while size < SET:
        for rows, columns in SHAPES:
            packed = mx.quantize(mx.random.normal((rows, columns)).astype(mx.bfloat16), group, bits)
            mx.eval(packed)
            layers.append((mx.ones((1, columns), mx.bfloat16), packed))
            size += sum(part.nbytes for part in packed)

    def work():
        mx.eval([mx.quantized_matmul(x, *packed, True, group, bits) for x, packed in layers])

    return size / best(work) / 1e9


def bitsandbytes_speed(name):
    """GB/s of bitsandbytes on the processor."""
    import bitsandbytes.functional as functional
    import torch

    torch.set_num_threads(THREADS)
    layers, size = [], 0
    while size < SET // 4:
        for rows, columns in SHAPES:
            weight = torch.randn(rows, columns, dtype=torch.bfloat16)
            packed, state = functional.quantize_4bit(weight, quant_type=name, blocksize=64)
            layers.append((torch.ones(1, columns, dtype=torch.bfloat16), packed, state))
            size += packed.nbytes + state.absmax.nbytes

    def work():
        import bitsandbytes

        for x, packed, state in layers:
            bitsandbytes.matmul_4bit(x, packed.t(), state)

    return size / best(work) / 1e9


def ours(binary, name):
    """GB/s with two threads, its share of a plain read, and GOP/s for 512 rows."""
    lines = subprocess.run([binary, name], check=True, capture_output=True, text=True).stdout.splitlines()
    row = next(line for line in lines if line.startswith(name))
    (_, _), (speed, share) = re.findall(r"([\d.]+) \( *(\d+) %\)", row)
    return float(speed), int(share), int(row.split()[-1])


def main():
    binary, names = sys.argv[1], sys.argv[2:]
    ggml = Ggml()
    print("| scheme | GB/s | share of a plain read | peer | GB/s | ours / peer (min-max) | 512 rows, GOP/s |\n|---|---|---|---|---|---|---|")
    for name in names:
        peer, speed_of = "-", None
        if name in GGML:
            peer, speed_of = "llama.cpp", ggml.speed
        elif re.fullmatch(r"mlx\d-g\d+", name):
            peer, speed_of = "MLX", mlx_speed
        elif name in ("nf4", "fp4"):
            peer, speed_of = "bitsandbytes", bitsandbytes_speed
        rounds = [(ours(binary, name), speed_of(name) if speed_of else float("nan")) for _ in range(3)]
        middle = lambda values: statistics.median(values)
        ratios = [mine[0] / theirs for mine, theirs in rounds]
        ratio = f"{middle(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if speed_of else "-"
        theirs = f"{middle([t for _, t in rounds]):.1f}" if speed_of else "-"
        mine = [m for m, _ in rounds]
        print(f"| {name} | {middle([m[0] for m in mine]):.1f} | {middle([m[1] for m in mine]):.0f} % | {peer} | {theirs} | {ratio} | {middle([m[2] for m in mine]):.0f} |", flush=True)


if __name__ == "__main__":
    main()
