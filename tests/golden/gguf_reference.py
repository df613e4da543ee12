#!/usr/bin/env python3
"""Turn a llama-architecture GGUF into a float `transformers` model and a `tokenizers` tokenizer.

This is the independent reference of the golden files: the weights are dequantised exactly as
the GGUF block formats say (package `gguf`), the forward pass is `transformers`' own.

    python gguf_reference.py MODEL.gguf OUTPUT_FOLDER

writes config.json, model.safetensors (float32), tokenizer.json, tokenizer_config.json.

llama.cpp stores attn_q and attn_k with the rows of each head reordered (pairs i, i + D/2 of the
original become neighbours 2i, 2i + 1); `unpermute` reverses that.
"""
import hashlib
import json
import sys

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

# Published pre-tokenizer patterns: gpt-2 from openai/gpt-2 `encoder.py`; llama-bpe and qwen2 from
# the `tokenizer.json` of Llama 3 and Qwen2; smollm is "every digit alone, then gpt-2".
GPT2 = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def splitters(name):
    """The pre-tokenizer called `name` in GGUF, as a list of `tokenizers` splitting steps."""
    def isolated(pattern):
        return pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return {
        "smollm": [pre_tokenizers.Digits(individual_digits=True), isolated(GPT2)],
        "gpt-2": [isolated(GPT2)],
        "llama-bpe": [isolated(LLAMA3)],
        "qwen2": [isolated(QWEN2)],
    }[name]


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def field(reader, key, default=None):
    return reader.fields[key].contents() if key in reader.fields else default


def load_tokenizer(reader):
    """Byte-level BPE from the GGUF's own vocabulary and merges; special tokens are never parsed."""
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in field(reader, "tokenizer.ggml.merges")]
    name = field(reader, "tokenizer.ggml.pre")
    vocab = {t: i for i, t in enumerate(tokens)}
    # Llama 3 keeps words that are in the vocabulary whole even where no chain of merges makes them.
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=(name == "llama-bpe")))
    steps = splitters(name) + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unpermute(weight, heads):
    rows, columns = weight.shape
    return (
        weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def load_model(reader, dtype=torch.float32):
    """`transformers` model on the dequantised weights; `reader` is a GGUFReader."""
    def meta(name, default=None):
        return field(reader, "llama." + name, default)

    assert field(reader, "general.architecture") == "llama"
    heads, kv_heads = meta("attention.head_count"), meta("attention.head_count_kv")
    weights = {
        t.name: np.asarray(dequantize(t.data, t.tensor_type), dtype=np.float32).reshape(
            tuple(int(n) for n in reversed(t.shape))
        )
        for t in reader.tensors
    }
    embeddings = weights["token_embd.weight"]
    config = LlamaConfig(
        vocab_size=embeddings.shape[0],
        hidden_size=meta("embedding_length"),
        intermediate_size=meta("feed_forward_length"),
        num_hidden_layers=meta("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=meta("context_length"),
        rms_norm_eps=meta("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": meta("rope.freq_base")},
        tie_word_embeddings="output.weight" not in weights,
        bos_token_id=field(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=field(reader, "tokenizer.ggml.eos_token_id"),
        pad_token_id=field(reader, "tokenizer.ggml.padding_token_id"),
        attention_bias=False,
        mlp_bias=False,
    )
    names = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }
    state = {}
    for name, w in weights.items():
        parts = name.split(".")
        if parts[0] == "blk":
            if parts[2] in ("attn_q", "attn_k"):
                w = unpermute(w, heads if parts[2] == "attn_q" else kv_heads)
            key = f"model.layers.{parts[1]}.{names[parts[2]]}.weight"
        else:
            key = {"token_embd": "model.embed_tokens", "output_norm": "model.norm",
                   "output": "lm_head"}[parts[0]] + ".weight"
        state[key] = torch.from_numpy(np.array(w)).to(dtype)
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config).to(dtype)
    model.load_state_dict(state, strict=True)
    return model.eval()


@torch.no_grad()
def reference_logits(model, ids):
    """Logits [T, V] of the float reference for one sequence of token ids."""
    return model(torch.tensor([ids], dtype=torch.long), use_cache=False).logits[0]


def main():
    path, out = sys.argv[1:3]
    reader = GGUFReader(path)
    load_model(reader).save_pretrained(out)
    load_tokenizer(reader).save(f"{out}/tokenizer.json")
    tokens = field(reader, "tokenizer.ggml.tokens")
    with open(f"{out}/tokenizer_config.json", "w") as f:
        json.dump({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": field(reader, "tokenizer.chat_template"),
            "bos_token": tokens[field(reader, "tokenizer.ggml.bos_token_id")],
            "eos_token": tokens[field(reader, "tokenizer.ggml.eos_token_id")],
        }, f, indent=1)
    print(f"{out}: from {path} sha256 {sha256(path)}")


if __name__ == "__main__":
    main()
