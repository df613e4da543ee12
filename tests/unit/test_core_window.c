/* Bounded windows against their plain definition: for every token, the visible slots (sinks,
 * memories, last W live tokens) are listed, numbered from 0 without a gap, and attended to in one
 * softmax, in float64. Tolerance: f32 sums over at most 48 products and 60 slots in two layers on
 * values of size 1 to 10; 1e-5 of the largest logit is some 20 times what was seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/stream.h"
#include "tests/unit/tiny_model.h"

enum { W = 24, TOKENS = 420, SLOTS_MAX = TOKENS + 64, WIDTH = TINY_G * TINY_D };

static tiny_model tiny;
static core_model *model;
static base_pool *pool;
static int32_t ids[TOKENS];

/* --- the plain definition --------------------------------------------------------------------- */

typedef struct plain_slot {
    uint32_t owner; /* 0 = live */
    float bias;
    double key[TINY_LAYERS][WIDTH], value[TINY_LAYERS][WIDTH]; /* before rotation */
} plain_slot;

typedef struct plain {
    plain_slot slots[SLOTS_MAX];
    size_t count, window;
} plain;

static void rms(double *out, const double *x, const float *weight)
{
    double sum = 0;
    for (size_t i = 0; i < TINY_C; i++) {
        sum += x[i] * x[i];
    }
    for (size_t i = 0; i < TINY_C; i++) {
        out[i] = x[i] / sqrt(sum / TINY_C + 1e-5) * (double)weight[i];
    }
}

static void times(double *out, const float *w, const double *x, size_t rows, size_t columns)
{
    for (size_t r = 0; r < rows; r++) {
        out[r] = 0;
        for (size_t c = 0; c < columns; c++) {
            out[r] += (double)w[r * columns + c] * x[c];
        }
    }
}

static void turn(double *x, double position)
{
    for (size_t i = 0; i < TINY_D / 2; i++) {
        double angle = position * pow(10000.0, -2.0 * (double)i / TINY_D);
        double a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos(angle) - b * sin(angle);
        x[2 * i + 1] = a * sin(angle) + b * cos(angle);
    }
}

static void plain_attend(const plain *p, size_t layer, const double *q, double *out)
{
    size_t visible[SLOTS_MAX], count = 0, live = 0, first = p->count;
    while (first > CORE_SINKS_MIN && (p->window == 0 || live < p->window)) {
        live += p->slots[--first].owner == 0;
    }
    for (size_t i = 0; i < p->count; i++) {
        if (i < CORE_SINKS_MIN || i >= first || p->slots[i].owner != 0) {
            visible[count++] = i;
        }
    }
    for (size_t h = 0; h < TINY_H; h++) {
        double query[TINY_D], score[SLOTS_MAX], sum = 0, max = -INFINITY;
        size_t at = h / (TINY_H / TINY_G) * TINY_D;
        memcpy(query, q + h * TINY_D, sizeof query);
        turn(query, (double)(count - 1));
        for (size_t j = 0; j < count; j++) {
            double key[TINY_D];
            memcpy(key, p->slots[visible[j]].key[layer] + at, sizeof key);
            turn(key, (double)j);
            score[j] = (double)p->slots[visible[j]].bias;
            for (size_t d = 0; d < TINY_D; d++) {
                score[j] += query[d] * key[d] / sqrt((double)TINY_D);
            }
            max = fmax(max, score[j]);
        }
        for (size_t d = 0; d < TINY_D; d++) {
            out[h * TINY_D + d] = 0;
        }
        for (size_t j = 0; j < count; j++) {
            sum += exp(score[j] - max);
            for (size_t d = 0; d < TINY_D; d++) {
                out[h * TINY_D + d] +=
                    exp(score[j] - max) * p->slots[visible[j]].value[layer][at + d];
            }
        }
        for (size_t d = 0; d < TINY_D; d++) {
            out[h * TINY_D + d] /= sum;
        }
    }
}

static void plain_run(plain *p, int32_t id, double *logits)
{
    double x[TINY_C], u[TINY_C], q[TINY_H * TINY_D], o[TINY_H * TINY_D], y[TINY_C];
    double gate[TINY_F], up[TINY_F];
    const float *embedding = tiny_find(&tiny, "token_embd.weight");
    plain_slot *slot = &p->slots[p->count++];
    *slot = (plain_slot){0};
    for (size_t i = 0; i < TINY_C; i++) {
        x[i] = (double)embedding[(size_t)id * TINY_C + i];
    }
    for (size_t l = 0; l < TINY_LAYERS; l++) {
        rms(u, x, tiny_layer(&tiny, l, "attn_norm"));
        times(q, tiny_layer(&tiny, l, "attn_q"), u, TINY_H * TINY_D, TINY_C);
        times(slot->key[l], tiny_layer(&tiny, l, "attn_k"), u, WIDTH, TINY_C);
        times(slot->value[l], tiny_layer(&tiny, l, "attn_v"), u, WIDTH, TINY_C);
        plain_attend(p, l, q, o);
        times(y, tiny_layer(&tiny, l, "attn_output"), o, TINY_C, TINY_H * TINY_D);
        for (size_t i = 0; i < TINY_C; i++) {
            x[i] += y[i];
        }
        rms(u, x, tiny_layer(&tiny, l, "ffn_norm"));
        times(gate, tiny_layer(&tiny, l, "ffn_gate"), u, TINY_F, TINY_C);
        times(up, tiny_layer(&tiny, l, "ffn_up"), u, TINY_F, TINY_C);
        for (size_t i = 0; i < TINY_F; i++) {
            gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
        }
        times(y, tiny_layer(&tiny, l, "ffn_down"), gate, TINY_C, TINY_F);
        for (size_t i = 0; i < TINY_C; i++) {
            x[i] += y[i];
        }
    }
    rms(u, x, tiny_find(&tiny, "output_norm.weight"));
    times(logits, embedding, u, TINY_V, TINY_C);
}

/* --- both side by side ------------------------------------------------------------------------ */

static core_stream *open_stream(size_t window, base_pool *threads)
{
    core_stream_options options = {.window = window,
                                   .slots_max = window ? 64 : 512,
                                   .kv_f32 = true,
                                   .activations = KERNEL_ACT_F32,
                                   .pool = threads};
    core_stream *stream = NULL;
    base_error err = {0};
    if (core_stream_open(model, &options, &stream, &err)) {
        fail_msg("%s", err.text);
    }
    return stream;
}

static void run(core_stream *stream, const int32_t *tokens, size_t count, float *logits)
{
    base_error err = {0};
    if (core_run(stream, tokens, count, logits, logits ? count : 0, &err)) {
        fail_msg("%s", err.text);
    }
}

static double difference(const double *expected, const float *got)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < TINY_V; i++) {
        worst = fmax(worst, fabs(expected[i] - (double)got[i]));
        largest = fmax(largest, fabs(expected[i]));
    }
    return worst / largest;
}

static void test_an_endless_stream_sees_sinks_and_the_last_w_tokens(void **state)
{
    (void)state;
    static float logits[TOKENS][TINY_V], stepped[TOKENS][TINY_V];
    plain *p = calloc(1, sizeof *p);
    double expected[TINY_V], worst = 0;
    const size_t passes[] = {1, 7, 16, 64};
    p->window = W;
    for (size_t i = 0; i < 4; i++) {
        core_stream *stream = open_stream(W, i % 2 ? pool : NULL);
        for (size_t t = 0; t < TOKENS; t += passes[i]) {
            run(stream, ids + t, TOKENS - t < passes[i] ? TOKENS - t : passes[i], logits[t]);
        }
        assert_int_equal(core_slots(stream), TOKENS);
        assert_true(core_slots_begin(stream) > CORE_SINKS_MIN);
        core_stream_close(stream);
        if (i == 0) {
            memcpy(stepped, logits, sizeof stepped);
        } else if (passes[i] <= 16) {
            assert_memory_equal(stepped, logits, sizeof stepped); /* wherever it slid */
        }
        p->count = 0;
        for (size_t t = 0; t < TOKENS; t++) {
            plain_run(p, ids[t], expected);
            worst = fmax(worst, difference(expected, logits[t]));
        }
    }
    printf("largest relative error %.1e\n", worst);
    assert_true(worst < 1e-5);
    free(p);
}

static void test_up_to_w_tokens_a_bounded_window_is_the_full_one_bit_for_bit(void **state)
{
    (void)state;
    enum { COUNT = CORE_SINKS_MIN + W };
    float bounded[COUNT + 1][TINY_V], full[COUNT + 1][TINY_V];
    core_stream *a = open_stream(W, NULL), *b = open_stream(0, NULL);
    run(a, ids, COUNT, bounded[0]);
    run(b, ids, COUNT, full[0]);
    assert_memory_equal(bounded, full, COUNT * sizeof *full);
    run(a, ids + COUNT, 1, bounded[COUNT]);
    run(b, ids + COUNT, 1, full[COUNT]);
    assert_memory_not_equal(bounded[COUNT], full[COUNT], sizeof *full);
    core_stream_close(a);
    core_stream_close(b);
}

/* Insert `count` slots with random keys and values into both. */
static void insert(core_stream *stream, plain *p, size_t back, size_t count, float bias,
                   uint32_t owner, uint64_t seed)
{
    base_rng rng;
    base_rng_seed(&rng, seed);
    size_t at = p->count - back, slot = core_slots(stream) - back;
    float *block = malloc(core_block_bytes(stream, count));
    memmove(p->slots + at + count, p->slots + at, back * sizeof *p->slots);
    for (size_t l = 0; l < TINY_LAYERS; l++) {
        for (size_t part = 0; part < 2; part++) {
            for (size_t i = 0; i < count; i++) {
                for (size_t c = 0; c < WIDTH; c++) {
                    float value = (float)base_rng_normal(&rng);
                    block[((l * 2 + part) * count + i) * WIDTH + c] = value;
                    double *row = part ? p->slots[at + i].value[l] : p->slots[at + i].key[l];
                    row[c] = (double)value;
                    p->slots[at + i].owner = owner;
                    p->slots[at + i].bias = bias;
                }
            }
        }
    }
    p->count += count;
    assert_int_equal(core_window_insert(stream, slot, count, block, bias, owner, NULL), BASE_OK);
    free(block);
}

static void evict(core_stream *stream, plain *p, uint32_t owner, size_t count)
{
    core_window_remove(stream, core_owner_slot(stream, owner), count);
    size_t to = 0;
    for (size_t i = 0; i < p->count; i++) {
        if (p->slots[i].owner != owner) {
            p->slots[to++] = p->slots[i];
        }
    }
    p->count = to;
}

/* Memories come in at several places, the tokens around them leave, one is evicted: positions stay
 * contiguous over what is visible. */
static void test_memories_close_up_when_the_tokens_around_them_leave(void **state)
{
    (void)state;
    float logits[TINY_V];
    double expected[TINY_V], worst = 0;
    plain *p = calloc(1, sizeof *p);
    p->window = W;
    core_stream *stream = open_stream(W, pool);
    for (size_t t = 0; t < TOKENS; t++) {
        if (t == 100) {
            insert(stream, p, 5, 9, logf(0.5f), 1, 1);
        } else if (t == 110) {
            insert(stream, p, 3, 4, 0.0f, 2, 2);
        } else if (t == 260) {
            insert(stream, p, 1, 6, logf(0.3f), 3, 3);
        } else if (t == 300) {
            evict(stream, p, 2, 4);
        }
        run(stream, ids + t, 1, logits);
        plain_run(p, ids[t], expected);
        worst = fmax(worst, difference(expected, logits));
    }
    printf("largest relative error %.1e\n", worst);
    assert_true(worst < 1e-5);
    core_stream_close(stream);
    free(p);
}

/* What has left the window stays for a while where a memory will lie: it makes room. */
static void test_a_memory_comes_in_where_no_slot_is_free(void **state)
{
    (void)state;
    enum { FULL = W + CORE_ROLLBACK + 64 + 64, COUNT = 9 }; /* rollback, a batch, memories */
    float logits[TINY_V];
    double expected[TINY_V], worst = 0;
    plain *p = calloc(1, sizeof *p);
    for (size_t before = FULL - COUNT; before <= FULL; before++) {
        core_stream *stream = open_stream(W, pool);
        p->count = 0;
        p->window = W;
        for (size_t t = 0; t < FULL + 20; t++) {
            if (t == before) {
                insert(stream, p, 5, COUNT, logf(0.5f), 1, 1);
                assert_in_range(core_slots(stream) - core_slots_begin(stream), COUNT, FULL);
            }
            run(stream, ids + t, 1, logits);
            plain_run(p, ids[t], expected);
            worst = fmax(worst, difference(expected, logits));
        }
        core_stream_close(stream);
    }
    printf("largest relative error %.1e\n", worst);
    assert_true(worst < 1e-5);
    free(p);
}

static void test_dropped_tokens_leave_no_trace(void **state)
{
    (void)state;
    float once[TINY_V], again[TINY_V];
    for (size_t end = 150; end <= TOKENS; end += 90) {
        core_stream *a = open_stream(W, NULL), *b = open_stream(W, NULL);
        run(a, ids, end, NULL);
        run(b, ids, end, NULL);
        run(b, ids + 20, CORE_ROLLBACK, NULL); /* others */
        core_window_remove(b, end, CORE_ROLLBACK);
        run(a, ids, 1, once);
        run(b, ids, 1, again);
        assert_memory_equal(once, again, sizeof once);
        core_stream_close(a);
        core_stream_close(b);
    }
}

static void test_the_paths_share_one_whole_of_attention(void **state)
{
    (void)state;
    plain *p = calloc(1, sizeof *p);
    core_stream *stream = open_stream(W, pool);
    float mass[3] = {0};
    size_t tokens = 0;
    run(stream, ids, 200, NULL);
    p->count = 200;
    insert(stream, p, 2, 5, 0.0f, 2, 4);
    core_mass_watch(stream, mass, 3, &tokens);
    run(stream, ids, 50, NULL);
    core_mass_sum(stream);
    assert_int_equal(tokens, 50);
    assert_true(fabsf(mass[0] + mass[2] - 50.0f) < 1e-3f);
    assert_true(mass[2] > 0.5f && mass[1] == 0.0f);
    core_stream_close(stream);
    free(p);
}

/* Far along, one token's attention is cut by slots and columns, several tokens' by heads: the bits
 * are the same, whatever the threads; the shares of attention are, too, up to rounding. */
static void test_far_along_tokens_run_alone_give_the_bits_of_tokens_run_together(void **state)
{
    (void)state;
    enum { FAR = 400, TOGETHER = 16 };
    static float together[TOGETHER][TINY_V], alone[TINY_V];
    plain *p = calloc(1, sizeof *p);
    float mass[3][3] = {{0}};
    size_t tokens[3] = {0};
    for (int i = 0; i < 3; i++) {
        core_stream *stream = open_stream(0, i == 1 ? NULL : pool);
        run(stream, ids, FAR, NULL);
        p->count = FAR;
        insert(stream, p, 100, 40, -0.5f, 2, 4);
        core_mass_watch(stream, mass[i], 3, &tokens[i]);
        if (i == 0) {
            assert_int_equal(core_run(stream, ids, TOGETHER, together[0], TOGETHER, NULL), BASE_OK);
        }
        for (size_t t = 0; i > 0 && t < TOGETHER; t++) {
            run(stream, ids + t, 1, alone);
            assert_memory_equal(alone, together[t], sizeof alone);
        }
        core_mass_sum(stream);
        assert_int_equal(tokens[i], TOGETHER);
        assert_true(fabsf(mass[i][0] + mass[i][2] - TOGETHER) < 1e-3f && mass[i][2] > 0.1f);
        assert_true(fabsf(mass[i][2] - mass[0][2]) < 1e-4f * mass[0][2]);
        core_stream_close(stream);
    }
    free(p);
}

static core_stream *open_long(base_pool *threads)
{
    core_stream_options options = {
        .slots_max = CORE_COARSE_MIN + 128, .activations = KERNEL_ACT_F32, .pool = threads};
    core_stream *stream = NULL;
    assert_int_equal(core_stream_open(model, &options, &stream, NULL), BASE_OK);
    return stream;
}

/* Very far along, few tokens go by coarse keys: alone, together across the bound, by any threads,
 * again after tokens were dropped, and after a memory came and left, with the same bits; near those
 * of many tokens together, which see all there is exactly. */
static void test_very_far_along_tokens_keep_their_bits(void **state)
{
    (void)state;
    enum { TOGETHER = 16, MANY = 17, AFTER = 40, FROM = CORE_COARSE_MIN - 8 };
    static float first[TOGETHER + MANY][TINY_V], logits[TOGETHER + MANY][TINY_V];
    static int32_t tokens[FROM + TOGETHER + MANY];
    static uint8_t block[40 * 4 * TINY_LAYERS * WIDTH];
    for (size_t t = 0; t < FROM + TOGETHER + MANY; t++) {
        tokens[t] = ids[t % AFTER];
    }
    core_stream *stream = open_long(pool);
    run(stream, tokens, FROM, NULL);
    run(stream, tokens + FROM, TOGETHER, first[0]);
    run(stream, tokens + FROM + TOGETHER, TOGETHER, first[TOGETHER]);
    core_window_remove(stream, FROM, 2 * (size_t)TOGETHER);
    assert_int_equal(core_block_bytes(stream, 40), sizeof block);
    core_block_read(stream, 300, 40, block);
    assert_int_equal(core_window_insert(stream, 100, 40, block, 0, 2, NULL), BASE_OK);
    core_window_remove(stream, 100, 40);
    for (size_t t = 0; t < 2 * (size_t)TOGETHER; t++) {
        run(stream, tokens + FROM + t, 1, logits[t]);
    }
    assert_memory_equal(logits, first, 2 * TOGETHER * sizeof *first);
    core_window_remove(stream, FROM + TOGETHER, TOGETHER);
    run(stream, tokens + FROM + TOGETHER, MANY, logits[TOGETHER]);
    for (size_t t = TOGETHER; t < 2 * (size_t)TOGETHER; t++) {
        double exact[TINY_V];
        for (size_t i = 0; i < TINY_V; i++) {
            exact[i] = (double)logits[t][i];
        }
        assert_true(difference(exact, first[t]) < 1e-3);
        assert_true(difference(exact, first[t]) > 0); /* coarse keys were used */
    }
    core_stream_close(stream);
    stream = open_long(NULL);
    run(stream, tokens, FROM, NULL);
    run(stream, tokens + FROM, TOGETHER, logits[0]);
    assert_memory_equal(logits, first, TOGETHER * sizeof *first);
    core_stream_close(stream);
}

static void test_a_restored_window_continues_with_the_same_bits(void **state)
{
    (void)state;
    const size_t lengths[] = {3, 60, 300}; /* before and after it slid */
    for (size_t i = 0; i < 3; i++) {
        float once[100][TINY_V], again[100][TINY_V];
        core_stream *a = open_stream(W, NULL), *b = open_stream(W, pool);
        run(a, ids, lengths[i], NULL);
        size_t size = core_state_bytes(a);
        uint8_t *bytes = malloc(size);
        core_state_save(a, bytes);
        run(b, ids, 350, NULL);
        assert_int_equal(core_state_restore(b, bytes, size, NULL), BASE_OK);
        assert_int_equal(core_slots(b), lengths[i]);
        for (size_t t = 0; t < 100; t++) {
            run(a, ids + t, 1, once[t]);
            run(b, ids + t, 1, again[t]);
        }
        assert_memory_equal(once, again, sizeof once);
        free(bytes);
        core_stream_close(a);
        core_stream_close(b);
    }
}

static int set_up(void **state)
{
    (void)state;
    base_error err = {0};
    base_rng rng;
    tiny_begin(&tiny, 11);
    tiny_write(&tiny, "llama");
    base_rng_seed(&rng, 12);
    for (size_t i = 0; i < TOKENS; i++) {
        ids[i] = (int32_t)base_rng_below(&rng, TINY_V);
    }
    if (base_pool_create(2, &pool, &err) || core_model_open(tiny.path, NULL, NULL, &model, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    core_model_close(model);
    base_pool_free(pool);
    tiny_end(&tiny);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_endless_stream_sees_sinks_and_the_last_w_tokens),
        cmocka_unit_test(test_up_to_w_tokens_a_bounded_window_is_the_full_one_bit_for_bit),
        cmocka_unit_test(test_memories_close_up_when_the_tokens_around_them_leave),
        cmocka_unit_test(test_a_memory_comes_in_where_no_slot_is_free),
        cmocka_unit_test(test_dropped_tokens_leave_no_trace),
        cmocka_unit_test(test_the_paths_share_one_whole_of_attention),
        cmocka_unit_test(test_far_along_tokens_run_alone_give_the_bits_of_tokens_run_together),
        cmocka_unit_test(test_very_far_along_tokens_keep_their_bits),
        cmocka_unit_test(test_a_restored_window_continues_with_the_same_bits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
