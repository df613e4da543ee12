/* Lived memory: what is told in a stream, leaves the bounded window, and is asked for in the same
 * stream. Nothing is ingested.
 *
 * Invented facts are told one by one between filler sentences; later the stream begins the sentence
 * that tells a fact, and the model goes on. Right: the value is in what it says. Two distances: the
 * fact is still in the window, or has left it long ago; and the same stream without a store.
 *
 * The long form: EIDETIC_LIVED_TOKENS=200000 tells 100 facts (EIDETIC_LIVED_FACTS) and asks at
 * 4,096 to 190,000 tokens, in the hybrid (EIDETIC_LIVED_WINDOW=W: a plain window of W);
 * EIDETIC_LIVED_SEED=N draws others (5), EIDETIC_LIVED_FILLER=FILE takes the filler from a text,
 * EIDETIC_LIVED_READER=1 adds the reader adapter, EIDETIC_LIVED_SERIES=FILE gets "lived,tokens,ms
 * per token,resident KiB" lines for eval/plot_series.py (time of the processor). Answers that are
 * wrong are shown with what memory was asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "engine/session.h"
#include "tests/unit/loop_testing.h"

enum { FACTS_MAX = 100, DISTANCES_MAX = 8, ANSWER = 8, SAMPLES = 50, HYBRID_WINDOW = 512 };

/* --- a stream's text -------------------------------------------------------------------------- */

static const char *const places[] = {
    "Brindle Hall", "Skerry Lodge",  "Ambleford Mill", "Tarn House",     "Ravens Court",
    "Larch Manor",  "Otter Cottage", "Pewter Grange",  "Saffron Priory", "Willow Barn"};
static const char *const jobs[] = {"caretaker", "gardener", "cook",      "owner",  "architect",
                                   "painter",   "doctor",   "librarian", "porter", "organist"};
static const char *const names[] = {"Smith",  "Brown", "Wilson", "Taylor", "Davis",
                                    "Clark",  "Lewis", "Walker", "Hall",   "Young",
                                    "Wright", "Baker", "Carter", "Cooper", "Fisher"};
static const char *const subjects[] = {"The rain", "A cart", "The road", "Some sheep",
                                       "The mist", "A bird", "The wind", "A neighbour"};
static const char *const verbs[] = {"went on over", "came slowly down", "lay quietly on",
                                    "passed by",    "was seen near",    "turned towards"};
static const char *const scenes[] = {"the long hill",  "the old bridge", "the grey fields",
                                     "the far meadow", "the low wall",   "the muddy lane"};
enum { PLACES = 10, JOBS = 10, NAMES = 15 };

typedef struct stream_text {
    base_rng rng;
    base_buffer filler; /* a text, or none: made sentences */
    size_t filler_at;
} stream_text;

static void tell(char *out, size_t size, size_t fact, const size_t *values)
{
    snprintf(out, size, "The %s of %s is called %s.", jobs[fact / PLACES], places[fact % PLACES],
             names[values[fact]]);
}

static void ask(char *out, size_t size, size_t fact)
{
    snprintf(out, size, " The %s of %s is called", jobs[fact / PLACES], places[fact % PLACES]);
}

/* One more sentence, or about as much of the given text: facts stand between sentences or lines. */
static void fill(stream_text *t, char *out, size_t size)
{
    if (t->filler.size > 0) {
        size_t left = t->filler.size - t->filler_at, count = left < 60 ? left : 60;
        const char *at = t->filler.data + t->filler_at;
        while (count < left && count + 8 < size && at[count - 1] != '\n' &&
               !(strchr(".!?", at[count - 1]) && strchr(" \n", at[count]))) {
            count++;
        }
        snprintf(out, size, "%.*s", (int)count, t->filler.data + t->filler_at);
        t->filler_at = count == left ? 0 : t->filler_at + count;
        return;
    }
    snprintf(out, size, " %s %s %s.", subjects[base_rng_below(&t->rng, 8)],
             verbs[base_rng_below(&t->rng, 6)], scenes[base_rng_below(&t->rng, 6)]);
}

/* --- one run ---------------------------------------------------------------------------------- */

typedef struct plan {
    size_t tokens; /* in all */
    size_t facts, distances;
    size_t distance[DISTANCES_MAX]; /* tokens from telling to asking */
    bool store;
    bool tell; /* which answers are wrong, and what memory was asked for them */
} plan;

typedef struct outcome {
    size_t asked[DISTANCES_MAX], right[DISTANCES_MAX];
    size_t brought; /* questions that brought the fact's own episode */
    engine_lived lived;
    double ms[SAMPLES];
    size_t kib[SAMPLES], at[SAMPLES], samples;
} outcome;

static size_t read_on(engine_session *s, const char *text, size_t more, engine_answer *answer)
{
    base_error err = {0};
    loop_check(engine_continue(s, text, more, answer, &err), &err);
    return answer->prefill_tokens + answer->decode_tokens;
}

static bool brought(loop *l, const engine_answer *answer, const char *fact)
{
    bool found = false;
    for (size_t e = 0; e < answer->event_count; e++) {
        for (size_t m = 0; m < answer->events[e].memory_count; m++) {
            store_episode episode;
            loop_check(store_get(l->store, answer->events[e].memories[m].id, &episode, NULL), NULL);
            found = found || strstr(episode.text, fact);
            store_episode_free(&episode);
        }
    }
    return found;
}

/* Does the store hold a text with this in it? */
static bool stored(loop *l, const char *fact)
{
    bool found = false;
    store_stats stats;
    loop_check(store_get_stats(l->store, &stats, NULL), NULL);
    for (uint64_t id = 1; id <= stats.episodes && !found; id++) {
        store_episode episode;
        loop_check(store_get(l->store, id, &episode, NULL), NULL);
        found = strstr(episode.text, fact) != NULL;
        store_episode_free(&episode);
    }
    store_stats_free(&stats);
    return found;
}

static void print_wrong(loop *l, size_t distance, const char *fact, bool found,
                        const engine_answer *answer)
{
    printf("wrong at %zu: %s -> '%s', episode %s\n", distance, fact, answer->text,
           found             ? "brought"
           : stored(l, fact) ? "stored, not brought"
                             : "not stored");
    for (size_t e = 0; e < answer->event_count; e++) {
        printf("  asked '%s'\n", answer->events[e].query);
        for (size_t m = 0; m < answer->events[e].memory_count; m++) {
            const engine_memory *memory = &answer->events[e].memories[m];
            store_episode episode;
            loop_check(store_get(l->store, memory->id, &episode, NULL), NULL);
            printf("    %.3f '%s'\n", (double)memory->score, episode.text);
            store_episode_free(&episode);
        }
    }
    fflush(stdout);
}

static void sample(outcome *o, size_t total, size_t tokens, clock_t begin)
{
    if (o->samples < SAMPLES && tokens >= (o->samples + 1) * total / SAMPLES) {
        o->at[o->samples] = tokens;
        o->ms[o->samples] = (double)(clock() - begin) * 1e3 / CLOCKS_PER_SEC;
        o->kib[o->samples++] = loop_resident_kib();
    }
}

/* Facts are told and asked for at planned places of one stream. */
static void run_stream(loop *l, const plan *p, stream_text *text, outcome *o)
{
    size_t told_at[FACTS_MAX], ask_at[FACTS_MAX], values[FACTS_MAX], tokens = 0;
    bool told[FACTS_MAX] = {0}, asked[FACTS_MAX] = {0};
    engine_session_options options;
    engine_session_defaults(&options);
    options.lived_source = p->store ? "lived" : NULL;
    options.keep_writes = p->store;
    options.no_uses = true;
    engine_session *s = loop_session(l, p->store ? ENGINE_ARM_FULL : ENGINE_ARM_NONE, &options);
    for (size_t i = 0; i < p->facts; i++) {
        size_t distance = p->distance[i % p->distances];
        values[i] = (size_t)base_rng_below(&text->rng, NAMES);
        told_at[i] = (size_t)base_rng_below(&text->rng, p->tokens - distance);
        ask_at[i] = told_at[i] + distance;
    }
    *o = (outcome){0};
    clock_t begin = clock();
    while (tokens < p->tokens) {
        char piece[512], fact[128];
        engine_answer answer;
        size_t i = 0;
        fill(text, piece, sizeof piece - 160);
        while (i < p->facts && (told[i] || told_at[i] > tokens)) {
            i++;
        }
        if (i < p->facts) {
            told[i] = true; /* after the planned place, if there was none before it */
            ask_at[i] = tokens + p->distance[i % p->distances];
            tell(fact, sizeof fact, i, values);
            snprintf(piece + strlen(piece), sizeof piece - strlen(piece), "\n%s\n", fact);
        }
        tokens += read_on(s, piece, 0, &answer);
        engine_answer_free(&answer);
        for (i = 0; i < p->facts; i++) {
            if (!told[i] || asked[i] || ask_at[i] > tokens) {
                continue;
            }
            asked[i] = true;
            ask(piece, sizeof piece, i);
            tell(fact, sizeof fact, i, values);
            tokens += read_on(s, piece, ANSWER, &answer);
            o->asked[i % p->distances]++;
            o->right[i % p->distances] += strstr(answer.text, names[values[i]]) != NULL;
            bool found = p->store && brought(l, &answer, fact);
            o->brought += found;
            if (p->tell && p->store && !strstr(answer.text, names[values[i]])) {
                print_wrong(l, p->distance[i % p->distances], fact, found, &answer);
            }
            engine_session_write(s);
            engine_answer_free(&answer);
            tokens += read_on(s, "\n", 0, &answer);
            engine_answer_free(&answer);
        }
        sample(o, p->tokens, tokens, begin);
    }
    o->lived = engine_session_lived(s);
    engine_session_close(s);
}

static void print_outcome(const plan *p, const outcome *o)
{
    for (size_t d = 0; d < p->distances; d++) {
        printf("%s distance %6zu: %zu of %zu\n", p->store ? "lived memory," : "no store,",
               p->distance[d], o->right[d], o->asked[d]);
    }
    if (p->store) {
        printf("%.2f of %llu tokens that left were written (%llu of %llu episodes); %zu answers "
               "had the fact's episode\n",
               (double)o->lived.tokens_written / (double)o->lived.tokens_left,
               (unsigned long long)o->lived.tokens_left,
               (unsigned long long)o->lived.episodes_written,
               (unsigned long long)o->lived.episodes_left, o->brought);
    }
}

static void write_series(const outcome *o)
{
    const char *path = getenv("EIDETIC_LIVED_SERIES");
    FILE *file = path ? fopen(path, "w") : NULL;
    for (size_t i = 0; file && i < o->samples; i++) {
        double ms = o->ms[i] - (i ? o->ms[i - 1] : 0.0);
        size_t tokens = o->at[i] - (i ? o->at[i - 1] : 0);
        fprintf(file, "lived,%zu,%.3f,%zu\n", o->at[i], ms / (double)tokens, o->kib[i]);
    }
    if (file) {
        fclose(file);
    }
}

/* --- the default model ------------------------------------------------------------------------ */

static size_t number(const char *variable, size_t otherwise)
{
    const char *text = getenv(variable);
    return text ? (size_t)strtoul(text, NULL, 10) : otherwise;
}

static void test_what_has_left_the_window_comes_back(void **state)
{
    (void)state;
    loop l = {0};
    size_t total = number("EIDETIC_LIVED_TOKENS", 0);
    size_t window = number("EIDETIC_LIVED_WINDOW", total ? 0 : 128);
    engine_core core = window ? ENGINE_CORE_WINDOW : ENGINE_CORE_HYBRID;
    size_t seen = window ? window : HYBRID_WINDOW;
    plan p = {.tokens = total ? total : 900,
              .facts = total ? number("EIDETIC_LIVED_FACTS", FACTS_MAX) : 8,
              .distances = 2,
              .distance = {seen / 4, total ? 4096 : 600},
              .store = true,
              .tell = total > 0};
    const size_t far[] = {16384, 65536, 190000};
    for (size_t i = 0; i < 3 && far[i] < total; i++) {
        p.distance[p.distances++] = far[i];
    }
    const char *filler = getenv("EIDETIC_LIVED_FILLER");
    base_error err = {0};
    outcome with, without;
    if (getenv("EIDETIC_LIVED_READER")) {
        loop_open_reader(&l, core, window);
    } else {
        loop_open_engine_with(&l, core, window);
    }
    loop_open_store(&l);
    for (int i = 0; i < 2; i++) {
        stream_text text = {0};
        base_rng_seed(&text.rng, number("EIDETIC_LIVED_SEED", 5));
        if (filler) {
            loop_check(base_file_read(filler, (size_t)64 << 20, &text.filler, &err), &err);
        }
        p.store = i == 0;
        run_stream(&l, &p, &text, i ? &without : &with);
        print_outcome(&p, i ? &without : &with);
        if (i == 0) {
            write_series(&with);
        }
        base_buffer_free(&text.filler);
    }
    size_t right = 0, asked = 0, guessed = 0;
    for (size_t d = 1; d < p.distances; d++) {
        right += with.right[d];
        asked += with.asked[d];
        guessed += without.right[d];
    }
    store_stats stats;
    loop_check(store_get_stats(l.store, &stats, &err), &err);
    assert_int_equal(stats.episodes, with.lived.episodes_written);
    assert_true(stats.kv_entries >= stats.episodes - stats.episodes / 20);
    store_stats_free(&stats);
    assert_int_equal(without.lived.tokens_left, 0);
    assert_true(with.lived.tokens_left >= p.tokens - 2 * seen);
    assert_true(with.lived.episodes_written < with.lived.episodes_left);
    /* A name can be guessed: one in fifteen. */
    assert_true(asked > 0 && guessed <= 1 + asked / 4);
    assert_true(with.brought + 1 >= asked || total);
    assert_true(right >= guessed + asked / 3);
    loop_close_store(&l);
    engine_close(l.e);
}

/* A text that tells its facts three times, with filler between, read in one go. What comes back
 * stands behind the sinks in the order of the stream, within the budget, and nothing is run again
 * for it. */
static void test_what_is_read_comes_back_to_where_it_stood(void **state)
{
    (void)state;
    loop l = {0};
    stream_text text = {0};
    base_buffer whole = {0};
    engine_session_options options;
    engine_answer answer;
    base_error err = {0};
    size_t brought = 0;
    loop_open_engine_with(&l, ENGINE_CORE_WINDOW, 128);
    loop_open_store(&l);
    base_rng_seed(&text.rng, 5);
    for (size_t i = 0; i < 60; i++) {
        char piece[512], fact[128];
        const size_t values[20] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
        tell(fact, sizeof fact, i % 20, values);
        fill(&text, piece, sizeof piece);
        loop_check(base_buffer_printf(&whole, "%s %s", fact, piece), &err);
    }
    engine_session_defaults(&options);
    options.lived_source = "lived";
    options.keep_writes = true;
    engine_session *s = loop_session(&l, ENGINE_ARM_FULL, &options);
    loop_check(engine_generate(s, whole.data, 0, &answer, &err), &err);
    for (size_t e = 0; e < answer.event_count; e++) {
        brought += answer.events[e].in_answer ? 0 : answer.events[e].memory_count;
    }
    printf("%zu lookups brought %zu episodes\n", answer.event_count, brought);
    assert_true(brought >= 10);
    assert_int_equal(answer.rerun_tokens, 0);
    assert_true(s->window.resident_count > 3);
    assert_true(splice_resident_slots(&s->window) <= s->options.memory_slots_max);
    size_t at = core_slots_begin(s->window.stream);
    uint64_t before = 0;
    for (size_t i = 0; i < s->window.resident_count; i++) {
        const splice_resident *there = NULL;
        for (size_t k = 0; k < s->window.resident_count; k++) {
            there = s->window.residents[k].at == at ? &s->window.residents[k] : there;
        }
        assert_non_null(there);
        assert_true(there->episode > before);
        before = there->episode;
        at += there->count;
    }
    engine_answer_free(&answer);
    engine_session_close(s);
    base_buffer_free(&whole);
    loop_close_store(&l);
    engine_close(l.e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_has_left_the_window_comes_back),
        cmocka_unit_test(test_what_is_read_comes_back_to_where_it_stood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
