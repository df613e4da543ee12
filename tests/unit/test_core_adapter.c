/* LoRA adapters: merged weights against the sum made by hand, and every kind of adapter that
 * belongs to something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/core.h"
#include "engine/model.h"
#include "tests/unit/tiny_model.h"

enum { RANK = 4, L = 24 };
static const float ALPHA = 6;

/* One adapted matrix; a_rank and b_rank differ in a broken file only. */
typedef struct part {
    const char *name;
    size_t rows, columns, a_rank, b_rank;
    float *a, *b; /* [a_rank, columns], [rows, b_rank] */
} part;

typedef struct lora {
    const char *type, *architecture, *base_tensors, *base_type;
    part parts[3];
    size_t count;
    char path[64];
} lora;

/* ffn_down has 48 columns, no multiple of 32: it is merged as F32. */
static lora make_lora(base_rng *rng)
{
    lora l = {.type = "adapter",
              .architecture = "llama",
              .parts = {{"blk.0.ffn_up.weight", TINY_F, TINY_C, RANK, RANK, NULL, NULL},
                        {"blk.1.attn_k.weight", TINY_G * TINY_D, TINY_C, RANK, RANK, NULL, NULL},
                        {"blk.1.ffn_down.weight", TINY_C, TINY_F, RANK, RANK, NULL, NULL}},
              .count = 3};
    for (size_t i = 0; i < l.count; i++) {
        part *p = &l.parts[i];
        p->a = base_calloc(2 * RANK * p->columns, sizeof(float));
        p->b = base_calloc(2 * RANK * p->rows, sizeof(float));
        for (size_t k = 0; k < 2 * RANK * p->columns; k++) {
            p->a[k] = (float)base_rng_normal(rng) / 6;
        }
        for (size_t k = 0; k < 2 * RANK * p->rows; k++) {
            p->b[k] = (float)base_rng_normal(rng) / 6;
        }
    }
    return l;
}

static void put_tensor(make_gguf *g, const char *name, const char *suffix, size_t rows,
                       size_t columns, uint64_t *offset)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", name, suffix);
    make_text(g, full);
    make_u32(g, 2);
    make_u64(g, columns);
    make_u64(g, rows);
    make_u32(g, 0); /* F32 */
    make_u64(g, *offset);
    *offset += (rows * columns * sizeof(float) + 31) / 32 * 32;
}

static void write_lora(lora *l)
{
    make_gguf g = {0};
    uint64_t offset = 0;
    make_header(&g, 3, 2 * l->count, 6);
    make_key_text(&g, "general.type", l->type);
    make_key_text(&g, "general.architecture", l->architecture);
    make_key_text(&g, "general.base_model.0.name", "Tiny");
    make_key_text(&g, "adapter.type", "lora");
    make_key(&g, "adapter.lora.alpha", MAKE_F32);
    make_f32(&g, ALPHA);
    if (l->base_tensors) {
        make_key_text(&g, "eidetic.base_tensors", l->base_tensors);
    } else {
        make_key_text(&g, "general.license", "none");
    }
    if (l->base_type) {
        g.data[16]++; /* one key more */
        make_key_text(&g, "eidetic.base_type", l->base_type);
    }
    for (size_t i = 0; i < l->count; i++) {
        const part *p = &l->parts[i];
        put_tensor(&g, p->name, "lora_a", p->a_rank, p->columns, &offset);
        put_tensor(&g, p->name, "lora_b", p->rows, p->b_rank, &offset);
    }
    make_padding(&g, 32);
    for (size_t i = 0; i < l->count; i++) {
        const part *p = &l->parts[i];
        make_bytes(&g, p->a, p->a_rank * p->columns * sizeof(float));
        make_padding(&g, 32);
        make_bytes(&g, p->b, p->rows * p->b_rank * sizeof(float));
        make_padding(&g, 32);
    }
    snprintf(l->path, sizeof l->path, "/tmp/eidetic-lora-XXXXXX");
    int out = mkstemp(l->path);
    assert_true(out >= 0 && write(out, g.data, g.size) == (ssize_t)g.size && close(out) == 0);
    make_free(&g);
}

static void end_lora(lora *l)
{
    for (size_t i = 0; i < l->count; i++) {
        base_free(l->parts[i].a);
        base_free(l->parts[i].b);
    }
    unlink(l->path);
}

/* Logits [L, TINY_V] of a fixed text. */
static void run(const char *path, const char *adapter, float *logits)
{
    const char *const adapters[] = {adapter, NULL};
    base_error err = {0};
    core_model *model = NULL;
    core_stream *stream = NULL;
    core_stream_options options = {.slots_max = L, .kv_f32 = true, .activations = KERNEL_ACT_F32};
    int32_t ids[L];
    for (int32_t i = 0; i < L; i++) {
        ids[i] = (7 * i + 3) % TINY_V;
    }
    if (core_model_open(path, adapters, NULL, &model, &err) ||
        core_stream_open(model, &options, &stream, &err) ||
        core_run(stream, ids, L, logits, L, &err)) {
        fail_msg("%s", err.text);
    }
    core_stream_close(stream);
    core_model_close(model);
}

static float distance(const float *a, const float *b)
{
    float worst = 0;
    for (size_t i = 0; i < (size_t)L * TINY_V; i++) {
        worst = fmaxf(worst, fabsf(a[i] - b[i]));
    }
    return worst;
}

static void base_hash(const char *path, char hex[65])
{
    base_error err = {0};
    gguf_file *file = NULL;
    uint8_t hash[32];
    assert_int_equal(gguf_open(path, &file, &err), BASE_OK);
    core_hash_tensors(file, hash);
    base_hex(hash, sizeof hash, hex);
    gguf_close(file);
}

/* Add alpha/r B A to the model's weights by hand. */
static void add_by_hand(tiny_model *m, const lora *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const part *p = &l->parts[i];
        for (size_t t = 0; t < m->count; t++) {
            for (size_t n = 0; n < p->rows && strcmp(m->tensors[t].name, p->name) == 0; n++) {
                for (size_t k = 0; k < p->columns; k++) {
                    float sum = 0;
                    for (size_t r = 0; r < RANK; r++) {
                        sum += p->b[n * RANK + r] * p->a[r * p->columns + k];
                    }
                    m->tensors[t].data[n * p->columns + k] += ALPHA / RANK * sum;
                }
            }
        }
    }
}

static void test_merged_weights_are_the_sum(void **state)
{
    (void)state;
    static float plain[L * TINY_V], adapted[L * TINY_V], by_hand[L * TINY_V];
    tiny_model m, sum;
    char hex[65];
    base_rng rng;
    base_rng_seed(&rng, 5);
    lora l = make_lora(&rng);
    tiny_begin(&m, 11);
    tiny_write(&m, "llama");
    base_hash(m.path, hex);
    l.base_tensors = hex;
    write_lora(&l);
    tiny_begin(&sum, 11);
    add_by_hand(&sum, &l);
    tiny_write(&sum, "llama");
    run(m.path, NULL, plain);
    run(m.path, l.path, adapted);
    run(sum.path, NULL, by_hand);
    float effect = distance(plain, by_hand), error = distance(adapted, by_hand);
    printf("effect %.3f, error %.4f\n", (double)effect, (double)error);
    /* Q8_0 keeps 1/254 of a block's largest weight; three matrices of fourteen are adapted. */
    assert_true(effect > 0.5f && error < 0.05f * effect);
    end_lora(&l);
    tiny_end(&m);
    tiny_end(&sum);
}

/* What a caller broke in the adapter; the message must name the file and `what`. */
static void refuse(const tiny_model *m, lora *l, const char *what)
{
    base_error err = {0};
    core_model *model = NULL;
    write_lora(l);
    assert_int_equal(
        core_model_open(m->path, (const char *const[]){l->path, NULL}, NULL, &model, &err),
        BASE_INVALID);
    assert_null(model);
    if (!strstr(err.text, what) || !strstr(err.text, l->path)) {
        fail_msg("'%s' lacks '%s'", err.text, what);
    }
    unlink(l->path);
}

static void test_adapters_for_something_else_are_refused_by_name(void **state)
{
    (void)state;
    tiny_model m;
    char hex[65];
    base_rng rng;
    base_rng_seed(&rng, 5);
    const lora good = make_lora(&rng);
    lora l = good;
    tiny_begin(&m, 11);
    tiny_write(&m, "llama");
    base_hash(m.path, hex);
    hex[0] = hex[0] == 'a' ? 'b' : 'a';
    l.base_tensors = hex;
    refuse(&m, &l, "adapter for 'Tiny'");
    refuse(&m, &l, "other weights");
    l.base_type = "Q4_1";
    refuse(&m, &l, "in quantisation Q4_1");
    l = good;
    l.architecture = "gemma";
    refuse(&m, &l, "architecture 'gemma', the model is llama");
    l = good;
    l.type = "model";
    refuse(&m, &l, "not a LoRA adapter");
    l = good;
    l.parts[0].b_rank = RANK + 1;
    refuse(&m, &l, "blk.0.ffn_up.weight has factors of rank 4 and 5");
    l = good;
    l.parts[1].columns = TINY_C / 2;
    refuse(&m, &l, "blk.1.attn_k.weight do not fit");
    l = good;
    l.parts[2].name = "blk.7.ffn_down.weight";
    refuse(&m, &l, "only 4 fit this model");
    l = good;
    end_lora(&l);
    tiny_end(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merged_weights_are_the_sum),
        cmocka_unit_test(test_adapters_for_something_else_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
