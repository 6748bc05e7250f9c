"""A tiny random BERT with a tokenizer, as sentence-transformers saves one, and what transformers computes with it.

    python make.py        (torch, transformers, tokenizers; writes bert/)

`states` is [tokens, hidden] for `tokens`, the ids of TEXT; `mean` and `cls` are pooled and made to have length one.
"""
import json
import pathlib

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

TEXT = "A windlass lifts heavy anchors, slowly."
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "wind", "##lass", "lift", "##s", "heavy", "anchor", "slow",
         "##ly", ",", ".", "the", "crank", "is", "small"]

folder = pathlib.Path(__file__).parent / "bert"
torch.manual_seed(0)
config = BertConfig(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                    max_position_embeddings=32, attn_implementation="eager")
model = BertModel(config, add_pooling_layer=False).eval()
with torch.no_grad():
    for parameter in model.parameters():
        scale, shift = (0.3, 0.5) if parameter.ndim == 1 else (0.15, 0.0)
        parameter.copy_(torch.randn(parameter.shape) * scale + shift)
model.save_pretrained(folder)

tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.decoder = decoders.WordPiece()
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
special = dict(unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")
PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)

names = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
modules = [dict(idx=i, name=str(i), path=path, type=f"sentence_transformers.models.{name}")
           for i, (path, name) in enumerate(names)]
(folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
(folder / "sentence_bert_config.json").write_text(json.dumps(dict(max_seq_length=24, do_lower_case=False)) + "\n")
(folder / "1_Pooling").mkdir(exist_ok=True)
modes = dict(cls_token=False, mean_tokens=True, max_tokens=False, mean_sqrt_len_tokens=False)
pooling = dict(word_embedding_dimension=64) | {f"pooling_mode_{mode}": on for mode, on in modes.items()}
(folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n")

tokens = torch.tensor([tokenizer.encode(TEXT).ids])
with torch.no_grad():
    states = model(tokens).last_hidden_state[0]
unit = torch.nn.functional.normalize
save_file({"tokens": tokens[0], "states": states.contiguous(), "mean": unit(states.mean(0), dim=0),
           "cls": unit(states[0], dim=0)}, folder / "expected.safetensors")
print(tokens.tolist(), float(states.abs().max()))
