"""Tiny random Qwen2 and Qwen3 models as GGUF, with float64 logits by transformers.

usage: gen_architectures.py OUT_DIR    writes {qwen2,qwen3}.gguf and .logits (layout: gen_hybrid.py)

Shapes are unlike each other on purpose: Qwen2 with tied and Qwen3 with untied embeddings, heads times
head size unlike the channels in Qwen3.
"""
import struct
import sys

import torch
import transformers

from gen_hybrid import gguf

L, V = 40, 64


def write(name, model, folder):
    torch.manual_seed(5)
    c = model.config
    for p in model.parameters():
        scale = 0.3 if p.dim() == 1 else p.shape[-1] ** -0.5
        p.data = (torch.randn(p.shape) * scale + (1 if p.dim() == 1 and scale else 0)).float()
    for n, p in model.named_parameters():
        if n.endswith("bias"):
            p.data -= 1
        if "embed_tokens" in n:
            p.data *= p.shape[-1] ** 0.5
    model = model.double().eval()
    w = dict(model.named_parameters())
    tensors = {"token_embd.weight": w["model.embed_tokens.weight"], "output_norm.weight": w["model.norm.weight"]}
    if not c.tie_word_embeddings:
        tensors["output.weight"] = w["lm_head.weight"]
    parts = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
             "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
             "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    for i in range(c.num_hidden_layers):
        for ours, theirs in parts.items():
            for end in ["weight", "bias"]:
                key = f"model.layers.{i}.{theirs}.{end}"
                if key in w:
                    tensors[f"blk.{i}.{ours}.{end}"] = w[key]
    ids = torch.randint(0, V, (L,))
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
    head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    keys = {"general.architecture": name, f"{name}.block_count": c.num_hidden_layers,
            f"{name}.embedding_length": c.hidden_size, f"{name}.attention.head_count": c.num_attention_heads,
            f"{name}.attention.head_count_kv": c.num_key_value_heads, f"{name}.attention.key_length": head,
            f"{name}.feed_forward_length": c.intermediate_size, f"{name}.context_length": 128,
            f"{name}.attention.layer_norm_rms_epsilon": c.rms_norm_eps, f"{name}.rope.freq_base": 10000.0}
    gguf(f"{folder}/{name}.gguf", keys, {n: t.detach() for n, t in tensors.items()})
    with open(f"{folder}/{name}.logits", "wb") as out:
        out.write(struct.pack("<2I", L, V) + ids.numpy().astype("<i4").tobytes())
        out.write(logits.float().numpy().astype("<f4").tobytes())


common = dict(vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-6, attn_implementation="eager",
              rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
write("qwen2", transformers.Qwen2ForCausalLM(transformers.Qwen2Config(tie_word_embeddings=True, **common)), sys.argv[1])
write("qwen3", transformers.Qwen3ForCausalLM(transformers.Qwen3Config(tie_word_embeddings=False, head_dim=16, **common)),
      sys.argv[1])
