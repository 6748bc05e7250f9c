"""Converts every checkpoint and gives the results to the tools that define the formats.

    python compare.py WINDLASS CHECKPOINTS WORK
"""
import ctypes
import json
import pathlib
import subprocess
import sys
import zipfile

import gguf
import llama_cpp
import numpy as np
import safetensors.torch
import torch
import transformers

TOKENS = [1, 5, 17, 900, 42, 300, 7, 11, 250, 600, 3, 77]
FILE_TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S",
              "Q5_K_M", "Q6_K", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0"]
WEIGHTED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q2_K_S", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS",
            "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"]


def windlass(*arguments):
    done = subprocess.run([WINDLASS, *map(str, arguments), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return json.loads(done.stdout)


def logits_by_transformers(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0].numpy()


def logits_by_llama_cpp(path):
    model = llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=2)
    model.eval(TOKENS)
    return np.array(model.scores[: len(TOKENS)])


def tensors(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def write_imatrix(path, model):
    """A file as llama-imatrix writes it, for all matrices but the embedding, and the weights that follow from it."""
    rng = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "")
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", ["random"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    weights = {}
    for name, tensor in tensors(model).items():
        if len(tensor.shape) < 2 or name == "token_embd.weight":
            continue
        experts = int(tensor.shape[2]) if len(tensor.shape) > 2 else 1
        counts = rng.integers(1, 4000, (experts, 1)).astype(np.float32)
        if experts > 1:
            counts[0] = 0  # an expert that was never chosen
        sums = (rng.gamma(0.3, 1.0, (experts, int(tensor.shape[0]))) * counts + 1e-6).astype(np.float32)
        writer.add_tensor(name + ".in_sum2", sums)
        writer.add_tensor(name + ".counts", counts)
        weights[name] = np.where(counts > 0, sums / np.maximum(counts, 1), np.float32(1)).astype(np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def quantize_by_llama_cpp(source, target, name, weights=None):
    p = llama_cpp.llama_model_quantize_default_params()
    if weights:
        entries = (llama_cpp.llama_model_imatrix_data * (len(weights) + 1))()
        for entry, (tensor, values) in zip(entries, weights.items()):
            entry.name, entry.size = tensor.encode(), values.size
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        p.imatrix = entries
    p.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + name)
    p.nthread = 2
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), p) == 0


def check_logits(name, folder, work):
    path = work / f"{name}-f32.gguf"
    windlass("convert", folder, path, "--scheme", "f32", "--overwrite")
    ours, theirs = logits_by_llama_cpp(path), logits_by_transformers(folder)
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error < 1e-3, (name, error)
    return f"logits {error:.1e}"


def check_there_and_back(name, folder, work):
    for scheme in [None, "f32"]:
        gguf_path, back = work / f"{name}-back.gguf", work / f"{name}-back"
        flags = ["--scheme", scheme] if scheme else []
        windlass("convert", folder, gguf_path, *flags, "--overwrite")
        windlass("convert", gguf_path, back, "--overwrite")
        for file in folder.iterdir():
            assert file.read_bytes() == (back / file.name).read_bytes(), (name, scheme, file.name)
    return "there and back equal"


def check_quantizer(name, folder, work):
    source, imatrix = work / f"{name}-bf16.gguf", work / f"{name}-imatrix.gguf"
    windlass("convert", folder, source, "--scheme", "bf16", "--overwrite")
    weights = write_imatrix(imatrix, source)
    for file_type, weighted in [(t, False) for t in FILE_TYPES] + [(t, True) for t in WEIGHTED]:
        ours, theirs = work / f"{name}-ours.gguf", work / f"{name}-theirs.gguf"
        flags = ["--imatrix", imatrix] if weighted else []
        windlass("convert", folder, ours, "--scheme", file_type.lower(), *flags, "--overwrite")
        quantize_by_llama_cpp(source, theirs, file_type, weights if weighted else None)
        a, b = tensors(ours), tensors(theirs)
        case = (name, file_type, "with imatrix" if weighted else "without")
        assert a.keys() == b.keys(), (*case, a.keys() ^ b.keys())
        for key in a:
            assert a[key].tensor_type == b[key].tensor_type, (*case, key, a[key].tensor_type, b[key].tensor_type)
            assert np.array_equal(a[key].data, b[key].data), (*case, key)
    return f"{len(FILE_TYPES)} file types equal to llama-quantize, {len(WEIGHTED)} with an importance matrix"


def check_mlx(name, folder, work):
    import mlx.core as mx
    import mlx_lm
    mx.set_default_device(mx.cpu)
    path, theirs_path = work / f"{name}-mlx", work / f"{name}-mlx-theirs"
    subprocess.run(["rm", "-rf", theirs_path], check=True)
    try:
        mlx_lm.convert(str(folder), str(theirs_path), quantize=True, q_group_size=64, q_bits=4)
    except (TypeError, ValueError) as e:
        return f"mlx_lm cannot open the checkpoint itself ({str(e)[:60]})"
    windlass("convert", folder, path, "--scheme", "mlx4-g64", "--overwrite")
    ours, theirs = mx.load(str(path / "model.safetensors")), mx.load(str(theirs_path / "model.safetensors"))
    assert ours.keys() == theirs.keys(), (name, ours.keys() ^ theirs.keys())
    for key in ours:
        assert mx.array_equal(ours[key], theirs[key]), (name, key)
    logits = [np.array(mlx_lm.load(str(p))[0](mx.array([TOKENS])).astype(mx.float32)) for p in (path, theirs_path)]
    assert np.array_equal(*logits), name
    return "tensors and logits equal to mlx_lm's own conversion"


def check_pytorch_and_numpy(name, folder, work):
    torch_folder, npz, back = work / f"{name}-torch", work / f"{name}.npz", work / f"{name}-torch-back"
    original = {k: v for f in folder.glob("*.safetensors") for k, v in safetensors.torch.load_file(f).items()}
    windlass("convert", folder, torch_folder, "--to", "pytorch", "--overwrite")
    ours = torch.load(torch_folder / "pytorch_model.bin", weights_only=True, mmap=True)
    assert ours.keys() == original.keys(), (name, ours.keys() ^ original.keys())
    for key, tensor in original.items():
        assert ours[key].dtype == tensor.dtype and torch.equal(ours[key], tensor), (name, key)
    assert zipfile.ZipFile(torch_folder / "pytorch_model.bin").testzip() is None, name
    windlass("convert", folder, npz, "--overwrite")
    arrays = np.load(npz)
    for key, tensor in original.items():
        assert arrays[key].tobytes() == tensor.contiguous().view(torch.uint8).numpy().tobytes(), (name, key)
    windlass("convert", torch_folder, back, "--overwrite")
    for file in folder.iterdir():
        assert file.read_bytes() == (back / file.name).read_bytes(), (name, file.name)
    return "torch.load and numpy.load give the same bytes"


def main(checkpoints, work):
    work.mkdir(parents=True, exist_ok=True)
    failed = 0
    for folder in sorted(checkpoints.iterdir()):
        if not folder.is_dir():
            continue
        for check in [check_logits, check_there_and_back, check_quantizer, check_mlx, check_pytorch_and_numpy]:
            try:
                print(f"ok      {folder.name:10} {check(folder.name, folder, work)}", flush=True)
            except Exception as e:
                failed += 1
                print(f"FAILED  {folder.name:10} {check.__name__}: {type(e).__name__}: {str(e)[:400]}", flush=True)
    sys.exit(f"{failed} failed" if failed else 0)


if __name__ == "__main__":
    WINDLASS = sys.argv[1]
    transformers.logging.set_verbosity_error()
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    main(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
