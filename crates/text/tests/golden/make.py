"""Train the small tokenizers of these tests and write what the defining libraries make of some awkward strings.

    python make.py            (needs tokenizers, sentencepiece, gguf)

For each kind: `NAME.json` is the tokenizer.json, `NAME.config.json` its tokenizer_config.json, and `NAME.golden.json` holds the ids that
the `tokenizers` library gives for every string of `strings.json`, without and with special tokens, the decoded text, and what gguf-py's
SpecialVocab reads from the two files. `llama2.spm.json` and `unigram.spm.json` are sentencepiece's own pieces, scores, types and ids.
"""
import argparse, base64, json, pathlib, tempfile

import gguf
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as spm_model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")

STRINGS = [
    "", " ", "  ", "   \n\n  \t x", "\n", "\r\n\r\n", "\t\tindented\n\t\t\tcode", "hello world", "Hello, World! It's 3:45pm; don't be late.",
    "I'll say we've HE'S they'RE it'd", "   leading and trailing   ", "a     b          c                    d",
    "The quick brown fox jumps over the lazy dog.", "1234567890 3.14159 1,000,000 2024-01-02 0x7f", "12 345 6789 ٣٤٥ ४५६ ½ ²",
    "def f(x: int) -> str:\n    return f\"{x!r}\"  # comment\n", "for (int i = 0; i < n; ++i) { a[i] += b[i]; }\n\n\n", "<div class=\"x\">&amp;</div>",
    "中文分词测试,今天天气很好。", "日本語のテキスト、カタカナとひらがな", "한국어 문장입니다. 띄어쓰기도 있어요", "مرحبا بالعالم، كيف الحال؟", "नमस्ते दुनिया, यह हिन्दी है",
    "שלום עולם", "Привет, мир! Как дела?", "Γειά σου Κόσμε", "สวัสดีชาวโลก", "Straße Größe naïve façade İstanbul", "cafe\u0301 e\u0308 n\u0303 A\u030a",
    "café ë ñ Å", "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪", "🚀🚀 ok 😶‍🌫️", "fi\ufb01 ＦＵＬＬ ｗｉｄｔｈ ™ ①", "zero\u200bwidth\u200djoin\u00a0nbsp\u3000ideographic\u2028line",
    "\u0000\u0001\u007f\u0080 control", "\U0001F9FF\U00012000\uE000\uFFFD", "▁under▁score ▁ x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "==========----------......??!!",
    "'''```\"\"\"''''", "https://example.com/a?b=c&d=%20#e", "{special}user\nHi there{special}\n{special}assistant\n", "x{special}y {special} z{special}", "almost <|im_sta <s </ [CL",
    "The the THE tHe  the\u00a0the", "mixed 中文 and русский и emoji😀inside words",
]

CORPUS = [s for s in STRINGS if "{special}" not in s] + [
    "The windlass lifts a heavy anchor with a small hand crank, and the sailors sing while they turn it round and round.",
    "In the beginning there was the word, and the word was split into tokens; the tokens were numbered, and the numbers were good.",
    "Das ist ein kurzer Satz auf Deutsch. Ceci est une phrase courte en français. Esta es una frase corta en español.",
    "import os\nimport sys\n\nclass Reader:\n    def __init__(self, path):\n        self.path = path\n\n    def read(self):\n        return open(self.path).read()\n",
    "今天天气很好,我们去公园散步。北京是中国的首都。日本の首都は東京です。", "Сегодня хорошая погода, и мы идём гулять в парк.",
    "नमस्ते, आप कैसे हैं? मैं ठीक हूँ।", "السلام عليكم ورحمة الله وبركاته", "1 + 2 = 3; 10 - 4 = 6; 7 * 8 = 56; 100 / 5 = 20",
] * 4


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def special_vocab(tokenizer_json, config, merges):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "tokenizer.json").write_text(tokenizer_json)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        v = gguf.SpecialVocab(folder, load_merges=merges)
        return {"ids": v.special_token_ids, "add": v.add_special_token, "merges": v.merges[:20]}


def finish(name, t, config, special, merges=False):
    text = json.dumps(json.loads(t.to_str()), ensure_ascii=False, separators=(",", ":"))
    (HERE / f"{name}.json").write_text(text + "\n")
    write(f"{name}.config.json", config)
    strings = [s.replace("{special}", special) for s in STRINGS]
    plain = [t.encode(s, add_special_tokens=False).ids for s in strings]
    write(f"{name}.golden.json", {
        "special": special, "plain": plain, "full": [t.encode(s).ids for s in strings], "decoded": [t.decode(p, skip_special_tokens=False) for p in plain],
        "special_vocab": special_vocab(text, config, merges)})


def byte_level(pattern, normalizer, specials, size, ignore_merges=False):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        t.normalizer = normalizer
    if pattern:
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in specials])
    return t


def qwen2():
    t = byte_level(QWEN, normalizers.NFC(), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], 420)
    t.add_tokens([AddedToken("<tool_call>", normalized=False, special=False)])
    finish("qwen2", t, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False, "chat_template": CHATML}, "<|im_start|>", True)


def llama3():
    t = byte_level(LLAMA3, None, ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], 420, True)
    bos = "<|begin_of_text|>"
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, t.token_to_id(bos))])])
    finish("llama3", t, {"bos_token": bos, "eos_token": "<|eot_id|>"}, "<|eot_id|>", True)


def gpt2():
    t = byte_level(None, None, ["<|endoftext|>"], 420)
    finish("gpt2", t, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "add_prefix_space": False}, "<|endoftext|>", True)


def train_sentencepiece(kind, size, **settings):
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "corpus").write_text("\n".join(s.replace("\0", " ") for s in CORPUS))
        spm.SentencePieceTrainer.train(input=f"{folder}/corpus", model_prefix=f"{folder}/m", model_type=kind, vocab_size=size, num_threads=1,
                                       minloglevel=2, hard_vocab_limit=False, **settings)
        proto = spm_model.ModelProto()
        proto.ParseFromString((pathlib.Path(folder) / "m.model").read_bytes())
        return proto, spm.SentencePieceProcessor(model_proto=proto.SerializeToString())


def merges_of(proto):
    """All ways to put a piece together from two others, best piece first: what transformers' converters do."""
    vocab = {p.piece: i for i, p in enumerate(proto.pieces)}
    merges = []
    for p in proto.pieces:
        local = [(p.piece[:i], p.piece[i:], p.score) for i in range(1, len(p.piece)) if p.piece[:i] in vocab and p.piece[i:] in vocab]
        merges += sorted(local, key=lambda m: (vocab[m[0]], vocab[m[1]]))
    merges.sort(key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)
    return vocab, [(a, b) for a, b, _ in merges]


def dump_sentencepiece(name, proto, processor):
    write(f"{name}.spm.json", {"tokens": [p.piece for p in proto.pieces], "scores": [p.score for p in proto.pieces], "types": [p.type for p in proto.pieces],
                               "ids": [processor.encode(s) for s in STRINGS if "{special}" not in s]})


BPE_SETTINGS = dict(byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, character_coverage=0.98,
                    allow_whitespace_only_pieces=True, split_by_unicode_script=True)


def llama2():
    proto, processor = train_sentencepiece("bpe", 560, unk_id=0, bos_id=1, eos_id=2, **BPE_SETTINGS)
    vocab, merges = merges_of(proto)
    t = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in ["<unk>", "<s>", "</s>"]])
    t.add_special_tokens([AddedToken("<|end|>", normalized=False, special=True)])
    dump_sentencepiece("llama2", proto, processor)
    finish("llama2", t, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None, "add_bos_token": True, "add_eos_token": False}, "</s>")


def gemma():
    spaces = ["▁" * n for n in range(2, 24)]
    symbols = ["<start_of_turn>", "<end_of_turn>", "\n\n"] + spaces
    proto, processor = train_sentencepiece("bpe", 600, pad_id=0, eos_id=1, bos_id=2, unk_id=3, user_defined_symbols=["<start_of_turn>", "<end_of_turn>"] + spaces,
                                           add_dummy_prefix=False, **BPE_SETTINGS)
    vocab, merges = merges_of(proto)
    t = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Replace(" ", "▁")
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    t.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)])
    names = {"<pad>": "<pad>", "</s>": "<eos>", "<s>": "<bos>", "<unk>": "<unk>"}
    text = json.loads(t.to_str())
    text["model"]["vocab"] = {names.get(k, k): v for k, v in text["model"]["vocab"].items()}
    t = Tokenizer.from_str(json.dumps(text))
    t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]])
    t.add_tokens([AddedToken(s, normalized=False, special=False) for s in spaces])
    finish("gemma", t, {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}, "<end_of_turn>")


def unigram():
    proto, processor = train_sentencepiece("unigram", 420, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.98)
    t = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=2, byte_fallback=False))
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "always")])
    t.decoder = decoders.Metaspace("▁", "always")
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in ["<pad>", "</s>", "<unk>"]])
    del charsmap  # 300 kB: the test of a character map uses a small one of its own
    finish("unigram", t, {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}, "</s>")


def bert():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [s for s in CORPUS if "▁" not in s]  # GGUF cannot tell "##▁" from the start of a word
    t.train_from_iterator(words, trainers.WordPieceTrainer(vocab_size=480, special_tokens=specials, show_progress=False))
    t.post_processor = processors.TemplateProcessing(single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
                                                     special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    finish("bert", t, {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]", "do_lower_case": True}, "[SEP]")


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    write("strings.json", STRINGS)
    for make in (qwen2, llama3, gpt2, llama2, gemma, unigram, bert):
        make()


if __name__ == "__main__":
    main()
