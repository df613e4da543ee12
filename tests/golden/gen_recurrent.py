"""Tiny random Mamba2 and Granite-hybrid models as GGUF, with logits by transformers in float64 (its
Mamba2 rounds the state's inputs to float32).

usage: gen_recurrent.py OUT_DIR    writes {mamba2,mamba2_groups,granitehybrid}.gguf and .logits
                                   (layout: gen_hybrid.py)

Keys, names and shapes are those of llama.cpp's convert_hf_to_gguf.py. transformers takes the gated
norm over all inner values, mamba_ssm and llama.cpp over those of one group of heads: that is the same
with one group; for two, mamba2_groups has transformers' norm replaced.
"""
import struct
import sys

import torch
import transformers
from transformers.models.mamba2 import modeling_mamba2

from gen_hybrid import gguf

L, V = 40, 64
N, P, HEADS, INNER, KERNEL = 16, 8, 8, 64, 4


def grouped(self, hidden_states, gate=None):
    x = hidden_states * torch.nn.functional.silu(gate)
    y = x.view(*x.shape[:-1], 2, -1)
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * y.reshape(x.shape)


def randomise(model):
    torch.manual_seed(9)
    for n, p in model.named_parameters():
        if n.endswith("A_log"):
            p.data = torch.log(1 + 15 * torch.rand(p.shape))
        elif n.endswith("dt_bias"):
            p.data = torch.randn(p.shape) - 3
        elif p.dim() == 1:
            p.data = torch.randn(p.shape) * 0.3 + (0 if n.endswith("bias") else 1)
        else:
            p.data = torch.randn(p.shape) * (0.5 if "conv1d" in n else 1 if "embed" in n else p.shape[-1] ** -0.5)
    return model.double().eval()


def mamba(w, prefix, groups):
    """Tensors of one layer's mixer."""
    t = {"ssm_in.weight": w["in_proj.weight"], "ssm_conv1d.weight": w["conv1d.weight"][:, 0],
         "ssm_conv1d.bias": w["conv1d.bias"], "ssm_a": -w["A_log"].exp().reshape(-1, 1),
         "ssm_d": w["D"].reshape(-1, 1), "ssm_dt.bias": w["dt_bias"],
         "ssm_norm.weight": w["norm.weight"].reshape(groups, -1), "ssm_out.weight": w["out_proj.weight"]}
    return {prefix + n: x for n, x in t.items()}


def below(w, prefix):
    return {n[len(prefix):]: x for n, x in w.items() if n.startswith(prefix)}


def write(name, model, keys, tensors, folder):
    ids = torch.randint(0, V, (L,))
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
    gguf(f"{folder}/{name}.gguf", keys, {n: t.detach() for n, t in tensors.items()})
    with open(f"{folder}/{name}.logits", "wb") as out:
        out.write(struct.pack("<2I", L, V) + ids.numpy().astype("<i4").tobytes())
        out.write(logits.float().numpy().astype("<f4").tobytes())


def ssm_keys(arch, groups):
    return {f"{arch}.ssm.conv_kernel": KERNEL, f"{arch}.ssm.inner_size": INNER, f"{arch}.ssm.state_size": N,
            f"{arch}.ssm.time_step_rank": HEADS, f"{arch}.ssm.group_count": groups}


def mamba2_model(groups):
    config = transformers.Mamba2Config(
        vocab_size=V, hidden_size=32, num_hidden_layers=2, state_size=N, head_dim=P, num_heads=HEADS, expand=2,
        n_groups=groups, conv_kernel=KERNEL, layer_norm_epsilon=1e-5, tie_word_embeddings=groups == 1, chunk_size=16,
        residual_in_fp32=False)
    return randomise(transformers.Mamba2ForCausalLM(config))


def mamba2(folder, groups):
    kept = modeling_mamba2.MambaRMSNormGated.forward
    if groups == 2:
        modeling_mamba2.MambaRMSNormGated.forward = grouped
    model = mamba2_model(groups)
    w = dict(model.named_parameters())
    keys = {"general.architecture": "mamba2", "mamba2.context_length": 2 ** 20, "mamba2.embedding_length": 32,
            "mamba2.feed_forward_length": 0, "mamba2.attention.head_count": 0, "mamba2.block_count": 2,
            "mamba2.attention.layer_norm_rms_epsilon": 1e-5} | ssm_keys("mamba2", groups)
    tensors = {"token_embd.weight": w["backbone.embeddings.weight"], "output_norm.weight": w["backbone.norm_f.weight"]}
    if "lm_head.weight" in w:
        tensors["output.weight"] = w["lm_head.weight"]
    for i in range(2):
        tensors[f"blk.{i}.attn_norm.weight"] = w[f"backbone.layers.{i}.norm.weight"]
        tensors |= mamba(below(w, f"backbone.layers.{i}.mixer."), f"blk.{i}.", groups)
    write("mamba2" if groups == 1 else "mamba2_groups", model, keys, tensors, folder)
    modeling_mamba2.MambaRMSNormGated.forward = kept


def granite_model():
    config = transformers.GraniteMoeHybridConfig(
        vocab_size=V, hidden_size=32, intermediate_size=48, shared_intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=0, num_experts_per_tok=0,
        layer_types=["mamba", "attention", "mamba"], mamba_n_heads=HEADS, mamba_d_head=P, mamba_d_state=N,
        mamba_n_groups=1, mamba_d_conv=KERNEL, mamba_expand=2, mamba_chunk_size=16, embedding_multiplier=12.0,
        attention_multiplier=0.2, residual_multiplier=0.22, logits_scaling=6.0, position_embedding_type=None,
        rms_norm_eps=1e-5, max_position_embeddings=128, tie_word_embeddings=True, attn_implementation="eager")
    return randomise(transformers.GraniteMoeHybridForCausalLM(config))


def granite(folder):
    model = granite_model()
    w = dict(model.named_parameters())
    a = "granitehybrid"
    keys = {"general.architecture": a, f"{a}.block_count": 3, f"{a}.context_length": 2 ** 20,
            f"{a}.embedding_length": 32, f"{a}.feed_forward_length": 48, f"{a}.attention.head_count": 4,
            f"{a}.attention.head_count_kv": (0, 2, 0), f"{a}.attention.layer_norm_rms_epsilon": 1e-5,
            f"{a}.attention.scale": 0.2, f"{a}.embedding_scale": 12.0, f"{a}.residual_scale": 0.22,
            f"{a}.logit_scale": 6.0, f"{a}.rope.scaling.finetuned": False, f"{a}.rope.dimension_count": 8,
            f"{a}.rope.freq_base": 10000.0, f"{a}.expert_count": 0, f"{a}.vocab_size": V} | ssm_keys(a, 1)
    tensors = {"token_embd.weight": w["model.embed_tokens.weight"], "output_norm.weight": w["model.norm.weight"]}
    for i in range(3):
        layer = below(w, f"model.layers.{i}.")
        gate, up = layer["shared_mlp.input_linear.weight"].split(48)
        t = {"attn_norm": layer["input_layernorm.weight"], "ffn_norm": layer["post_attention_layernorm.weight"],
             "ffn_gate": gate, "ffn_up": up, "ffn_down": layer["shared_mlp.output_linear.weight"]}
        if i == 1:
            t |= {f"attn_{n}": layer[f"self_attn.{n}_proj.weight"] for n in "qkv"}
            t["attn_output"] = layer["self_attn.o_proj.weight"]
        else:
            tensors |= mamba(below(layer, "mamba."), f"blk.{i}.", 1)
        tensors |= {f"blk.{i}.{n}.weight": x for n, x in t.items()}
    write(a, model, keys, tensors, folder)


if __name__ == "__main__":
    mamba2(sys.argv[1], 1)
    mamba2(sys.argv[1], 2)
    granite(sys.argv[1])
