"""Teach the model to read spliced memory: LoRA on every linear, on the engine's own splice pattern.

    python engine/train/train_reader.py --model MODEL.gguf --examples EXAMPLES.json.gz --out DIR

Loss: cross-entropy on the answer's tokens (compose.py draws the rows), plus KL(base || adapted) on
texts that must stay as they are: haystack passages, and the base model's own replies to ordinary
prompts, with and without the fixed prefix.  AdamW, warm-up, cosine.  The base weights are fixed.
On a GPU the base is bf16 and the adapter f32; evaluation is f32 throughout.
`--seconds` ends training by the clock (the learning rate follows it); without, `--steps` does.
`--state FILE` is written every --save-every steps and taken up again when it is there.
Results in DIR: adapter.gguf, log.jsonl, table.md, results.json.
"""
import argparse
import gzip
import json
import math
import multiprocessing
import os
import random
import re
import sys
import time

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from compose import Composer
from evaluate import Reader, report
from export_gguf_lora import export, merged
from gguf_file import Gguf
from llama import Llama, Lora
from run_log import run_log
from splice import Batch, Row, pack
from tokenizer import Tokenizer
from wrapper import HEADER, PREFIX, QUESTION

CHAT_PLAIN = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
              "Face<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n" + HEADER)

composer = None     # one per worker process


def start_worker(metadata, data, prefix_len, seed, budget):
    global composer
    composer = Composer(Tokenizer(metadata), data, prefix_len, seed, budget)


def work(number):
    return composer.chunk(number)


def batches(metadata, data, prefix_len, args, first):
    """(chunk number, packed batch) without end, from chunk `first` on."""
    settings = (metadata, data, prefix_len, args.seed, args.tokens)
    if args.workers == 0:
        start_worker(*settings)
        number = first
        while True:
            for packed in work(number):
                yield number, packed
            number += 1
    context = multiprocessing.get_context("fork")
    with context.Pool(args.workers, start_worker, settings) as pool:
        waiting, number = [], first
        while True:
            while len(waiting) < 2 * args.workers:
                waiting.append((number, pool.apply_async(work, (number,))))
                number += 1
            done, result = waiting.pop(0)
            for packed in result.get():
                yield done, packed


def whole_sentences(reply):
    """The reply up to its last full sentence; "" where there is none, or where it turns in circles."""
    ends = [m.end() for m in re.finditer(r"[.!?](?=\s|$)", reply)]
    reply = reply[:ends[-1]] if ends else ""
    parts = [p for p in re.split(r"[.!?\n]\s*", reply) if p]
    return reply if len(set(parts)) == len(parts) else ""


def add_replies(model, tokenizer, data):
    """The base model's own replies to data["requests"]; those that are no text are left out."""
    reader, out = Reader(model, tokenizer), []
    for at in range(0, len(data["requests"]), 32):
        some = data["requests"][at:at + 32]
        lives = [tokenizer.pieces(CHAT_PLAIN, prompt=r["q"]) for r in some]
        batch = Batch([Row([], live) for live in lives], 0, model.device)
        for request, ids in zip(some, model.generate(batch, None, 0, 56, reader.stops)):
            reply = whole_sentences(tokenizer.decode(ids).strip())
            if reply:
                out.append({**request, "a": reply})
    data["requests"] = out


def keep_material(model, tokenizer, data, prefix_ids, args):
    """Rows whose answers must stay: [(prefix_len, packed)], drawn once, replies by the base."""
    rng = random.Random(args.seed)
    reader, rows = Reader(model, tokenizer), []
    prompts = data["prompts"][:args.keep]
    header = tokenizer.pieces(HEADER)
    with torch.no_grad():
        states = model.prefix_states(prefix_ids)
        for with_prefix in (True, False):
            half = prompts[::2] if with_prefix else prompts[1::2]
            lives = [tokenizer.pieces(QUESTION, question=p) + header if with_prefix
                     else tokenizer.pieces(CHAT_PLAIN, prompt=p) for p in half]
            base = len(prefix_ids) if with_prefix else 0
            step = 512 if model.device == "cuda" else 8
            for at in range(0, len(lives), step):
                some = lives[at:at + step]
                batch = Batch([Row([], live) for live in some], base, model.device)
                replies = model.generate(batch, states if with_prefix else None, base, 64,
                                         reader.stops)
                for live, reply in zip(some, replies):
                    rows.append((base, Row([], live + reply, 0, [0] * len(live)
                                           + [1] * len(reply))))
    start = tokenizer.pieces("<|endoftext|>")
    for text in data["passages"][:args.keep_passages]:
        ids = start + tokenizer.encode(text)[:127]
        rows.append((0, Row([], ids, 0, [0] + [1] * (len(ids) - 1))))
    out = []
    for base in (0, len(prefix_ids)):
        mine = [row for b, row in rows if b == base and len(row.live) > 1]
        rng.shuffle(mine)
        size = 32 if model.device == "cuda" else 4
        out += [(base, pack(mine[at:at + size], base)) for at in range(0, len(mine), size)]
    rng.shuffle(out)
    return out


def target_logits(model, batch, base, states):
    """Logits before every target token [N,V] and the targets [N]."""
    hidden, _ = model.run(batch.ids, batch.placed, batch.encoded, batch.mask(base), states)
    where = batch.labels[:, 1:] > 0
    return model.logits(hidden[:, :-1][where]), batch.ids[:, 1:][where]


def live_logits(model, batch, base, prefix_ids):
    """The same numbers with the gradient cut at the memories: prefix and blocks are run first,
    without a graph, and only the live tokens (a fourth of a row) are differentiated."""
    part = batch.parts(base)
    with torch.no_grad():
        states = model.prefix_states(prefix_ids)
        blocks = part["blocks"]
        _, kept = model.run(blocks["ids"], blocks["placed"], blocks["encoded"], blocks["mask"],
                            states)

    def past(i, k, v):
        return torch.cat([kept[i][0], k], 1), torch.cat([kept[i][1], v], 1)

    live = part["live"]
    hidden, _ = model.run(live["ids"], live["placed"], live["encoded"], live["mask"], states, past)
    where = live["labels"][:, 1:] > 0
    return model.logits(hidden[:, :-1][where]), live["ids"][:, 1:][where]


def keep_loss(model, packed, base, prefix_ids):
    """KL(base || adapted), mean over the kept tokens."""
    batch, lora = Batch.of(packed, model.device), model.lora
    lora.forget()
    with torch.no_grad():
        model.lora = None
        states = model.prefix_states(prefix_ids) if base else None
        want = target_logits(model, batch, base, states)[0].log_softmax(-1)
        model.lora = lora
    states = model.prefix_states(prefix_ids) if base else None
    have = target_logits(model, batch, base, states)[0].log_softmax(-1)
    return F.kl_div(have, want, reduction="none", log_target=True).sum(-1).mean()


def check_fused(model, packed, prefix_ids):
    """True when the library's attention gives the plain definition's loss and gradient."""
    results = []
    for fused in (False, True):
        model.fused = fused
        model.lora.forget()
        try:
            batch = Batch.of({k: v[:8] for k, v in packed.items()}, model.device)
            logits, targets = target_logits(model, batch, len(prefix_ids),
                                            model.prefix_states(prefix_ids))
            loss = F.cross_entropy(logits, targets)
            grad = torch.autograd.grad(loss, list(model.lora.b.values())[:8])
            results.append((loss.item(), torch.cat([g.flatten() for g in grad])))
        except RuntimeError as reason:
            print("fused attention does not run here:", str(reason).split("\n")[0])
            return False
    (loss_a, grad_a), (loss_b, grad_b) = results
    gap = abs(loss_a - loss_b), ((grad_a - grad_b).norm() / grad_a.norm()).item()
    print(f"fused against plain attention: loss differs by {gap[0]:.1e}, gradient by {gap[1]:.1e}")
    return gap[0] < 0.02 and gap[1] < 0.1


def train(model, lora, tokenizer, gguf, data, args, log):
    prefix_ids = tokenizer.pieces(PREFIX)
    model.lora = None
    keep = keep_material(model, tokenizer, data, prefix_ids, args)
    add_replies(model, tokenizer, data)
    log({"kept_batches": len(keep), "replies": len(data["requests"])})
    model.lora = lora
    optimiser = torch.optim.AdamW(lora.parameters(), lr=args.rate, betas=(0.9, 0.98),
                                  weight_decay=0.01)
    step, first, spent, seen, total, counted = 0, 0, 0.0, 0, 0.0, 0
    if args.state and os.path.exists(args.state):
        kept = torch.load(args.state, map_location=model.device, weights_only=True)
        lora.load(kept["lora"])
        optimiser.load_state_dict(kept["optimiser"])
        step, first, spent, seen = (kept[k] for k in ("step", "chunk", "spent", "seen"))
        log({"taken_up_at_step": step, "chunk": first})
    source = batches(gguf.metadata, data, len(prefix_ids), args, first)
    _, packed = next(source)
    model.fused = model.device == "cuda" and check_fused(model, packed, prefix_ids)
    started = time.time() - spent
    for chunk, packed in source:
        progress = step / args.steps
        if args.seconds:
            progress = max(progress, (time.time() - started) / args.seconds)
        if progress >= 1:
            break
        warm = min(1.0, (step + 1) / args.warmup)
        rate = args.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        lora.forget()
        batch = Batch.of(packed, model.device)
        if step % args.block_gradient == 0:
            states = model.prefix_states(prefix_ids)
            logits, targets = target_logits(model, batch, len(prefix_ids), states)
        else:
            logits, targets = live_logits(model, batch, len(prefix_ids), prefix_ids)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        kl = None
        if step % args.keep_every == 0 and keep:
            base, kept_rows = keep[step // args.keep_every % len(keep)]
            kl = keep_loss(model, kept_rows, base, prefix_ids)
            (args.keep_weight * kl).backward()
        torch.nn.utils.clip_grad_norm_(lora.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + len(packed["last"])
        total, counted = total + loss.detach(), counted + 1
        if step % args.log_every == 0:
            log({"step": step, "rows": seen, "loss": round(float(total) / counted, 4),
                 "kl": None if kl is None else round(kl.item(), 5), "rate": round(rate, 6),
                 "seconds": round(time.time() - started, 1)})
            total, counted = 0.0, 0
        if args.state and step % args.save_every == 0:
            torch.save({"lora": lora.state(), "optimiser": optimiser.state_dict(), "step": step,
                        "chunk": chunk + 1, "spent": time.time() - started, "seen": seen},
                       args.state + ".new")
            os.replace(args.state + ".new", args.state)
    log({"trained_steps": step, "rows": seen, "seconds": round(time.time() - started, 1)})
    source.close()


def evaluate(model, lora, tokenizer, gguf, data, args, log):
    """Table of the base, the adapter, and the adapter merged into re-quantised weights."""
    arms, samples = {}, []
    for name, adapter in (("base", None), ("adapter", lora)):
        model.lora = adapter
        reader = Reader(model, tokenizer)
        questions, wrong = reader.questions(data["tests"], args.limit)
        arms[name] = {"questions": questions, "held": reader.held(data["held"], args.limit),
                      "nll": reader.text_nll(data["unseen"][:args.limit]),
                      "prompts": data["chat"], "chat": reader.chat(data["chat"])}
        samples += [[name, *s] for s in wrong]
        log({"evaluated": name, "exact_right": {
            s: round(q["right"]["exact"] / q["right"]["n"], 3) for s, q in questions.items()}})
        write(arms, samples, args)
    model.lora = None
    for kind in args.merge.split(",") if args.merge else ():
        whole = merged(model, lora, kind)
        reader = Reader(whole, tokenizer)
        questions, _ = reader.questions(data["tests"], args.limit, ("right", "mixed"))
        arms[f"adapter merged, {kind}"] = {"questions": questions}
        log({"evaluated": kind, "exact_right": {
            s: round(q["right"]["exact"] / q["right"]["n"], 3) for s, q in questions.items()}})
        write(arms, samples, args)


def write(arms, samples, args):
    with open(os.path.join(args.out, "table.md"), "w", encoding="utf-8") as file:
        file.write(report(arms, "Reader adapter: with and without"))
    with open(os.path.join(args.out, "results.json"), "w", encoding="utf-8") as file:
        json.dump({"arms": arms, "wrong": samples}, file, ensure_ascii=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="GGUF file, or the folder of its parts")
    parser.add_argument("--examples", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--state", default="")
    parser.add_argument("--adapter", default="", help="start from this adapter, not from nothing")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--tokens", type=int, default=16384, help="tokens of a batch, padding too")
    parser.add_argument("--block-gradient", type=int, default=1, help="differentiate prefix and "
                        "memories at every Nth step only; 4 nearly doubles the rows a second")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=32)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--keep", type=int, default=1500, help="prompts whose replies are kept")
    parser.add_argument("--keep-passages", type=int, default=1500, help="passages that are kept")
    parser.add_argument("--keep-every", type=int, default=4)
    parser.add_argument("--keep-weight", type=float, default=1.0)
    parser.add_argument("--limit", type=int, default=400, help="test questions a set (0: no table)")
    parser.add_argument("--merge", default="q8_0,q4_1")
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="on a CPU, evaluation too: faster")
    parser.add_argument("--save-every", type=int, default=200, help="steps between --state's")
    parser.add_argument("--log-every", type=int, default=50)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    log = run_log(args.out)
    gguf = Gguf(args.model)
    tokenizer = Tokenizer(gguf.metadata)
    with gzip.open(args.examples, "rt", encoding="utf-8") as file:
        data = json.load(file)
    log({"device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
         "arguments": vars(args), "torch": torch.__version__})
    fast = torch.bfloat16 if device == "cuda" or args.bf16 else torch.float32
    model = Llama(gguf, device, fast)
    lora = Lora(model, args.rank, args.alpha, args.seed)
    if args.adapter:
        started_from = Gguf(args.adapter)
        lora.load({name: started_from.tensor(name) for name in lora.state()})
    train(model, lora, tokenizer, gguf, data, args, log)
    for parameter in lora.parameters():
        parameter.requires_grad_(False)
    lora.forget()
    size = export(lora, gguf, os.path.join(args.out, "adapter.gguf"), args.examples)
    log({"adapter_bytes": size})
    if not args.limit:
        return
    del model
    model = Llama(gguf, device, torch.bfloat16 if args.bf16 else torch.float32)
    evaluate(model, lora, tokenizer, gguf, data, args, log)
    print(open(os.path.join(args.out, "table.md"), encoding="utf-8").read())


if __name__ == "__main__":
    main()
