"""Checks of the training code itself; run it after changing anything here.

    python engine/train/check.py MODEL.gguf

  1. logits and tokens against `transformers` on the dequantised weights (when it is installed);
  2. the one-pass splice equals the engine's order of work, done step by step: each block run
     behind the prefix alone, its unrotated keys kept, rotated to their place, the live part run;
  3. the fused attention equals the plain definition;
  4. greedy generation with cache equals running everything again for each token.
"""
import os
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gguf_file import Gguf
from llama import Llama, rotate, causal
from splice import Batch, Block, Row
from tokenizer import Tokenizer

TEXT = ("The café's 3 menus (2023-05-01) don't list naïve 東京 dishes 🙂; see PEP 3107.\n\n"
        "    def f(x):\n\treturn x  ** 2\n")


def against_transformers(path, model, tokenizer):
    """The other side reads the file with the `gguf` package and runs the rotary halves apart."""
    try:
        import gguf
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    except ImportError as missing:
        print(f"{missing}: comparison NOT run")
        return
    folder, name = os.path.split(path)
    ids = tokenizer.encode(TEXT)
    theirs = AutoTokenizer.from_pretrained(folder, gguf_file=name)(TEXT, add_special_tokens=False)
    print("tokenizer equals transformers:", ids == theirs["input_ids"], f"({len(ids)} tokens)")
    other = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer.tokens), hidden_size=model.width, num_hidden_layers=model.layers,
        intermediate_size=model.weight["blk.0.ffn_up.weight"].shape[0],
        num_attention_heads=model.heads, num_key_value_heads=model.kv_heads,
        rms_norm_eps=model.eps, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": model.theta})).eval()
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm",
             "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
             "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    state = {}
    for tensor in gguf.GGUFReader(path).tensors:
        value = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        part = tensor.name.removesuffix(".weight").split(".")
        if part[-1] in ("attn_q", "attn_k"):
            heads = model.heads if part[-1] == "attn_q" else model.kv_heads
            value = value.view(heads, -1, 2, value.shape[1]).transpose(1, 2).reshape(value.shape)
        where = names[part[-1]]
        where = f"model.layers.{part[1]}.{where}" if part[0] == "blk" else where
        state[where + ".weight"] = value
    missing = other.load_state_dict(state, strict=False)
    assert missing.missing_keys in ([], ["lm_head.weight"]) and not missing.unexpected_keys
    other.tie_weights()
    batch = torch.tensor([[1] + ids])
    places = torch.arange(batch.shape[1])[None]
    hidden, _ = model.run(batch, places, places, causal(batch.shape[1], "cpu"))
    gap = (model.logits(hidden) - other(batch).logits).abs().max().item()
    print(f"logits against transformers: max abs difference {gap:.2e}")
    assert gap < 1e-3 and ids == theirs["input_ids"]


def by_steps(model, row, prefix_ids):
    """Logits of the live part, every block run on its own; layout B or S."""
    n = len(prefix_ids)
    prefix = model.prefix_states(prefix_ids)
    keys = []
    place = n + row.split
    for block in row.blocks:
        raw = []
        ids = torch.tensor([block.ids])
        size = len(block.ids)
        where = torch.arange(n, n + size)[None]
        mask = torch.cat([torch.zeros(1, 1, size, n), causal(size, "cpu")], -1)
        _, kept = model.run(ids, where, where, mask, prefix)
        undo = model.rotation(-where)
        put = model.rotation(torch.arange(place, place + size)[None])
        for k, v in kept:
            raw.append((rotate(rotate(k, undo), put), v))
        keys.append(raw)
        place += size

    def live(ids, start, past_keys, bias):
        where = torch.arange(start, start + len(ids))[None]
        seen = past_keys[0][0].shape[1]
        mask = torch.cat([bias, torch.zeros(seen - len(bias))]).expand(1, 1, len(ids), -1)
        mask = torch.cat([mask, causal(len(ids), "cpu")], -1)
        return model.run(torch.tensor([ids]), where, where, mask, past_keys)

    def joined(*parts):
        return [tuple(torch.cat([p[i][j] for p in parts], 1) for j in (0, 1))
                for i in range(model.layers)]

    bias = torch.cat([torch.full((len(b.ids),), b.strength).log() for b in row.blocks])
    if row.split == 0:
        past = joined(prefix, *keys)
        hidden, _ = live(row.live, place, past, torch.cat([torch.zeros(n), bias]))
        return model.logits(hidden)
    before, kept = live(row.live[:row.split], n, prefix, torch.zeros(n))
    past = joined(prefix, kept, *keys)
    after, _ = live(row.live[row.split:], place, past,
                    torch.cat([torch.zeros(n + row.split), bias]))
    return model.logits(torch.cat([before, after], 1))


@torch.no_grad()
def main(path):
    gguf = Gguf(path)
    model, tokenizer = Llama(gguf), Tokenizer(gguf.metadata)
    against_transformers(path, model, tokenizer)
    prefix = tokenizer.pieces("<|im_start|>system\nAnswer from the notes.<|im_end|>\n")
    texts = ["Tarn 4.2.7 is out.", "Ines Halloran designed the bridge in 1931.", "Oak is a tree."]
    blocks = [Block(tokenizer.pieces("<|im_start|>user\nNote: {t}<|im_end|>\n", t=t), s)
              for t, s in zip(texts, (0.1, 1.0, 0.5))]
    user = tokenizer.pieces("<|im_start|>user\nWho designed the bridge?<|im_end|>\n")
    header = tokenizer.pieces("<|im_start|>assistant\n")
    rows = [Row(blocks, user + header),
            Row([Block(b.ids, b.strength, len(user)) for b in blocks], user + header,
                split=len(user)),
            Row(blocks[1:2], user + header), Row([], user + header)]
    states = model.prefix_states(prefix)
    batch = Batch(rows, len(prefix), "cpu")
    for fused in (False, True):
        model.fused = fused
        hidden, _ = model.run(batch.ids, batch.placed, batch.encoded, batch.mask(len(prefix)),
                              states)
        logits = model.logits(hidden)
        for name, r in (("layout B", 0), ("layout S", 1)):
            start = sum(len(b.ids) for b in rows[r].blocks)
            model.fused = False
            want = by_steps(model, rows[r], prefix)[0]
            gap = (logits[r, start:start + len(want)] - want).abs().max().item()
            print(f"{name}, one pass ({'fused' if fused else 'plain'}) against steps: {gap:.2e}")
            assert gap < 1e-3
            model.fused = fused
    model.fused = False
    out = model.generate(batch, states, len(prefix), 8, {2})
    for row, ids in zip(rows, out):
        again = []
        while len(again) < 8 and (not again or again[-1] != 2):
            more = Batch([Row(row.blocks, row.live + again, row.split)], len(prefix), "cpu")
            hidden, _ = model.run(more.ids, more.placed, more.encoded, more.mask(len(prefix)),
                                  states)
            again.append(int(model.logits(hidden[0, more.last[0]]).argmax()))
        again = again[:-1] if again[-1] == 2 else again
        assert again == ids, (again, ids)
        print("generation equals running again:", repr(tokenizer.decode(ids)))


if __name__ == "__main__":
    main(sys.argv[1])
