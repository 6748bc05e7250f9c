"""Embeddings of a sentence-transformers checkpoint against transformers, from its folder and as GGUF.

    python encoders.py WINDLASS MODEL WORK        (such as all-MiniLM-L6-v2: BERT, mean pooling, length one)
"""
import json
import pathlib
import subprocess
import sys

import llama_cpp
import numpy as np
import torch
import transformers

TEXTS = ["The quick brown fox jumps over the lazy dog.", "A windlass lifts a heavy anchor with a small hand crank.",
         "Käse, 錨, and 42 other things!", "x", " ".join(["many words"] * 60)]
LEAST = {"": 0.99999999, "f16": 0.99999, "q8_0": 0.998, "q4_k_m": 0.9}


def windlass(*arguments):
    done = subprocess.run([WINDLASS, *map(str, arguments), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return json.loads(done.stdout)


def main(folder, work):
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt", truncation=False)).last_hidden_state[0]
        mean = states.mean(0)
        expected.append((mean / mean.norm()).double().numpy())
    for scheme, least in LEAST.items():
        path = folder
        if scheme:
            path = work / f"{scheme}.gguf"
            windlass("convert", folder, path, "--scheme", scheme, "--overwrite")
        found = [np.array(windlass("embed", path, "-p", text)["embedding"]) for text in TEXTS]
        cosines = [float(e @ f / np.linalg.norm(e) / np.linalg.norm(f)) for e, f in zip(expected, found)]
        note = ""
        if scheme:
            theirs = llama_cpp.Llama(str(path), embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, verbose=False)
            theirs = [np.array(theirs.embed(text, normalize=True)) for text in TEXTS]
            apart = [float(e @ t / np.linalg.norm(e) / np.linalg.norm(t)) for e, t in zip(expected, theirs)]
            # The error of quantized weights is common to both; that of activations may differ a little.
            assert all(1 - c < 1.3 * (1 - t) + 1e-6 for c, t in zip(cosines, apart)), (scheme, cosines, apart)
            note = f" (llama.cpp {min(apart):.8f})"
        assert min(cosines) > least, (scheme, cosines)
        assert max(abs(np.linalg.norm(f) - 1) for f in found) < 1e-6, scheme
        print(f"ok      {scheme or 'as it is':10} cosine at least {min(cosines):.8f}{note}")


if __name__ == "__main__":
    WINDLASS = sys.argv[1]
    transformers.logging.set_verbosity_error()
    main(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
