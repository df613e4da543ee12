"""llama.cpp through its C API (ctypes bindings of `llama-cpp-python`): ids and logits.

LLAMA_CPP_LIB_PATH names the folder of libllama.so when it is not the one inside the package.
Defaults of `llama_context_default_params` are kept (f16 keys and values, flash attention "auto"),
except for the context size, batch size and thread counts given here.
"""
import ctypes

import llama_cpp
import numpy as np


@llama_cpp.llama_log_callback
def _quiet(level, text, data):
    pass


llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))


class Llama:
    def __init__(self, path, threads=1, context=512, vocab_only=False, **settings):
        """`settings` are fields of llama_context_params (`type_k=0` asks for f32 keys)."""
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = vocab_only
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.context = None
        if not vocab_only:
            params = llama_cpp.llama_context_default_params()
            params.n_ctx = params.n_batch = params.n_ubatch = context
            params.n_threads = params.n_threads_batch = threads
            for name, value in settings.items():
                setattr(params, name, value)
            self.context = llama_cpp.llama_init_from_model(self.model, params)

    def tokenize(self, data, special=False):
        """Token ids of bytes; no begin token is added; special tokens parsed only if asked."""
        room = len(data) + 8
        out = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), out, room, False, special)
        assert count >= 0
        return list(out[:count])

    def reset(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def feed(self, ids, start, all_positions):
        """Runs `ids` as one batch at positions start...; returns logits [T, V] or [1, V]."""
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i] = token
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1 if all_positions or i + 1 == len(ids) else 0
        status = llama_cpp.llama_decode(self.context, batch)
        assert status == 0, status
        rows = range(len(ids)) if all_positions else [len(ids) - 1]
        logits = np.stack([
            np.ctypeslib.as_array(
                llama_cpp.llama_get_logits_ith(self.context, i), shape=(self.n_vocab,)
            ).copy()
            for i in rows
        ])
        llama_cpp.llama_batch_free(batch)
        return logits

    def greedy(self, ids, count):
        """Prompt in one batch, then one token at a time; nothing is suppressed, nothing stops it.

        Returns the tokens and, for each, how far its logit lies above the second one.
        """
        self.reset()
        out, gaps = [], []
        logits = self.feed(ids, 0, False)
        while True:
            out.append(int(logits[0].argmax()))
            second, first = np.partition(logits[0], -2)[-2:]
            gaps.append(round(float(first - second), 4))
            if len(out) == count:
                return out, gaps
            logits = self.feed(out[-1:], len(ids) + len(out) - 1, False)
