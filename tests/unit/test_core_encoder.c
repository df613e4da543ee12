/* The text encoder: a made model against a plain computation in double precision, the published one
 * against its publisher's program.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <math.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/thread.h"
#include "engine/encoder.h"
#include "engine/kernels.h"
#include "engine/tokenizer.h"
#include "make_gguf.h"
#include "models.h"

/* --- a made model ----------------------------------------------------------------------------- */

enum { C = 48, F = 96, HEADS = 3, LAYERS = 2, POSITIONS = 20, WORDS = 12, TENSORS_MAX = 64 };

static const double eps = 1e-5;
static const char *const words[WORDS] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "red",  "blue",
                                         "green", "##ish", "sky",   ",",     "with", "over"};

typedef struct made_tensor {
    char name[80];
    size_t rows, columns; /* columns 0: a vector */
    float *data;
} made_tensor;

typedef struct made_model {
    made_tensor tensors[TENSORS_MAX];
    size_t count;
    char folder[64];
} made_model;

static const float *weights(const made_model *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++) {
        if (strcmp(m->tensors[i].name, name) == 0) {
            return m->tensors[i].data;
        }
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static void add_tensor(made_model *m, base_rng *rng, const char *name, size_t rows, size_t columns)
{
    made_tensor *t = &m->tensors[m->count++];
    assert_true(m->count <= TENSORS_MAX);
    size_t count = rows * (columns ? columns : 1);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows;
    t->columns = columns;
    t->data = calloc(count, sizeof *t->data);
    assert_non_null(t->data);
    bool gain = strstr(name, "LayerNorm.weight") != NULL;
    for (size_t i = 0; i < count; i++) {
        t->data[i] = (float)(base_rng_normal(rng) * 0.2 + (gain ? 1.0 : 0.0));
    }
}

static void add_pair(made_model *m, base_rng *rng, const char *prefix, size_t rows, size_t columns)
{
    char name[80];
    snprintf(name, sizeof name, "%s.weight", prefix);
    add_tensor(m, rng, name, rows, columns);
    snprintf(name, sizeof name, "%s.bias", prefix);
    add_tensor(m, rng, name, rows, 0);
}

static void make_model(made_model *m)
{
    static const struct {
        const char *name;
        size_t rows, columns;
    } parts[] = {
        {"attention.self.query", C, C},
        {"attention.self.key", C, C},
        {"attention.self.value", C, C},
        {"attention.output.dense", C, C},
        {"attention.output.LayerNorm", C, 0},
        {"intermediate.dense", F, C},
        {"output.dense", C, F},
        {"output.LayerNorm", C, 0},
    };
    base_rng rng;
    base_rng_seed(&rng, 77);
    *m = (made_model){.count = 0};
    add_tensor(m, &rng, "embeddings.word_embeddings.weight", WORDS, C);
    add_tensor(m, &rng, "embeddings.position_embeddings.weight", POSITIONS, C);
    add_tensor(m, &rng, "embeddings.token_type_embeddings.weight", 2, C);
    add_pair(m, &rng, "embeddings.LayerNorm", C, 0);
    for (int layer = 0; layer < LAYERS; layer++) {
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            char prefix[64];
            snprintf(prefix, sizeof prefix, "encoder.layer.%d.%s", layer, parts[i].name);
            add_pair(m, &rng, prefix, parts[i].rows, parts[i].columns);
        }
    }
}

static void write_bytes(const made_model *m, const char *name, const void *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", m->folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static const char config[] = "{\"architectures\":[\"BertModel\"],\"model_type\":\"bert\","
                             "\"hidden_act\":\"gelu\",\"position_embedding_type\":\"absolute\","
                             "\"hidden_size\":48,\"intermediate_size\":96,"
                             "\"num_attention_heads\":3,\"num_hidden_layers\":2,"
                             "\"max_position_embeddings\":20,\"vocab_size\":12,"
                             "\"type_vocab_size\":2,\"layer_norm_eps\":1e-05}";

/* model.safetensors, without the tensor `skip`; `rename` gets another shape. */
static void write_weights(const made_model *m, const char *skip, const char *reshape)
{
    make_gguf header = {0}, file = {0};
    size_t at = 0;
    char text[256];
    make_bytes(&header, "{", 1);
    for (size_t i = 0; i < m->count; i++) {
        const made_tensor *t = &m->tensors[i];
        if (skip && strcmp(t->name, skip) == 0) {
            continue;
        }
        size_t bytes = t->rows * (t->columns ? t->columns : 1) * sizeof(float);
        bool other = reshape && strcmp(t->name, reshape) == 0;
        int size = snprintf(text, sizeof text, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[",
                            at ? "," : "", t->name);
        make_bytes(&header, text, (size_t)size);
        size = t->columns && !other ? snprintf(text, sizeof text, "%zu,%zu", t->rows, t->columns)
                                    : snprintf(text, sizeof text, "%zu", bytes / sizeof(float));
        make_bytes(&header, text, (size_t)size);
        size = snprintf(text, sizeof text, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
        make_bytes(&header, text, (size_t)size);
        at += bytes;
    }
    make_bytes(&header, "}", 1);
    while (header.size % 8 != 0) {
        make_bytes(&header, " ", 1);
    }
    make_u64(&file, header.size);
    make_bytes(&file, header.data, header.size);
    for (size_t i = 0; i < m->count; i++) {
        const made_tensor *t = &m->tensors[i];
        if (!skip || strcmp(t->name, skip) != 0) {
            make_bytes(&file, t->data, t->rows * (t->columns ? t->columns : 1) * sizeof(float));
        }
    }
    write_bytes(m, "model.safetensors", file.data, file.size);
    make_free(&header);
    make_free(&file);
}

static void write_folder(made_model *m)
{
    make_gguf vocabulary = {0};
    snprintf(m->folder, sizeof m->folder, "/tmp/eidetic-encoder-XXXXXX");
    assert_non_null(mkdtemp(m->folder));
    for (size_t i = 0; i < WORDS; i++) {
        make_bytes(&vocabulary, words[i], strlen(words[i]));
        make_bytes(&vocabulary, "\n", 1);
    }
    write_bytes(m, "vocab.txt", vocabulary.data, vocabulary.size);
    write_bytes(m, "config.json", config, strlen(config));
    write_weights(m, NULL, NULL);
    make_free(&vocabulary);
}

static void remove_model(made_model *m)
{
    const char *names[] = {"vocab.txt", "config.json", "model.safetensors"};
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", m->folder, names[i]);
        unlink(path);
    }
    rmdir(m->folder);
    for (size_t i = 0; i < m->count; i++) {
        free(m->tensors[i].data);
    }
}

/* --- the same in double precision, straight from the equations -------------------------------- */

static void plain_norm(const made_model *m, const char *prefix, double *row)
{
    char name[80];
    double mean = 0.0, variance = 0.0;
    snprintf(name, sizeof name, "%s.weight", prefix);
    const float *gain = weights(m, name);
    snprintf(name, sizeof name, "%s.bias", prefix);
    const float *shift = weights(m, name);
    for (int i = 0; i < C; i++) {
        mean += row[i] / C;
    }
    for (int i = 0; i < C; i++) {
        variance += (row[i] - mean) * (row[i] - mean) / C;
    }
    for (int i = 0; i < C; i++) {
        row[i] = (row[i] - mean) / sqrt(variance + eps) * (double)gain[i] + (double)shift[i];
    }
}

static void plain_linear(const made_model *m, int layer, const char *part, const double *in,
                         int columns, double *out, int rows)
{
    char name[80];
    snprintf(name, sizeof name, "encoder.layer.%d.%s.weight", layer, part);
    const float *w = weights(m, name);
    snprintf(name, sizeof name, "encoder.layer.%d.%s.bias", layer, part);
    const float *b = weights(m, name);
    for (int n = 0; n < rows; n++) {
        out[n] = (double)b[n];
        for (int k = 0; k < columns; k++) {
            out[n] += (double)w[n * columns + k] * in[k];
        }
    }
}

static void plain_layer(const made_model *m, int layer, double (*x)[C], size_t count)
{
    static double q[POSITIONS][C], k[POSITIONS][C], v[POSITIONS][C];
    char norm[80];
    for (size_t t = 0; t < count; t++) {
        plain_linear(m, layer, "attention.self.query", x[t], C, q[t], C);
        plain_linear(m, layer, "attention.self.key", x[t], C, k[t], C);
        plain_linear(m, layer, "attention.self.value", x[t], C, v[t], C);
    }
    for (size_t t = 0; t < count; t++) {
        double mixed[C] = {0}, out[C], inner[F];
        for (int h = 0; h < HEADS; h++) {
            double p[POSITIONS], sum = 0.0;
            for (size_t j = 0; j < count; j++) {
                double score = 0.0;
                for (int d = h * C / HEADS; d < (h + 1) * C / HEADS; d++) {
                    score += q[t][d] * k[j][d];
                }
                sum += p[j] = exp(score / sqrt((double)C / HEADS));
            }
            for (size_t j = 0; j < count; j++) {
                for (int d = h * C / HEADS; d < (h + 1) * C / HEADS; d++) {
                    mixed[d] += p[j] / sum * v[j][d];
                }
            }
        }
        plain_linear(m, layer, "attention.output.dense", mixed, C, out, C);
        for (int i = 0; i < C; i++) {
            x[t][i] += out[i];
        }
        snprintf(norm, sizeof norm, "encoder.layer.%d.attention.output.LayerNorm", layer);
        plain_norm(m, norm, x[t]);
        plain_linear(m, layer, "intermediate.dense", x[t], C, inner, F);
        for (int i = 0; i < F; i++) {
            inner[i] *= 0.5 * (1.0 + erf(inner[i] / sqrt(2.0)));
        }
        plain_linear(m, layer, "output.dense", inner, F, out, C);
        for (int i = 0; i < C; i++) {
            x[t][i] += out[i];
        }
        snprintf(norm, sizeof norm, "encoder.layer.%d.output.LayerNorm", layer);
        plain_norm(m, norm, x[t]);
    }
}

static void plain_encode(const made_model *m, const int32_t *ids, size_t count, double *vector)
{
    static double x[POSITIONS][C];
    const float *word = weights(m, "embeddings.word_embeddings.weight");
    const float *position = weights(m, "embeddings.position_embeddings.weight");
    const float *type = weights(m, "embeddings.token_type_embeddings.weight");
    for (size_t t = 0; t < count; t++) {
        for (size_t i = 0; i < C; i++) {
            x[t][i] = (double)word[(size_t)ids[t] * C + i] + (double)position[t * C + i] +
                      (double)type[i];
        }
        plain_norm(m, "embeddings.LayerNorm", x[t]);
    }
    for (int layer = 0; layer < LAYERS; layer++) {
        plain_layer(m, layer, x, count);
    }
    double square = 0.0;
    for (size_t i = 0; i < C; i++) {
        vector[i] = 0.0;
        for (size_t t = 0; t < count; t++) {
            vector[i] += x[t][i] / (double)count;
        }
        square += vector[i] * vector[i];
    }
    for (size_t i = 0; i < C; i++) {
        vector[i] /= sqrt(square);
    }
}

/* Goal: the forward pass is BERT's. Method: a made model of two layers against the equations in
 * double precision. Weights and activations are rounded to 1/4729 (K = 96) or 1/6689 (K = 48) of
 * the largest of their row, which moves a value of 0.2 in a unit vector by some 1e-4 (measured: at
 * most 1.4e-4); all sets agree bit for bit in products, so within f32 rounding in the rest. */
static void test_made_model_equals_the_equations(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int32_t ids[8];
        size_t count;
    } cases[] = {
        {"", {2, 3}, 2},
        {"red", {2, 4, 3}, 3},
        {"Reddish sky", {2, 1, 8, 3}, 4},
        {"redish sky, blueish", {2, 4, 7, 8, 9, 5, 7, 3}, 8},
        {"green over blue with", {2, 6, 11, 5, 10, 3}, 6},
    };
    const base_isa sets[] = {BASE_ISA_SCALAR, BASE_ISA_AVX2, BASE_ISA_AVX512, BASE_ISA_AMX};
    made_model m;
    make_model(&m);
    write_folder(&m);
    for (size_t set = 0; set < sizeof sets / sizeof *sets; set++) {
        encoder *e = NULL;
        base_error err = {0};
        if (kernel_select(sets[set]) != sets[set]) {
            print_message("SKIPPED: %s cannot run here\n", base_isa_name(sets[set]));
            continue;
        }
        if (encoder_open(m.folder, NULL, &e, &err)) {
            fail_msg("%s", err.text);
        }
        assert_int_equal(encoder_dim(e), C);
        double worst = 0.0;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            float found[C];
            double wanted[C];
            assert_int_equal(encoder_encode(e, cases[i].text, strlen(cases[i].text), found, NULL),
                             BASE_OK);
            plain_encode(&m, cases[i].ids, cases[i].count, wanted);
            for (size_t k = 0; k < C; k++) {
                worst = fmax(worst, fabs((double)found[k] - wanted[k]));
                if (fabs((double)found[k] - wanted[k]) > 5e-4) {
                    fail_msg("%s: value %zu of '%s' is %.8f, not %.8f", base_isa_name(sets[set]), k,
                             cases[i].text, (double)found[k], wanted[k]);
                }
            }
        }
        print_message("%s: at most %.2g off\n", base_isa_name(sets[set]), worst);
        encoder_close(e);
    }
    kernel_select(BASE_ISA_AMX);
    remove_model(&m);
}

/* Goal: a vector does not depend on what else is encoded, on the number of threads, or on the past.
 * Method: 400 texts (several passes) at once with 3 threads, against each alone with one: equal
 * bits. Encoding allocates nothing. */
static void test_vectors_do_not_depend_on_company(void **state)
{
    (void)state;
    enum { TEXTS = 400 };
    static char texts[TEXTS][120];
    static float together[TEXTS][C];
    const char *pointers[TEXTS];
    size_t sizes[TEXTS];
    made_model m;
    base_pool *pool = NULL;
    encoder *one = NULL, *three = NULL;
    base_rng rng;
    base_rng_seed(&rng, 4);
    for (size_t i = 0; i < TEXTS; i++) {
        size_t count = base_rng_below(&rng, 20);
        texts[i][0] = '\0';
        for (size_t k = 0; k < count; k++) {
            size_t at = strlen(texts[i]);
            snprintf(texts[i] + at, sizeof texts[i] - at, "%s ",
                     words[4 + base_rng_below(&rng, 8)]);
        }
        pointers[i] = texts[i];
        sizes[i] = strlen(texts[i]);
    }
    make_model(&m);
    write_folder(&m);
    assert_int_equal(base_pool_create(3, &pool, NULL), BASE_OK);
    assert_int_equal(encoder_open(m.folder, NULL, &one, NULL), BASE_OK);
    assert_int_equal(encoder_open(m.folder, pool, &three, NULL), BASE_OK);
    assert_string_equal(encoder_name(one), encoder_name(three));
    size_t before = base_mem_count();
    assert_int_equal(encoder_encode_batch(three, pointers, sizes, TEXTS, together[0], NULL),
                     BASE_OK);
    for (size_t i = 0; i < TEXTS; i++) {
        float alone[C];
        double square = 0.0;
        assert_int_equal(encoder_encode(one, texts[i], sizes[i], alone, NULL), BASE_OK);
        assert_memory_equal(alone, together[i], sizeof alone);
        for (size_t k = 0; k < C; k++) {
            square += (double)alone[k] * (double)alone[k];
        }
        assert_true(fabs(square - 1.0) < 1e-6);
    }
    assert_int_equal(base_mem_count(), before);
    assert_int_equal(encoder_encode_batch(one, NULL, NULL, 0, NULL, NULL), BASE_OK);
    encoder_close(one);
    encoder_close(three);
    base_pool_free(pool);
    remove_model(&m);
}

/* Goal: what lies behind the last position is cut off. Method: 20 positions: the 19th word counts
 * for nothing, the 18th does. */
static void test_long_texts_are_cut(void **state)
{
    (void)state;
    made_model m;
    encoder *e = NULL;
    char text[256] = "";
    float whole[C], longer[C], other[C];
    make_model(&m);
    write_folder(&m);
    assert_int_equal(encoder_open(m.folder, NULL, &e, NULL), BASE_OK);
    for (int i = 0; i < 18; i++) {
        strncat(text, "red ", sizeof text - 1 - strlen(text));
    }
    encoder_encode(e, text, strlen(text), whole, NULL);
    encoder_encode(e, text, strlen(text) - 4, other, NULL);
    assert_memory_not_equal(whole, other, sizeof whole);
    strncat(text, "blue sky", sizeof text - 1 - strlen(text));
    encoder_encode(e, text, strlen(text), longer, NULL);
    assert_memory_equal(whole, longer, sizeof whole);
    encoder_close(e);
    remove_model(&m);
}

static void expect_refused(const made_model *m, base_status wanted, const char *words_of_error)
{
    encoder *e = NULL;
    base_error err = {0};
    assert_int_equal(encoder_open(m->folder, NULL, &e, &err), wanted);
    assert_null(e);
    if (!strstr(err.text, words_of_error) || !strstr(err.text, m->folder)) {
        fail_msg("'%s' does not name '%s'", err.text, words_of_error);
    }
}

/* config.json with one piece of text exchanged. */
static void write_config(const made_model *m, const char *from, const char *to)
{
    char text[2 * sizeof config];
    const char *at = strstr(config, from);
    assert_non_null(at);
    int size =
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - config), config, to, at + strlen(from));
    write_bytes(m, "config.json", text, (size_t)size);
}

/* Goal: another architecture is refused by name, damage with its place. */
static void test_other_and_damaged_models_are_refused(void **state)
{
    (void)state;
    made_model m;
    make_model(&m);
    write_folder(&m);
    write_config(&m, "\"bert\"", "\"roberta\"");
    expect_refused(&m, BASE_UNSUPPORTED, "roberta");
    write_config(&m, "\"gelu\"", "\"gelu_new\"");
    expect_refused(&m, BASE_UNSUPPORTED, "gelu_new");
    write_config(&m, "\"num_attention_heads\":3", "\"num_attention_heads\":5");
    expect_refused(&m, BASE_CORRUPT, "heads");
    write_config(&m, "\"hidden_size\":48", "\"hidden_size\":-1");
    expect_refused(&m, BASE_CORRUPT, "hidden_size");
    write_config(&m, "\"hidden_size\":48", "\"hidden_size\":24");
    expect_refused(&m, BASE_CORRUPT, "word_embeddings");
    write_config(&m, "\"num_hidden_layers\":2", "\"num_hidden_layers\":3");
    expect_refused(&m, BASE_CORRUPT, "encoder.layer.2");
    write_config(&m, "1e-05", "0");
    expect_refused(&m, BASE_CORRUPT, "layer_norm_eps");
    write_config(&m, "{", "");
    expect_refused(&m, BASE_CORRUPT, "config.json");
    write_config(&m, "{", "{");
    write_weights(&m, "encoder.layer.1.output.dense.bias", NULL);
    expect_refused(&m, BASE_CORRUPT, "encoder.layer.1.output.dense.bias");
    write_weights(&m, NULL, "encoder.layer.0.intermediate.dense.weight");
    expect_refused(&m, BASE_CORRUPT, "encoder.layer.0.intermediate.dense.weight");
    write_weights(&m, NULL, NULL);
    write_bytes(&m, "vocab.txt", "[CLS]\n[SEP]\n[UNK]\na\nb\nc\nd\ne\nf\ng\nh\ni\nj\n", 38);
    expect_refused(&m, BASE_CORRUPT, "vocab.txt");
    char path[128];
    snprintf(path, sizeof path, "%s/vocab.txt", m.folder);
    unlink(path);
    expect_refused(&m, BASE_NOT_FOUND, "vocab.txt");
    remove_model(&m);
}

/* Goal: failed allocations are reported; nothing leaks. */
static void test_every_failed_allocation_is_an_error(void **state)
{
    (void)state;
    made_model m;
    make_model(&m);
    write_folder(&m);
    base_status status = BASE_NO_MEMORY;
    size_t n = 0;
    while (status == BASE_NO_MEMORY) {
        encoder *e = NULL;
        base_mem_fail_at(++n);
        status = encoder_open(m.folder, NULL, &e, NULL);
        base_mem_fail_at(0);
        encoder_close(e);
    }
    assert_int_equal(status, BASE_OK);
    assert_true(n > 12);
    remove_model(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_model_equals_the_equations),
        cmocka_unit_test(test_vectors_do_not_depend_on_company),
        cmocka_unit_test(test_long_texts_are_cut),
        cmocka_unit_test(test_other_and_damaged_models_are_refused),
        cmocka_unit_test(test_every_failed_allocation_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
