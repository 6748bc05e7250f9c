"""Make inventory.json: what transformers saves, llama.cpp writes and mlx-lm loads for a tiny model of every architecture.

    python make.py LLAMA_CPP_FOLDER > inventory.json

LLAMA_CPP_FOLDER holds `convert_hf_to_gguf.py` with its packages `conversion` and `gguf-py`. Every row of every tensor is filled with a
number of its own, so the files that come out tell which row of which tensor went where, and what was added to it. A vector counts as
one row per value. A case holds

    config  config.json as transformers saved it
    hf      {tensor: shape} of model.safetensors
    gguf    {tensor: [shape, runs]}, the tensors of the converted model; a run is [index in hf, first row, rows, added]
    keys    {key: [type, value]}, the metadata of the converted model without general.* (but the architecture)
    values  {tensor: values} of tensors that do not come from the checkpoint
    mlx     {tensor: [shape, runs]} of the weights that mlx-lm loads
"""
import importlib, json, pathlib, sys, tempfile
import numpy as np

LLAMA_CPP = pathlib.Path(sys.argv[1]).resolve()
sys.path[:0] = [str(LLAMA_CPP), str(LLAMA_CPP / "gguf-py")]
import gguf, torch, transformers, mlx.core as mx
from safetensors.numpy import load_file, save_file

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=64,
             max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=0)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
LONG = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.5, 2.0, 2.5], long_factor=[1.0, 4.0, 8.0, 16.5],
            original_max_position_embeddings=64)
SLIDING = dict(rope_type="default", rope_theta=10000.0)
GEMMA = dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=64)
CASES = {
    "llama": ("Llama", dict(tie_word_embeddings=False, rope_parameters=LLAMA3)),
    "llama-tied-biased": ("Llama", dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=16)),
    "llama-3.2": ("Llama", dict(head_dim=64, num_attention_heads=1, num_key_value_heads=1, num_hidden_layers=1, rope_parameters=LLAMA3 | dict(
        factor=32.0, original_max_position_embeddings=8192))),
    "llama-linear": ("Llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0))),
    "mistral": ("Mistral", dict(tie_word_embeddings=False, sliding_window=None)),
    "mistral-sliding": ("Mistral", dict(tie_word_embeddings=False, sliding_window=64, head_dim=16)),
    "mixtral": ("Mixtral", dict(num_local_experts=4, num_experts_per_tok=2)),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=False, rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "qwen2-tied-yarn": ("Qwen2", dict(tie_word_embeddings=True, rope_parameters=dict(
        rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=64))),
    "qwen3": ("Qwen3", dict(head_dim=16, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "qwen3moe": ("Qwen3Moe", dict(head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, norm_topk_prob=True)),
    "phi3": ("Phi3", dict(original_max_position_embeddings=256, sliding_window=64)),
    "phi3-long": ("Phi3", dict(original_max_position_embeddings=64, rope_parameters=LONG)),
    "phi3-partial": ("Phi3", dict(original_max_position_embeddings=256, rope_parameters=dict(
        rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.75))),
    "gemma2": ("Gemma2", GEMMA),
    "gemma3": ("Gemma3Text", GEMMA | dict(num_hidden_layers=7)),
    "gemma3-linear": ("Gemma3Text", GEMMA | dict(rope_parameters=dict(
        full_attention=dict(rope_type="linear", rope_theta=1e6, factor=8.0), sliding_attention=SLIDING))),
    "bert": ("Bert", dict(hidden_act="gelu", type_vocab_size=2, num_key_value_heads=None)),
}
CLASSES = {"Gemma3Text": "Gemma3ForCausalLM", "Bert": "BertModel"}


def rows(shape):
    return shape[0] if len(shape) == 1 else int(np.prod(shape[:-1]))


def number_rows(tensors):
    """Row r of tensor i holds 4 * (1024 i + r): exact in f32, and an added 1 stays visible."""
    names = sorted(tensors)
    numbered = {}
    for i, name in enumerate(names):
        shape = tensors[name].shape
        assert rows(shape) <= 1024, (name, shape)
        ids = 4 * (1024 * i + np.arange(rows(shape), dtype=np.float32))
        wide = ids if len(shape) == 1 else np.repeat(ids[:, None], shape[-1], 1).reshape(shape)
        numbered[name] = wide.astype(np.float32)
    return names, numbered


def runs(values):
    values = np.asarray(values)
    flat = values.reshape(-1, 1) if values.ndim == 1 else values.reshape(-1, values.shape[-1])
    assert (flat == flat[:, :1]).all()
    found = []
    for value in flat[:, 0].astype(int).tolist():
        added, identity = value % 4, value // 4
        name, row = divmod(identity, 1024)
        last = found[-1] if found else None
        if last and last[0] == name and last[1] + last[2] == row and last[3] == added:
            last[2] += 1
        else:
            found.append([name, row, 1, added])
    return found


def converted(folder):
    module = importlib.import_module("conversion")
    from conversion.base import ModelBase, ModelType
    module.load_all_models()
    config = json.loads((folder / "config.json").read_text())
    kind = ModelBase.from_model_architecture(config["architectures"][0], ModelType.TEXT)
    kind.set_vocab = lambda self: None
    out = folder / "out.gguf"
    with torch.inference_mode():
        kind(folder, gguf.LlamaFileType.ALL_F32, out).write()
    reader = gguf.GGUFReader(out)
    keys = {}
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or (field.name.startswith("general.") and field.name != "general.architecture"):
            continue
        keys[field.name] = [field.types[0].name.lower(), field.contents()]
    tensors, values = {}, {}
    for t in reader.tensors:
        shape = [int(n) for n in t.shape[::-1]]
        if t.name.startswith("rope_"):
            values[t.name] = np.asarray(t.data).astype(float).tolist()
        else:
            tensors[t.name] = [shape, runs(np.asarray(t.data).reshape(shape))]
    return keys, tensors, values


def loaded_by_mlx(config, numbered):
    try:
        model = importlib.import_module("mlx_lm.models." + config["model_type"])
    except ModuleNotFoundError:
        return None
    # Names of 4.x, which mlx-lm still expects of some architectures.
    config = {"rope_theta": 10000.0, "num_experts": config.get("num_local_experts")} | config
    try:
        made = model.Model(model.ModelArgs.from_dict(config))
    except Exception as why:
        sys.exit(f"mlx-lm refuses {config['model_type']}: {why}")
    weights = {k: mx.array(v) for k, v in numbered.items()}
    weights = made.sanitize(weights) if hasattr(made, "sanitize") else weights
    made.load_weights(list(weights.items()), strict=True)
    return {k: [list(v.shape), runs(np.array(v))] for k, v in sorted(weights.items())}


def case(kind, settings):
    torch.manual_seed(0)
    config = getattr(transformers, kind + "Config")(**{k: v for k, v in (SMALL | settings).items() if k != "num_key_value_heads" or v is not None})
    model = getattr(transformers, CLASSES.get(kind, kind + "ForCausalLM"))(config)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model.save_pretrained(folder)
        names, numbered = number_rows(load_file(folder / "model.safetensors"))
        save_file(numbered, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer = {"model": {"vocab": {str(i): i for i in range(SMALL["vocab_size"])}}, "added_tokens": []}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        saved = json.loads((folder / "config.json").read_text())
        keys, tensors, values = converted(folder)
        result = dict(config=saved, hf={n: list(numbered[n].shape) for n in names}, keys=keys, gguf=tensors, values=values)
        mlx = loaded_by_mlx(saved, numbered)
        return result | ({"mlx": mlx} if mlx else {})


def main():
    versions = {m.__name__: m.__version__ for m in (transformers, torch, np)}
    print(json.dumps({"versions": versions}), file=sys.stderr)
    lines = [f"{json.dumps(name)}: {json.dumps(case(*what), separators=(',', ':'))}" for name, what in CASES.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
