"""Hugging Face folders with the weights of the tiny golden models, and a tiny llama with its logits.

usage: gen_folders.py OUT_DIR    reads OUT_DIR/hybrid_*.gguf (gen_hybrid.py); writes OUT_DIR/folders/
       {hybrid_gdn,hybrid_gka,hybrid_mamba2,mamba2,granitehybrid,llama}/ and OUT_DIR/llama.logits
       (layout: gen_hybrid.py); the others' logits are those of the GGUF files of the same name

Names and config of HybridQwen3ForCausalLM as its publisher's priming writes them.
"""
import json
import os
import struct
import sys

import numpy
import torch
import transformers
from safetensors.torch import save_file

import gen_recurrent

L, V, H, G, D, C, W = 40, 64, 4, 2, 16, 32, 6


def read_gguf(path):
    """Tensors of a file that gen_hybrid.py wrote (F32 only)."""
    data = open(path, "rb").read()
    at = 24
    count, keys = struct.unpack_from("<QQ", data, 8)

    def text():
        nonlocal at
        size, = struct.unpack_from("<Q", data, at)
        at += 8 + size
        return data[at - size:at].decode()

    for _ in range(keys):
        text()
        kind, = struct.unpack_from("<I", data, at)
        at += 4
        if kind == 8:
            text()
        elif kind == 9:
            _, elements = struct.unpack_from("<IQ", data, at)
            at += 12 + elements  # u8
        else:
            at += {4: 4, 6: 4, 7: 1}[kind]
    infos = []
    for _ in range(count):
        name = text()
        dimensions, = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{dimensions}Q", data, at + 4)
        _, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * dimensions)
        at += 16 + 8 * dimensions
        infos.append((name, shape[::-1], offset))
    begin = -(-at // 32) * 32
    return {n: torch.from_numpy(numpy.frombuffer(data, "<f4", int(numpy.prod(s)), begin + o).reshape(s).copy())
            for n, s, o in infos}


def vocabulary(folder):
    """Letters, the blank, and a few merges."""
    tokens = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["\u0120"]
    merges = [["t", "h"], ["th", "e"], ["\u0120", "the"]]
    tokens += ["".join(m) for m in merges]
    json.dump({"version": "1.0", "added_tokens": [{"id": 40, "content": "<|endoftext|>", "special": True}],
               "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
               "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges}},
              open(folder + "/tokenizer.json", "w"))


def hybrid(kind, out):
    t = read_gguf(f"{out}/hybrid_{kind}.gguf")
    h = {"model.embed_tokens.weight": t["token_embd.weight"], "model.norm.weight": t["output_norm.weight"]}
    for i in range(2):
        b, p = f"blk.{i}.", f"model.layers.{i}."
        a = p + ("bmojo_f.bmojo_attn." if i else "self_attn.")
        h |= {p + "input_layernorm.weight": t[b + "attn_norm.weight"],
              p + "post_attention_layernorm.weight": t[b + "ffn_norm.weight"],
              a + "o_proj.weight": t[b + "attn_output.weight"]}
        h |= {p + f"mlp.{n}_proj.weight": t[b + f"ffn_{n}.weight"] for n in ["gate", "up", "down"]}
        h |= {a + f"{n}_proj.weight": t[b + f"attn_{n}.weight"] for n in "qkv"}
        h |= {a + f"{n}_norm.weight": t[b + f"attn_{n}_norm.weight"] for n in "qk"}
    m, s = "model.layers.1.bmojo_f." + ("mamba." if kind == "mamba2" else kind + "."), {
        n[len("blk.1.ssm_"):]: x for n, x in t.items() if n.startswith("blk.1.ssm_")}
    h |= {m + "A_log": torch.log(-s["a"].double()).float(), m + "dt_bias": s["dt"]}
    if kind == "mamba2":
        h |= {m + "in_proj.weight": torch.cat([s[n + ".weight"] for n in ["g", "v", "k", "q", "decay"]]),
              m + "conv1d.weight": torch.cat([s[f"conv_{n}.weight"] for n in "vkq"])[:, None],
              m + "conv1d.bias": torch.cat([s[f"conv_{n}.bias"] for n in "vkq"]), m + "D": s["d"],
              m + "norm.weight": s["norm.weight"], m + "out_proj.weight": s["o.weight"],
              m + "C_norm.weight": s["q_norm.weight"], m + "B_norm.weight": s["k_norm.weight"]}
    else:
        h |= {m + f"{n}_proj.weight": s[f"{n}.weight"] for n in "qkvgo"}
        h |= {m + f"{n}_conv1d.weight": s[f"conv_{n}.weight"][:, None] for n in "qkv"}
        h |= {m + "o_norm.weight": s["norm.weight"], m + "b_proj.weight": s["beta.weight"],
              m + ("gk_proj.weight" if kind == "gdn" else "a_proj.weight"): s["decay.weight"]}
        if kind == "gka":
            h |= {m + "b_proj.bias": s["beta.bias"], m + "alpha_proj.weight": s["alpha.weight"],
                  m + "alpha_proj.bias": s["alpha.bias"]}
    config = {"architectures": ["HybridQwen3ForCausalLM"], "model_type": "hybrid_qwen3", "hidden_size": C,
              "num_hidden_layers": 2, "num_attention_heads": H, "num_key_value_heads": G, "head_dim": D,
              "intermediate_size": 48, "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "vocab_size": V,
              "hidden_act": "silu", "tie_word_embeddings": True, "hybrid_override_pattern": "*-BMF",
              "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
              "bmojo_config": {"window_size": W, "tie_attn_weights": True, "ssm_mixer": kind},
              "gdn_config": {"conv_size": 4, "norm_eps": 1e-5, "kv_proj_rank": None},
              "gka_config": {"conv_size": 4, "norm_eps": 1e-6, "num_iter": 30, "ridge_strength": 0.02},
              "mamba2_config": {"use_qk_norm": True, "use_pos_emb": False}}
    folder = f"{out}/folders/hybrid_{kind}"
    os.makedirs(folder, exist_ok=True)
    json.dump(config, open(folder + "/config.json", "w"), indent=1)
    save_file({n: x.contiguous() for n, x in h.items()}, folder + "/model.safetensors")
    vocabulary(folder)


def stock(name, model, out):
    folder = f"{out}/folders/{name}"
    model.float().save_pretrained(folder)
    if os.path.exists(folder + "/generation_config.json"):
        os.remove(folder + "/generation_config.json")
    vocabulary(folder)


def llama(out):
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=C, intermediate_size=48, num_hidden_layers=2, num_attention_heads=H,
        num_key_value_heads=G, max_position_embeddings=128, rms_norm_eps=1e-6, attn_implementation="eager")
    model = gen_recurrent.randomise(transformers.LlamaForCausalLM(config))
    ids = torch.randint(0, V, (L,))
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
    with open(f"{out}/llama.logits", "wb") as file:
        file.write(struct.pack("<2I", L, V) + ids.numpy().astype("<i4").tobytes())
        file.write(logits.float().numpy().astype("<f4").tobytes())
    stock("llama", model, out)


for each in ["gdn", "gka", "mamba2"]:
    hybrid(each, sys.argv[1])
stock("mamba2", gen_recurrent.mamba2_model(1), sys.argv[1])
stock("granitehybrid", gen_recurrent.granite_model(), sys.argv[1])
llama(sys.argv[1])
