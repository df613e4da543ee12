#!/usr/bin/env python3
"""Write the first inputs of the fuzz targets: make_corpus.py FOLDER.

What is in corpus/ beside them was found by a target and is kept so that it stays mended.
"""
import json
import os
import struct
import sys
import zlib


def write(folder, name, data):
    path = os.path.join(sys.argv[1], folder)
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


# --- GGUF: a model of one layer whose vocabulary is bytes -------------------------------------------


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def key(name, value):
    if isinstance(value, str):
        return text(name) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(name) + struct.pack("<If", 6, value)
    if isinstance(value, list):
        kind = 8 if not value or isinstance(value[0], str) else 5
        head = text(name) + struct.pack("<IIQ", 9, kind, len(value))
        return head + b"".join(text(v) if kind == 8 else struct.pack("<i", v) for v in value)
    return text(name) + struct.pack("<II", 4, value)


def byte_tokens():
    shown = [b for b in range(256) if 33 <= b <= 126 or (b >= 0xA1 and b != 0xAD)]
    rest = iter(range(256, 512))
    return [chr(b if b in shown else next(rest)) for b in range(256)]


def gguf(architecture="llama", kind=0, extra=()):
    c, f, v = 32, 32, 260
    tokens = byte_tokens() + ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"]
    keys = [("general.architecture", architecture), ("block_count", 1), ("embedding_length", c),
            ("attention.head_count", 2), ("attention.head_count_kv", 1),
            ("feed_forward_length", f), ("context_length", 64),
            ("attention.layer_norm_rms_epsilon", 1e-5), ("rope.freq_base", 10000.0),
            ("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "gpt-2"),
            ("tokenizer.ggml.tokens", tokens),
            ("tokenizer.ggml.token_type", [1] * 256 + [3] * 4),
            ("tokenizer.ggml.merges", ["t h", "e r"]),
            ("tokenizer.ggml.eos_token_id", 258),
            ("tokenizer.chat_template", "{% for message in messages %}{{'<|im_start|>' + "
             "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"),
            *extra]
    keys = [(n if n.startswith(("general", "tokenizer")) else f"{architecture}.{n}", value)
            for n, value in keys]
    tensors = [("token_embd", (c, v)), ("output_norm", (c,)), ("blk.0.attn_norm", (c,)),
               ("blk.0.attn_q", (c, c)), ("blk.0.attn_k", (c, c // 2)),
               ("blk.0.attn_v", (c, c // 2)), ("blk.0.attn_output", (c, c)),
               ("blk.0.ffn_norm", (c,)), ("blk.0.ffn_gate", (c, f)), ("blk.0.ffn_up", (c, f)),
               ("blk.0.ffn_down", (f, c))]
    if architecture == "qwen3":
        tensors += [("blk.0.attn_q_norm", (c // 2,)), ("blk.0.attn_k_norm", (c // 2,))]
    if architecture == "qwen2":
        tensors += [("blk.0.attn_q.bias", (c,)), ("blk.0.attn_k.bias", (c // 2,)),
                    ("blk.0.attn_v.bias", (c // 2,))]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(key(n, value) for n, value in keys)
    data = b""
    for name, shape in tensors:
        count = 1
        for n in shape:
            count *= n
        t = kind if len(shape) == 2 else 0
        size = {0: 4 * count, 1: 2 * count, 3: count // 32 * 20, 8: count // 32 * 34}[t]
        full = name if name.endswith("bias") else name + ".weight"
        head += text(full) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", n) for n in shape) + struct.pack("<IQ", t, len(data))
        data += b"\0" * (-(-size // 32) * 32)
    return head + b"\0" * (-len(head) % 32) + data


# --- the others -----------------------------------------------------------------------------------


def safetensors(tensors, metadata=None):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, kind, shape, size in tensors:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += bytes(range(size))
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def pdf(stream, extra=b"", content=b""):
    parts = [b"<< /Type /Catalog /Pages 2 0 R >>",
             b"<< /Type /Pages /Count 1 /Kids [ 4 0 R ] >>",
             b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica " + extra + b">>",
             b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources << /Font << /F1 "
             b"3 0 R >> >> /Contents 5 0 R >>",
             b"<< /Length %d %s>>\nstream\n" % (len(stream), content) + stream + b"\nendstream"]
    out, at = b"%PDF-1.4\n", []
    for i, part in enumerate(parts):
        at.append(len(out))
        out += b"%d 0 obj\n" % (i + 1) + part + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % a for a in at)
    return out + b"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % table


def main():
    write("gguf", "llama-f16", gguf(kind=1))
    write("gguf", "qwen2-q8_0", gguf("qwen2", 8))
    write("gguf", "qwen3-f16", gguf("qwen3", 1))
    write("gguf", "none", b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    write("safetensors", "two", safetensors([("a.weight", "F32", [2, 3], 24),
                                             ("b", "BF16", [4], 8)], {"format": "pt"}))
    write("safetensors", "scalar", safetensors([("s", "I64", [], 8), ("e", "F16", [0, 7], 0)]))
    words = b"BT /F1 12 Tf 50 700 Td (A kettle holds three cups.) Tj ET"
    write("pdf", "plain", pdf(words))
    write("pdf", "deflated", pdf(zlib.compress(words), content=b"/Filter /FlateDecode "))
    write("pdf", "encoded", pdf(words, b"/Encoding << /Differences [65 /B /C] >> "))
    write("html", "page", "<!doctype html><title>Kettles</title><h1>One</h1><p>A kettle <b>holds</b> "
          "three cups.<br>And more &amp; more.<ul><li>a<li>b<ol><li>c</ol></ul><table><tr><th>x<td>y"
          "</table><pre>  kept\n as it is</pre><script>no</script><nav>no</nav>")
    write("html", "latin1", b"<meta charset=iso-8859-1><p>caf\xe9 &eacute; &#233; &#x1F600;</p>")
    write("html", "utf16", "\ufeff<h2>Zwei</h2><p>Wörter".encode("utf-16-le"))
    write("html", "xhtml", '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head>'
          "<title/></head><body><dl><dt>a</dt><dd>b</dd></dl><blockquote>q</blockquote></body></html>")
    write("jsonl", "documents", '{"id":"a","source":"s","title":"T","text":"One. Two.",'
          '"observed_at":"2025-01-02","valid_from":"2025-01-02T03:04:05Z","valid_to":null}\n\n'
          '{"id":7,"text":"\\u00e9\\ud83d\\ude00\\n# Head\\n\\nMore."}\n{"text":""}\n[1]\n{"text":3}\n')
    write("jsonl", "export", '{"text":"Hello.","kind":"user","version":1,"observed_at":1735700000,'
          '"ingested_at":"2025-01-02T03:04:05.000006Z"}\r\n{"text":"x","kind":"other"}')
    for table in range(14):
        payload = bytes([table]) + struct.pack("<QIIIIQQ", 7, 2, 1, 3, 2, 10, 13) + b"\x01" * 60
        write("record", f"table-{table:02}", payload + struct.pack("<HHI", 1, 2, 3) + b"TSeabc")
        write("record", f"short-{table:02}", bytes([table]) + struct.pack("<Q", 7))


main()
