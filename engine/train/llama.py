"""A small llama forward pass in PyTorch with the engine's splice pattern, and LoRA on every linear.

What it does: RMSNorm, rotary embedding, grouped-query attention, SwiGLU (Touvron et al. 2023) on
the weights of a GGUF file, in *its* row order (Q and K rows are stored so that the rotary pairs are
neighbours: 2i, 2i+1), with

  - a fixed prefix whose keys and values are computed once and seen by every row of the batch;
  - two positions per token: where it was *encoded* (`encoded`), which is how it sees the prefix,
    and where it is *placed* (`placed`), which is how all other tokens and it see one another.
    Rotary attention depends on differences only, so a memory block that is encoded right behind the
    prefix and then placed further on is given exactly by these two;
  - any additive mask [T, P + T]: block visibility and ln(strength);
  - batched greedy generation.

What it does not: sampling, any other architecture, quantised arithmetic.
Axis letters: B batch, T tokens, P prefix tokens, H heads, G key/value heads, D head size,
C channels.
"""
import math

import torch
import torch.nn.functional as F

LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


class Llama:
    """Weights of a GGUF llama model on one device; `lora` is None or a Lora."""

    def __init__(self, gguf, device="cpu", dtype=torch.float32):
        meta = gguf.metadata
        if meta["general.architecture"] != "llama":
            raise ValueError(f"architecture {meta['general.architecture']!r} is not llama")
        self.layers = meta["llama.block_count"]
        self.heads = meta["llama.attention.head_count"]
        self.kv_heads = meta["llama.attention.head_count_kv"]
        self.width = meta["llama.embedding_length"]
        self.head_size = meta["llama.rope.dimension_count"]
        self.theta = meta["llama.rope.freq_base"]
        self.eps = meta["llama.attention.layer_norm_rms_epsilon"]
        self.device, self.dtype = device, dtype
        self.weight = {}
        for name in gguf.tensors:
            self.weight[name] = gguf.tensor(name).to(device=device, dtype=dtype)
        self.head_weight = self.weight.get("output.weight", self.weight["token_embd.weight"])
        self.lora = None
        pair = torch.arange(0, self.head_size, 2, device=device, dtype=torch.float64)
        self.frequency = (self.theta ** (-pair / self.head_size))
        self.fused = False

    # ---- parts ----

    def rotation(self, positions):
        """cos + i sin [B,T,1,D/2] of integer positions [B,T]."""
        angle = positions.to(torch.float64)[..., None, None] * self.frequency
        return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)

    def linear(self, layer, name, x):
        full = f"blk.{layer}.{name}"
        weight = self.weight[full + ".weight"]
        if self.lora is None:
            return F.linear(x, weight)
        a, b = self.lora.pair(full, x.dtype)
        if x.dtype == torch.float32:
            return MergedLinear.apply(x, self.lora.merge(full, weight), a, b)
        return F.linear(x, weight) + F.linear(F.linear(x, a), b)

    def norm(self, name, x):
        return F.rms_norm(x, x.shape[-1:], self.weight[name + ".weight"], self.eps)

    def attend(self, q_prefix, q_placed, k_prefix, v_prefix, k, v, mask):
        """Attention with two query frames; the plain definition.

        q_prefix, q_placed [B,T,H,D]; k_prefix, v_prefix [1,P,G,D] or None; k, v [B,S,G,D];
        mask [B,1,T,P+S] additive.  Result [B,T,H*D].
        """
        batch, tokens, heads, size = q_placed.shape
        groups = k.shape[2]
        if self.fused and k_prefix is not None and tokens > 1:
            return self._attend_fused(q_prefix, q_placed, k_prefix, v_prefix, k, v, mask)

        def grouped(q):
            return q.reshape(batch, tokens, groups, heads // groups, size)

        scores = torch.einsum("btghd,bsgd->bghts", grouped(q_placed), k)
        if k_prefix is not None:
            fixed = torch.einsum("btghd,pgd->bghtp", grouped(q_prefix), k_prefix[0])
            scores = torch.cat([fixed, scores], -1)
        logits = scores.float() / math.sqrt(size) + mask[:, :, None].float()
        weights = logits.softmax(-1).to(v.dtype)
        front = weights.shape[-1] - k.shape[1]
        out = torch.einsum("bghts,bsgd->btghd", weights[..., front:], v)
        if k_prefix is not None:
            out = out + torch.einsum("bghtp,pgd->btghd", weights[..., :front], v_prefix[0])
        return out.reshape(batch, tokens, heads * size)

    def _attend_fused(self, q_prefix, q_placed, k_prefix, v_prefix, k, v, mask):
        """The same by one library call: the two frames side by side in a head of size 2D, prefix
        keys filled with zeros in the second half and the others in the first."""
        batch, tokens, heads, size = q_placed.shape
        repeat = heads // k.shape[2]

        def widen(prefix, rest):
            prefix = F.pad(prefix.expand(batch, -1, -1, -1), (0, size))
            return torch.cat([prefix, F.pad(rest, (size, 0))], 1) \
                .transpose(1, 2).repeat_interleave(repeat, 1)

        values = torch.cat([v_prefix.expand(batch, -1, -1, -1), v], 1)
        values = F.pad(values, (0, size)).transpose(1, 2).repeat_interleave(repeat, 1)
        query = torch.cat([q_prefix, q_placed], -1).transpose(1, 2)
        out = F.scaled_dot_product_attention(
            query, widen(k_prefix, k), values, scale=1 / math.sqrt(size),
            attn_mask=mask.to(query.dtype).expand(-1, heads, -1, -1))
        return out[..., :size].transpose(1, 2).reshape(batch, tokens, heads * size)

    # ---- passes ----

    def layer(self, i, x, turn_placed, turn_prefix, prefix, past, mask):
        """One block.  Returns x, rotated k and v of these tokens (before `past` is joined)."""
        batch, tokens, _ = x.shape
        h = self.norm(f"blk.{i}.attn_norm", x)
        q = self.linear(i, "attn_q", h).view(batch, tokens, self.heads, -1)
        k = self.linear(i, "attn_k", h).view(batch, tokens, self.kv_heads, -1)
        v = self.linear(i, "attn_v", h).view(batch, tokens, self.kv_heads, -1)
        k, q_placed = rotate(k, turn_placed), rotate(q, turn_placed)
        q_prefix = q_placed if turn_prefix is None else rotate(q, turn_prefix)
        keys, values = k, v
        if past is not None:
            keys, values = past(i, k, v)
        k_prefix, v_prefix = prefix[i] if prefix is not None else (None, None)
        a = self.attend(q_prefix, q_placed, k_prefix, v_prefix, keys, values, mask)
        x = x + self.linear(i, "attn_output", a)
        h = self.norm(f"blk.{i}.ffn_norm", x)
        h = F.silu(self.linear(i, "ffn_gate", h)) * self.linear(i, "ffn_up", h)
        return x + self.linear(i, "ffn_down", h), k, v

    def run(self, ids, placed, encoded, mask, prefix=None, past=None):
        """Hidden states [B,T,C] after the last norm, and [(k, v)] of each layer.

        ids, placed, encoded [B,T] int64; mask [B,1,T,P+S] additive.
        """
        x = self.weight["token_embd.weight"][ids]
        turn_placed = self.rotation(placed)
        same = encoded is placed or prefix is None
        turn_prefix = None if same else self.rotation(encoded)
        kept = []
        for i in range(self.layers):
            x, k, v = self.layer(i, x, turn_placed, turn_prefix, prefix, past, mask)
            kept.append((k, v))
        return self.norm("output_norm", x), kept

    def logits(self, hidden):
        """float32 logits [..., V]."""
        return F.linear(hidden, self.head_weight).float()

    def prefix_states(self, ids):
        """[(k, v)] of each layer, [1,P,G,D], for the fixed prefix (a list of ids)."""
        ids = torch.tensor([ids], device=self.device)
        places = torch.arange(ids.shape[1], device=self.device)[None]
        return self.run(ids, places, places, causal(ids.shape[1], self.device))[1]

    @torch.no_grad()
    def generate(self, batch, prefix, prefix_len, new_tokens, stop_ids):
        """Greedy continuation of every row of a Batch; lists of new ids, cut before a stop id."""
        rows, width = batch.ids.shape
        size = (rows, width + new_tokens, self.kv_heads, self.head_size)
        cache = [(torch.zeros(size, device=self.device, dtype=self.dtype),
                  torch.zeros(size, device=self.device, dtype=self.dtype))
                 for _ in range(self.layers)]
        hidden, kept = self.run(batch.ids, batch.placed, batch.encoded, batch.mask(prefix_len),
                                prefix)
        for (k_all, v_all), (k, v) in zip(cache, kept):
            k_all[:, :width], v_all[:, :width] = k, v
        pick = torch.arange(rows, device=self.device)
        next_id = self.logits(hidden[pick, batch.last]).argmax(-1)
        place = batch.placed[pick, batch.last]
        # what the answer sees: prefix, every visible slot with its bias, and itself
        seen = torch.full((rows, 1, 1, prefix_len + width + new_tokens), -math.inf,
                          device=self.device)
        seen[..., :prefix_len] = 0
        seen[..., prefix_len:prefix_len + width] = batch.mask(prefix_len)[
            pick, :, batch.last, prefix_len:][:, :, None]
        stops = torch.tensor(sorted(stop_ids), device=self.device)
        out, done = [next_id], torch.isin(next_id, stops)
        for step in range(new_tokens - 1):
            if bool(done.all()):
                break
            at, place = width + step, place + 1
            seen[..., prefix_len + at] = 0

            def past(i, k, v):
                cache[i][0][:, at:at + 1], cache[i][1][:, at:at + 1] = k, v
                return cache[i][0][:, :at + 1], cache[i][1][:, :at + 1]

            where = place[:, None]
            hidden, _ = self.run(next_id[:, None], where, where, seen[..., :prefix_len + at + 1],
                                 prefix, past)
            next_id = self.logits(hidden[:, 0]).argmax(-1)
            out.append(next_id)
            done |= torch.isin(next_id, stops)
        texts = torch.stack(out, 1).tolist()
        return [row[:next((j for j, t in enumerate(row) if t in stop_ids), len(row))]
                for row in texts]


class MergedLinear(torch.autograd.Function):
    """x W'^T with W' = W + B A made once a step: on a CPU the thin products cost as much as a third
    of the wide one. Only for f32: in bf16 a small B A would be lost in the sum."""

    @staticmethod
    def forward(ctx, x, merged, a, b):
        ctx.save_for_backward(x, merged, a, b)
        return F.linear(x, merged)

    @staticmethod
    def backward(ctx, grad):
        x, merged, a, b = ctx.saved_tensors
        g, flat = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_x = grad @ merged if ctx.needs_input_grad[0] else None
        return grad_x, None, (g @ b).T @ flat, g.T @ (flat @ a.T)


class Lora:
    """Low-rank additions to every linear of a model (Hu et al. 2021): W + alpha/rank B A."""

    def __init__(self, model, rank, alpha, seed):
        generator = torch.Generator().manual_seed(seed)
        self.scale, self.rank, self.alpha = alpha / rank, rank, alpha
        self.a, self.b = {}, {}
        for i in range(model.layers):
            for name in LINEARS:
                full = f"blk.{i}.{name}"
                rows, columns = model.weight[full + ".weight"].shape
                a = torch.randn(rank, columns, generator=generator) / math.sqrt(columns)
                self.a[full] = a.to(model.device).requires_grad_()
                self.b[full] = torch.zeros(rows, rank, device=model.device).requires_grad_()
        self.cast, self.sums = {}, {}

    def parameters(self):
        return list(self.a.values()) + list(self.b.values())

    def pair(self, name, dtype):
        """A and alpha/rank B in the dtype of the pass; kept until `forget`."""
        key = (name, dtype)
        if key not in self.cast:
            with torch.enable_grad():       # the first to ask may be a pass without a graph
                self.cast[key] = (self.a[name].to(dtype), (self.b[name] * self.scale).to(dtype))
        return self.cast[key]

    def merge(self, name, weight):
        """weight + alpha/rank B A, without a graph; kept until `forget`."""
        if name not in self.sums:
            with torch.no_grad():
                a, b = self.pair(name, weight.dtype)
                self.sums[name] = torch.addmm(weight, b, a)
        return self.sums[name]

    def forget(self):
        """The weights changed, or a graph was used up."""
        self.cast, self.sums = {}, {}

    def state(self):
        """name.lora_a / name.lora_b -> tensor, the names of the GGUF adapter."""
        tensors = {}
        for name in self.a:
            tensors[name + ".weight.lora_a"] = self.a[name]
            tensors[name + ".weight.lora_b"] = self.b[name]
        return tensors

    def load(self, tensors):
        with torch.no_grad():
            for name, value in self.state().items():
                value.copy_(tensors[name])


def rotate(x, turn):
    """Rotary embedding of x [B,T,H,D] on neighbouring pairs; turn [B,T,1,D/2] complex."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


def causal(tokens, device):
    """Additive mask [1,1,T,T]."""
    full = torch.full((tokens, tokens), -math.inf, device=device)
    return full.triu(1)[None, None]
