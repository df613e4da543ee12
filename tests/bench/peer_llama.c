/* tests/bench/peer_llama.c: llama.cpp's side of `./dev bench`, through its public C API. Built by
 * eval/bench.py against a llama.cpp outside this repository; no part of any target here.
 *
 *   peer_llama MODEL THREADS FLASH(0|1) prefill|decode TOKENS DEPTH
 *
 * Same protocol as `eidetic bench --paced`: "ready" once DEPTH tokens stand in the context, then
 * for each line of input one round of TOKENS tokens, printed as one line of JSON. KV is f16; a
 * prompt is one batch of 512, as in its own llama-bench; logits of a batch's last token only.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <llama.h>

enum { BATCH = 512 };

static double wall(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double cpu(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

static void quiet(enum ggml_log_level level, const char *text, void *argument)
{
    (void)level;
    (void)text;
    (void)argument;
}

static int number(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

static void run(struct llama_context *context, int vocabulary, int count, int pass)
{
    static uint32_t seed = 1; /* any tokens will do: the time does not depend on them */
    llama_token tokens[BATCH];
    for (int done = 0; done < count; done += pass) {
        int n = count - done < pass ? count - done : pass;
        for (int i = 0; i < n; i++) {
            seed = seed * 1664525U + 1013904223U;
            tokens[i] = (llama_token)((seed >> 8) % (uint32_t)vocabulary);
        }
        if (llama_decode(context, llama_batch_get_one(tokens, n))) {
            fprintf(stderr, "peer_llama: llama_decode failed\n");
            exit(1);
        }
    }
    llama_synchronize(context);
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: peer_llama MODEL THREADS 0|1 prefill|decode TOKENS DEPTH\n");
        return 2;
    }
    int threads = number(argv[2]), tokens = number(argv[5]), depth = number(argv[6]);
    int pass = strcmp(argv[4], "prefill") == 0 ? BATCH : 1;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model *model =
        llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) {
        fprintf(stderr, "peer_llama: cannot load %s\n", argv[1]);
        return 1;
    }
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)(depth + tokens + 8);
    params.n_batch = params.n_ubatch = BATCH;
    params.n_threads = params.n_threads_batch = threads;
    params.flash_attn_type =
        number(argv[3]) ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    struct llama_context *context = llama_init_from_model(model, params);
    if (!context) {
        fprintf(stderr, "peer_llama: no context\n");
        return 1;
    }
    int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    run(context, vocabulary, depth, BATCH);
    printf("ready\n");
    fflush(stdout);
    for (int c; (c = getchar()) != EOF;) {
        if (c != '\n') {
            continue;
        }
        llama_memory_seq_rm(llama_get_memory(context), 0, depth, -1);
        double begin = wall(), begin_cpu = cpu();
        run(context, vocabulary, tokens, pass);
        printf("{\"units\": %d, \"seconds\": %.6f, \"cpu_seconds\": %.6f}\n", tokens,
               wall() - begin, cpu() - begin_cpu);
        fflush(stdout);
    }
    llama_free(context);
    llama_model_free(model);
    return 0;
}
