/* tests/golden/dump_logits.c: writes the engine's full logits for the token ids of kl.json in the
 * dump format of compare_logits.py, which says how far they are from the float reference. Not built
 * by CMake; the README beside this file has the command.
 *
 *     dump_logits MODEL.gguf kl.json OUT f32|q8 [THREADS [scalar|avx2|avx512]]
 *
 * f32: f32 activations, keys and values; q8: what the program uses by default.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/bytes.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "base/thread.h"
#include "engine/core.h"
#include "engine/kernels.h"

static void stop(const char *what)
{
    fprintf(stderr, "dump_logits: %s\n", what);
    exit(1);
}

static void put32(FILE *f, size_t value)
{
    uint8_t bytes[4];
    base_put_u32(bytes, (uint32_t)value);
    if (fwrite(bytes, 1, sizeof bytes, f) != sizeof bytes) {
        stop("cannot write");
    }
}

/* Runs one sequence in an empty window and writes it. */
static void dump_sequence(core_stream *stream, json_t *ids, size_t vocabulary, FILE *f)
{
    base_error err = {0};
    size_t count = json_array_size(ids);
    int32_t *tokens = base_calloc(count, sizeof *tokens);
    float *logits = base_calloc(count * vocabulary, sizeof *logits);
    if (!count || !tokens || !logits) {
        stop("no ids, or no memory");
    }
    put32(f, count);
    for (size_t t = 0; t < count; t++) {
        tokens[t] = (int32_t)json_integer_value(json_array_get(ids, t));
        put32(f, (size_t)tokens[t]);
    }
    core_stream_clear(stream);
    if (core_run(stream, tokens, count, logits, count, &err)) {
        stop(err.text);
    }
    for (size_t i = 0; i < count * vocabulary; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        put32(f, bits);
    }
    base_free(logits);
    base_free(tokens);
}

int main(int argc, char **argv)
{
    if (argc < 5 || (strcmp(argv[4], "f32") != 0 && strcmp(argv[4], "q8") != 0)) {
        stop("usage: dump_logits MODEL.gguf kl.json OUT f32|q8 [THREADS [INSTRUCTION-SET]]");
    }
    bool exact = strcmp(argv[4], "f32") == 0;
    base_error err = {0};
    json_error_t problem;
    json_t *document = json_load_file(argv[2], 0, &problem);
    json_t *sequences = json_object_get(document, "sequences");
    core_model *model = NULL;
    core_stream *stream = NULL;
    base_pool *pool = NULL;
    base_isa isa = BASE_ISA_COUNT - 1;
    if (argc > 6 && !base_isa_parse(argv[6], &isa)) {
        stop("the instruction set is scalar, avx2 or avx512");
    }
    fprintf(stderr, "dump_logits: %s\n", base_isa_name(kernel_select(isa)));
    if (!json_is_array(sequences)) {
        stop("no sequences in the text file");
    }
    if (base_pool_create(argc > 5 ? strtoul(argv[5], NULL, 10) : 1, &pool, &err) ||
        core_model_open(argv[1], NULL, NULL, &model, &err)) {
        stop(err.text);
    }
    core_stream_options options = {.slots_max = 512,
                                   .kv_f32 = exact,
                                   .activations = exact ? KERNEL_ACT_F32 : KERNEL_ACT_Q8,
                                   .pool = pool};
    if (core_stream_open(model, &options, &stream, &err)) {
        stop(err.text);
    }
    FILE *f = fopen(argv[3], "wb");
    if (!f) {
        stop("cannot open the output");
    }
    size_t vocabulary = core_model_shape(model)->vocabulary;
    fputs("EIDLGD01", f);
    put32(f, json_array_size(sequences));
    put32(f, vocabulary);
    for (size_t i = 0; i < json_array_size(sequences); i++) {
        dump_sequence(stream, json_object_get(json_array_get(sequences, i), "ids"), vocabulary, f);
    }
    if (fclose(f)) {
        stop("cannot write");
    }
    core_stream_close(stream);
    core_model_close(model);
    base_pool_free(pool);
    json_decref(document);
    return 0;
}
