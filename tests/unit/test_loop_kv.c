/* What 8 bits per element cost on disk and in the distribution of the next token: against f16, over
 * every token of some answers that rest on a memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "tests/unit/loop_testing.h"

static const char *const texts[] = {
    "The caretaker of Brindle Hall is Osric Penhallow. He has lived there since the fire of 1961.",
    "The ferry to Skerry Island leaves from pier seven at half past nine, except on Sundays.",
    "Dr Lowell keeps the spare keys in the blue cabinet behind the laboratory door.",
    "The winner of the Ambleford chess open was Ravi Sundaram, ahead of the former champion.",
    "The observatory on Mount Kestrel opened in 1937 and was closed again during the war.",
};
static const char *const questions[] = {
    "Who is the caretaker of Brindle Hall?",
    "From which pier does the ferry to Skerry Island leave?",
    "Where does Dr Lowell keep the spare keys?",
    "Who won the Ambleford chess open?",
    "In which year did the observatory on Mount Kestrel open?",
};
static const char *const answers[] = {
    "The caretaker of Brindle Hall is Osric Penhallow.", "The ferry leaves from pier seven.",
    "Dr Lowell keeps them in the blue cabinet.", "Ravi Sundaram won the Ambleford chess open.",
    "The observatory opened in 1937."};
enum { FACTS = sizeof texts / sizeof *texts, TOKENS_MAX = 64 };

static loop exact, small; /* the same store, by an engine with f16 and by one with q8 */

typedef struct distributions {
    float *logits; /* [TOKENS_MAX, V] */
    size_t count, vocabulary;
} distributions;

static int32_t keep(void *argument, size_t index, int32_t token, const float *logits,
                    size_t vocabulary)
{
    distributions *d = argument;
    if (!d->logits) {
        d->logits = base_calloc(TOKENS_MAX * vocabulary, sizeof *logits);
        d->vocabulary = vocabulary;
    }
    if (index < TOKENS_MAX) {
        memcpy(d->logits + index * vocabulary, logits, vocabulary * sizeof *logits);
        d->count = index + 1;
    }
    return token;
}

/* Answer fact from memory, forced; *session: opened the first time. The first memory's way in. */
static engine_kv answer_fact(loop *l, engine_session **session, size_t fact, uint64_t kv_budget,
                             distributions *seen)
{
    base_error err = {0};
    engine_session_options options;
    engine_answer answer;
    engine_session_defaults(&options);
    options.memories_max = 1;
    options.score_min = 0;
    options.keep_writes = true;
    options.kv_budget = kv_budget;
    options.trigger = ENGINE_TRIGGER_ONCE;
    if (*session) {
        options.store = l->store;
        options.retrieval = l->retrieval;
        options.now_us = options.as_of_us = l->now_us;
        loop_check(engine_session_restart(*session, &options, &err), &err);
    } else {
        *session = loop_session(l, ENGINE_ARM_FULL, &options);
    }
    loop_check(engine_force(*session, questions[fact], answers[fact], seen ? keep : NULL, seen,
                            &answer, &err),
               &err);
    const engine_event *event = &answer.events[answer.event_count - 1];
    assert_int_equal(event->memory_count, 1);
    engine_kv kv = event->memories[0].kv;
    engine_session_write(*session);
    engine_answer_free(&answer);
    return kv;
}

static double log_sum_exp(const float *logits, size_t vocabulary)
{
    double peak = -INFINITY, sum = 0.0;
    for (size_t v = 0; v < vocabulary; v++) {
        peak = fmax(peak, (double)logits[v]);
    }
    for (size_t v = 0; v < vocabulary; v++) {
        sum += exp((double)logits[v] - peak);
    }
    return peak + log(sum);
}

static double divergence(const float *p, const float *q, size_t vocabulary)
{
    double kl = 0.0, of_p = log_sum_exp(p, vocabulary), of_q = log_sum_exp(q, vocabulary);
    for (size_t v = 0; v < vocabulary; v++) {
        double log_p = (double)p[v] - of_p;
        kl += exp(log_p) * (log_p - ((double)q[v] - of_q));
    }
    return kl;
}

/* The design takes 8 bits as the default if the mean KL against f16 is at most 0.01 nats. The store
 * keeps both types side by side. */
static void test_eight_bits_cost_less_than_a_hundredth_of_a_nat(void **state)
{
    (void)state;
    loop *const loops[2] = {&exact, &small};
    distributions seen[2][FACTS] = {{{0}}};
    uint64_t bytes[2], before = 0;
    for (int i = 0; i < 2; i++) {
        engine_session *session = NULL;
        store_stats stats;
        for (size_t fact = 0; fact < FACTS; fact++) {
            assert_int_equal(answer_fact(loops[i], &session, fact, UINT64_MAX, &seen[i][fact]),
                             ENGINE_KV_COMPUTED);
        }
        assert_int_equal(answer_fact(loops[i], &session, 0, UINT64_MAX, NULL), ENGINE_KV_DISK);
        engine_session_close(session);
        loop_check(store_get_stats(exact.store, &stats, NULL), NULL);
        assert_int_equal(stats.kv_entries, (i + 1) * FACTS);
        bytes[i] = stats.bytes_kv - before;
        before = stats.bytes_kv;
        store_stats_free(&stats);
    }
    double sum = 0.0;
    size_t count = 0;
    for (size_t fact = 0; fact < FACTS; fact++) {
        distributions *p = &seen[0][fact], *q = &seen[1][fact];
        assert_int_equal(p->count, q->count);
        for (size_t t = 0; t < p->count; t++, count++) {
            sum += divergence(p->logits + t * p->vocabulary, q->logits + t * p->vocabulary,
                              p->vocabulary);
        }
        base_free(p->logits);
        base_free(q->logits);
    }
    printf("mean KL of q8 from f16: %.4f nats over %zu tokens; bytes on disk: %llu and %llu\n",
           sum / (double)count, count, (unsigned long long)bytes[1], (unsigned long long)bytes[0]);
    assert_true(count >= 30 && sum > 0.0);
    assert_true(sum / (double)count <= 0.01);
    assert_true((double)bytes[1] < 0.54 * (double)bytes[0]);
}

/* With room for little more than one block, keys and values go, and every memory still answers. */
static void test_a_budget_is_kept_after_each_answer(void **state)
{
    (void)state;
    loop l = small;
    loop_open_store(&l);
    loop_ingest(&l, NULL, texts, FACTS);
    uint64_t budget = UINT64_MAX, entries = 0;
    engine_session *session = NULL;
    for (size_t fact = 0; fact < FACTS; fact++) {
        store_stats stats;
        assert_int_equal(answer_fact(&l, &session, fact, budget, NULL), ENGINE_KV_COMPUTED);
        loop_check(store_get_stats(l.store, &stats, NULL), NULL);
        budget = fact ? budget : stats.bytes_kv * 5 / 4;
        assert_true(stats.bytes_kv <= budget && stats.episodes == FACTS);
        entries = stats.kv_entries;
        store_stats_free(&stats);
    }
    assert_in_range(entries, 1, 2);
    engine_session_close(session);
    loop_close_store(&l);
}

int main(void)
{
    loop_open_engine_as(&exact, ENGINE_CORE_FULL, 0, KVBLOB_F16);
    loop_open_store(&exact);
    loop_ingest(&exact, NULL, texts, FACTS);
    small = exact;
    loop_open_engine_as(&small, ENGINE_CORE_FULL, 0, KVBLOB_Q8);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eight_bits_cost_less_than_a_hundredth_of_a_nat),
        cmocka_unit_test(test_a_budget_is_kept_after_each_answer),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    loop_close_store(&exact);
    engine_close(small.e);
    engine_close(exact.e);
    return failed;
}
