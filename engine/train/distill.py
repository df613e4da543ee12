"""Stage 1: teach the mixers of a hybrid to stand in for what its window no longer sees.

    python engine/train/distill.py --model MODEL.gguf --out DIR

The base is frozen; only mixers and gates are trained, primed as `eidetic prime` does (hybrid.py says
where that differs), on documents of the tuning halves. The teacher is the same model with full
attention, run once for every text and kept in DIR/texts. Two phases:

  layers   every fading layer alone, on the teacher's input: squared error of what attention adds to
           the stream, as a share of the error that a window of 2W makes there;
  stream   the whole hybrid against the teacher's final hidden states: their relative squared error,
           and the KL divergence of the predictions that follow from them, at drawn positions.

AdamW, warm-up, cosine. The same command goes on from DIR/state.pt. Results in DIR: core.gguf (the
adapter), core.zero.gguf (the same with the mixers set to 0), log.jsonl.
"""
import argparse
import math
import os
import random
import sys
import time

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "eval")]
from export_gguf_lora import export_core
from gguf_file import Gguf
from hybrid import Hybrid, Mixers
from run_log import run_log
from split import half
from tokenizer import Tokenizer

SETS = ("haystack", "timeqa", "peps")
CHARACTERS = 8          # of a token, at most: less text need not be tokenised


def long_texts(tokenizer, side, low, high, count, seed, characters=0):
    """`count` lists of `low` to `high` ids, each the beginning of a document of at least so many
    characters, sets in turn."""
    rng, sources = random.Random(seed), []
    for name in SETS:
        documents = [d for d in half(name, side)[0] if len(d["text"]) >= characters]
        documents.sort(key=lambda d: d["id"])
        rng.shuffle(documents)
        sources.append(iter(documents))
    out = []
    while sources and len(out) < count:
        source = sources.pop(0)
        for document in source:
            ids = tokenizer.encode(document["text"][:CHARACTERS * high])[:high]
            if len(ids) >= low:
                out.append(ids)
                sources.append(source)
                break
    return out


def added(model, layer, attended):
    """What attention adds to the stream, beyond W, in f32."""
    return model.linear(layer, "attn_output", attended[model.window:]).float()


@torch.no_grad()
def teach_layers(model, layers, ids):
    """What the teacher says of a text in each of `layers`: its normed input [T,C], what its
    attention adds [T-W,C], and the squared error of a window of 2W there."""
    model.mixers = None
    x, kept = model.embed(ids), {}
    for i in range(max(layers) + 1):
        model.full_layers = range(model.layers)
        if i in layers:
            u = model.norm(f"blk.{i}.attn_norm", x)
            want = added(model, i, model.attention(i, u))
            model.full_layers = ()
            error = (added(model, i, model.attention(i, u)) - want).square().sum()
            model.full_layers = range(model.layers)
            kept |= {f"input.{i}": u, f"added.{i}": want.to(u.dtype), f"error.{i}": error}
        x = model.block(i, x)
    return kept


@torch.no_grad()
def teach_stream(model, layers, ids):
    """The teacher's final hidden states [T-W,C], and the stream of a window of 2W before the first
    fading layer [T,C]."""
    model.mixers, model.full_layers = None, range(model.layers)
    hidden = model.final(model.stream(model.embed(ids)))[model.window:]
    model.full_layers = ()
    return {"hidden": hidden, "before": model.stream(model.embed(ids), 0, min(layers))}


def layer_losses(model, mixers, kept):
    """Of each fading layer, the share that is left of the error of a window of 2W."""
    model.mixers, model.full_layers = mixers, ()
    for i in mixers.layers:
        error = added(model, i, model.attention(i, kept[f"input.{i}"])) - kept[f"added.{i}"].float()
        yield error.square().sum() / kept[f"error.{i}"].clamp_min(1e-6)


def stream_loss(model, mixers, kept, positions, generator):
    """(relative squared error of the final hidden states, KL at drawn positions), beyond W."""
    model.mixers, model.full_layers = mixers, ()
    hidden = model.final(model.stream(kept["before"], min(mixers.layers)))[model.window:]
    want = kept["hidden"]
    error = (hidden - want).float().square().sum() / want.float().square().sum()
    drawn = torch.randperm(len(want), generator=generator)[:positions].to(want.device)
    with torch.no_grad():
        target = model.logits(want[drawn]).log_softmax(-1)
    said = model.logits(hidden[drawn]).log_softmax(-1)
    return error, F.kl_div(said, target, reduction="none", log_target=True).sum(-1).mean()


class Training:
    """Model, mixers, optimiser and where the training stands; `save` and `resume`."""

    def __init__(self, model, mixers, args, log):
        self.model, self.mixers, self.args, self.log = model, mixers, args, log
        matrices = [p for _, n, p in mixers.names() if ".lora_" in n or p.dim() > 1]
        vectors = [p for _, n, p in mixers.names() if not (".lora_" in n or p.dim() > 1)]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices, "times": 1.0}, {"params": vectors, "times": args.vector_rate}],
            lr=args.rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.step = 0
        self.path = os.path.join(args.out, "state.pt")

    def resume(self):
        if os.path.exists(self.path):
            state = torch.load(self.path, map_location=self.model.device, weights_only=True)
            self.mixers.load_state_dict(state["mixers"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
            self.log({"taken_up_at_step": self.step})

    def save(self):
        torch.save({"mixers": self.mixers.state_dict(), "optimiser": self.optimiser.state_dict(),
                    "step": self.step}, self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def update(self, begin, end, rate):
        """One step of the optimiser in the phase of steps [begin, end)."""
        progress = (self.step - begin) / (end - begin)
        warm = min(1.0, (self.step - begin + 1) / self.args.warmup)
        rate *= warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["times"]
        torch.nn.utils.clip_grad_norm_(self.mixers.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1

    def run(self, load, count):
        """All steps that are left; load(teach, i): what `teach` gave for text i of `count`."""
        args, started = self.args, time.time()
        all_steps = args.layer_steps + args.steps
        while self.step < all_steps:
            at = self.step
            if at == args.layer_steps:
                self.optimiser.state.clear()        # moments of another loss
            order = random.Random(f"{args.seed}.{at // count}").sample(range(count), count)
            kept = load(teach_layers if at < args.layer_steps else teach_stream, order[at % count])
            if at < args.layer_steps:
                losses = []
                for loss in layer_losses(self.model, self.mixers, kept):
                    (loss / len(self.mixers.layers)).backward()
                    losses.append(round(loss.item(), 4))
                record = {"layers": losses, "mean": round(sum(losses) / len(losses), 4)}
                self.update(0, args.layer_steps, args.rate)
            else:
                generator = torch.Generator().manual_seed(args.seed + at)
                error, kl = stream_loss(self.model, self.mixers, kept, args.positions, generator)
                (error + kl).backward()
                record = {"error": round(error.item(), 5), "kl": round(kl.item(), 5)}
                self.update(args.layer_steps, all_steps, args.rate * args.stream_rate)
            if self.step % args.log_every == 0:
                self.log({"step": self.step, **record, "seconds": round(time.time() - started, 1)})
            if self.step % args.save_every == 0 or self.step == all_steps:
                self.save()


def compare(model, mixers, texts):
    """Mean NLL beyond 2W of full attention, a window of 2W, and the hybrid."""
    rows = {}
    for name, full, some in (("full", range(model.layers), None), ("window_2w", (), None),
                             ("hybrid", (), mixers)):
        model.full_layers, model.mixers = full, some
        beyond = [model.nll(ids)[2 * model.window - 1:] for ids in texts]
        rows[name] = round(torch.cat(beyond).mean().item(), 4)
    model.full_layers = ()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=1280, help="of a text; a multiple of W")
    parser.add_argument("--texts", type=int, default=96, help="texts that the teacher reads")
    parser.add_argument("--layers", default="3,4,5,6,7,8,9,10")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--vector-rate", type=float, default=5, help="times --rate, for vectors")
    parser.add_argument("--stream-rate", type=float, default=1.5, help="times --rate, phase stream")
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--layer-steps", type=int, default=50)
    parser.add_argument("--steps", type=int, default=2000, help="of the phase stream")
    parser.add_argument("--positions", type=int, default=256, help="of a text whose KL is taken")
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--check", type=int, default=4, help="further texts for NLL at both ends")
    parser.add_argument("--bf16", action="store_true", help="on a CPU; a GPU always does")
    parser.add_argument("--save-every", type=int, default=25)
    parser.add_argument("--log-every", type=int, default=5)
    args = parser.parse_args()
    os.makedirs(os.path.join(args.out, "texts"), exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    log = run_log(args.out)
    log({"device": device, "arguments": vars(args), "torch": torch.__version__})
    gguf = Gguf(args.model)
    layers = [int(i) for i in args.layers.split(",")]
    fast = torch.bfloat16 if device == "cuda" or args.bf16 else torch.float32
    model = Hybrid(gguf, device, fast, args.window)
    mixers = Mixers(model, layers, args.rank, args.window, args.seed).to(device)
    texts = [torch.tensor(ids, device=device) for ids in long_texts(
        Tokenizer(gguf.metadata), "tune", args.tokens, args.tokens, args.texts + args.check,
        args.seed, 3 * args.tokens + 1)]
    count = len(texts) - args.check
    log({"texts": count, "parameters": sum(p.numel() for p in mixers.parameters())})

    def load(teach, i):
        path = os.path.join(args.out, "texts", f"{i}.{teach.__name__}.pt")
        if not os.path.exists(path):
            torch.save(teach(model, layers, texts[i]), path + ".new")
            os.replace(path + ".new", path)
        return torch.load(path, map_location=device, weights_only=True)

    training = Training(model, mixers, args, log)
    training.resume()
    training.run(load, count)
    log({"nll_beyond_2w": compare(model, mixers, texts[count:]), "texts": args.check})
    for name, zero in (("core.gguf", False), ("core.zero.gguf", True)):
        size = export_core(mixers, gguf, args.window, os.path.join(args.out, name), zero)
        log({"adapter": name, "bytes": size})


if __name__ == "__main__":
    main()
