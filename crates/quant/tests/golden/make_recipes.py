"""Ask llama.cpp (through llama-cpp-python) which type it would give each tensor of some models, for each file type.

    python make_recipes.py

Writes `recipes.txt` beside this file. A model is a GGUF of the right header over a hole; quantizing is a dry run, whose log names the types.

    model NAME ARCHITECTURE LAYERS EXPERTS HEADS KV_HEADS
    tensor NAME SHAPE            (outermost first, as PyTorch would say; `*` stands for each layer in turn)
    type FILE_TYPE IMATRIX ...   (with: yes, no or any; TYPE*COUNT in the order of the tensors, or `error`)
"""
import ctypes, itertools, os, pathlib, re, tempfile
import gguf, llama_cpp
import numpy as np

FILE_TYPES = "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4_MOE".split()


def transformer(layers, width, hidden, heads, kv_heads, tied=False, experts=0, fused=False, norms=False):
    head = width // heads
    yield "token_embd.weight", (512, width)
    for i in range(layers):
        p = f"blk.{i}."
        yield p + "attn_norm.weight", (width,)
        if fused:
            yield p + "attn_qkv.weight", (width + 2 * kv_heads * head, width)
        else:
            yield p + "attn_q.weight", (width, width)
            yield p + "attn_k.weight", (kv_heads * head, width)
            yield p + "attn_v.weight", (kv_heads * head, width)
        if norms:
            yield p + "attn_q_norm.weight", (head,)
            yield p + "attn_k_norm.weight", (head,)
        yield p + "attn_output.weight", (width, width)
        yield p + "ffn_norm.weight", (width,)
        stack, name = ((experts,), "_exps") if experts else ((), "")
        if experts:
            yield p + "ffn_gate_inp.weight", (experts, width)
        if not fused:
            yield p + f"ffn_gate{name}.weight", (*stack, hidden, width)
        yield p + f"ffn_up{name}.weight", (*stack, hidden, width)
        yield p + f"ffn_down{name}.weight", (*stack, width, hidden)
    yield "output_norm.weight", (width,)
    if not tied:
        yield "output.weight", (512, width)


# name: architecture, then the arguments of `transformer`
MODELS = {
    "llama-8b": ("llama", dict(layers=32, width=1024, hidden=512, heads=32, kv_heads=8)),
    "llama-7b": ("llama", dict(layers=32, width=1024, hidden=512, heads=32, kv_heads=32)),
    "llama-70b": ("llama", dict(layers=80, width=1024, hidden=512, heads=64, kv_heads=8)),
    "qwen2-72b": ("qwen2", dict(layers=80, width=1024, hidden=512, heads=64, kv_heads=8)),
    "qwen3-0.6b": ("qwen3", dict(layers=28, width=1024, hidden=512, heads=16, kv_heads=8, tied=True, norms=True)),
    "qwen2-0.5b": ("qwen2", dict(layers=24, width=896, hidden=512, heads=14, kv_heads=2, tied=True)),
    "mixtral": ("llama", dict(layers=32, width=1024, hidden=512, heads=32, kv_heads=8, experts=8)),
    "qwen3-30b": ("qwen3moe", dict(layers=48, width=1024, hidden=256, heads=32, kv_heads=4, experts=128, norms=True)),
    "falcon-7b": ("falcon", dict(layers=32, width=1024, hidden=512, heads=64, kv_heads=1, fused=True)),
    "phi2": ("phi2", dict(layers=32, width=1024, hidden=512, heads=32, kv_heads=32, fused=True)),
    "narrow": ("llama", dict(layers=4, width=480, hidden=80, heads=4, kv_heads=4)),
}


def write(path, architecture, shape, tensors):
    w = gguf.GGUFWriter(path, architecture)
    for key, value in [("block_count", shape["layers"]), ("context_length", 64), ("embedding_length", shape["width"]),
                       ("feed_forward_length", shape["hidden"]), ("attention.head_count", shape["heads"]),
                       ("attention.head_count_kv", shape["kv_heads"]), ("rope.dimension_count", shape["width"] // shape["heads"])]:
        w.add_uint32(f"{architecture}.{key}", value)
    if shape.get("experts"):
        w.add_uint32(f"{architecture}.expert_count", shape["experts"])
        w.add_uint32(f"{architecture}.expert_used_count", 2)
        w.add_uint32(f"{architecture}.expert_feed_forward_length", shape["hidden"])
    w.add_float32(f"{architecture}.attention.layer_norm_epsilon", 1e-5)
    w.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    w.add_uint32(f"{architecture}.vocab_size", 512)
    w.add_tokenizer_model("no_vocab")
    size = 0
    for name, dims in tensors:
        dtype = np.float32 if len(dims) == 1 or "gate_inp" in name else np.float16
        count = int(np.prod(dims)) * np.dtype(dtype).itemsize
        w.add_tensor_info(name, dims, np.dtype(dtype), count)
        size += -(-count // 32) * 32
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    w.close()
    with open(path, "ab") as f:
        f.truncate(-(-f.tell() // 32) * 32 + size)


lines = []


@llama_cpp.llama_log_callback
def log(level, text, data):
    lines.append(text.decode(errors="replace"))


llama_cpp.llama_log_set(log, ctypes.c_void_p())


def choose(path, file_type, imatrix):
    p = llama_cpp.llama_model_quantize_default_params()
    p.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{file_type}")
    p.dry_run, p.nthread = True, 1
    weights = (ctypes.c_float * 1)(1.0)
    entries = (llama_cpp.llama_model_imatrix_data * 2)()
    entries[0].name, entries[0].data, entries[0].size = b"some.weight", weights, 1
    if imatrix:
        p.imatrix = entries
    lines.clear()
    if llama_cpp.llama_model_quantize(str(path).encode(), b"/dev/null", p) != 0:
        return None
    found = {}
    for m in re.finditer(r"\] +(\S+) +- \[.*?type = +(\S+), size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((\S+)\))?", "".join(lines)):
        found[m[1]] = (m[3] or m[2]).lower()
    return found


out = []
with tempfile.TemporaryDirectory() as folder:
    for model, (architecture, shape) in MODELS.items():
        tensors = list(transformer(**shape))
        path = pathlib.Path(folder) / f"{model}.gguf"
        write(path, architecture, shape, tensors)
        out.append(f"model {model} {architecture} {shape['layers']} {shape.get('experts', 0)} {shape['heads']} {shape['kv_heads']}")
        kinds = {}
        for name, dims in tensors:
            kinds.setdefault((re.sub(r"\d+", "*", name), dims), []).append(name)
        out += [f"tensor {kind} {','.join(map(str, dims))}" for kind, dims in kinds]
        for file_type in FILE_TYPES:
            answers = []
            for imatrix in (False, True):
                found = choose(path, file_type, imatrix)
                if found is None:
                    print(model, file_type, imatrix, [l for l in lines if "failed" in l][-1:])
                types = ["error"] if found is None else [found[name] for names in kinds.values() for name in names]
                answers.append(" ".join(f"{key}*{len(list(run))}" for key, run in itertools.groupby(types)))
            both = [("any", answers[0])] if answers[0] == answers[1] else zip(("no", "yes"), answers)
            out += [f"type {file_type.lower()} {imatrix} {answer}" for imatrix, answer in both]
        os.remove(path)
pathlib.Path(__file__).with_name("recipes.txt").write_text("\n".join(out) + "\n")
