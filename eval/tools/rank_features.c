/* eval/tools/rank_features.c: what ranking sees, question by question: for eval/calibrate_rank.py,
 * which builds this program, runs it and fits the weights of retrieval/rank.c. Not part of the
 * product.
 *
 *     rank_features STORE ENCODER QUESTIONS.jsonl NOW features > features.jsonl
 *     rank_features STORE ENCODER QUESTIONS.jsonl NOW ranks [NAME=VALUE ...] > ranks.jsonl
 *
 * features: one line a question, its candidates with every part of the score, and the cosines
 * between near ones. ranks: one line a question, the external ids of the first ten hits of
 * retrieval_search under the default weights with the named ones replaced, the best score and the
 * milliseconds of the search. NOW is the clock of questions that bring no time of their own.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/encoder.h"
#include "retrieval/internal.h"

enum { WIDTH = 32, HITS = 10, TWINS = 48, LINE_MAX_BYTES = 1 << 20 };
static const float TWIN_COSINE_MIN = 0.75f;

typedef struct tool {
    store *s;
    retrieval *r;
    encoder *e;
    int64_t now_us;
} tool;

static void stop(const char *what, const base_error *err)
{
    fprintf(stderr, "rank_features: %s%s%s\n", what, err ? ": " : "", err ? err->text : "");
    exit(1);
}

/* The question as the harness would ask it (semantics §1): as_of cuts, or is only spoken of. */
static retrieval_query query_of(const tool *t, json_t *question, float *vector)
{
    base_error err = {0};
    const char *text = json_string_value(json_object_get(question, "question"));
    const char *as_of = json_string_value(json_object_get(question, "as_of"));
    const char *axis =
        json_string_value(json_object_get(json_object_get(question, "meta"), "time_axis"));
    int64_t time_us = BASE_TIME_NONE;
    if (!text || (as_of && base_time_parse(as_of, strlen(as_of), &time_us, &err))) {
        stop("a question without text or with a bad time", &err);
    }
    bool valid = axis && strcmp(axis, "valid") == 0;
    bool cuts = as_of && !valid;
    if (encoder_encode(t->e, text, strlen(text), vector, &err)) {
        stop("cannot encode", &err);
    }
    return (retrieval_query){.text = text,
                             .text_size = strlen(text),
                             .vector = vector,
                             .now_us = cuts ? time_us : t->now_us,
                             .as_of_us = cuts ? time_us : t->now_us,
                             .about_us = valid ? time_us : BASE_TIME_NONE,
                             .k = HITS,
                             .use_strength = true,
                             .use_time = true,
                             .use_bm25 = true};
}

static json_t *twins_of(const tool *t, const retrieval_candidates *c)
{
    json_t *twins = json_array();
    size_t n = c->count < TWINS ? c->count : TWINS;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < n; k++) {
            const retrieval_candidate *a = &c->items[i], *b = &c->items[k];
            if (a->brief.observed_at_us < b->brief.observed_at_us && a->episode.vector &&
                b->episode.vector) {
                float cosine = retrieval_dot(a->episode.vector, b->episode.vector, t->r->dim);
                if (cosine >= TWIN_COSINE_MIN) {
                    json_array_append_new(twins,
                                          json_pack("[i,i,f]", (int)i, (int)k, (double)cosine));
                }
            }
        }
    }
    return twins;
}

static json_t *features_of(const tool *t, retrieval_query *q)
{
    base_error err = {0};
    retrieval_candidates c = {0};
    q->k = WIDTH;
    if (retrieval_find_candidates(t->r, q, &c, &err)) {
        stop("cannot search", &err);
    }
    json_t *list = json_array();
    for (size_t i = 0; i < c.count; i++) {
        const retrieval_candidate *x = &c.items[i];
        json_array_append_new(
            list, json_pack("[s,f,f,f,f,f,f,f,f,f,f,I]", x->episode.external_id,
                            (double)x->similarity, (double)x->bm25, (double)x->strength,
                            (double)x->match.years, (double)x->match.inside, (double)x->match.near,
                            (double)x->match.fit, (double)x->match.valid, (double)x->match.observed,
                            (double)x->numbers,
                            (json_int_t)(x->brief.observed_at_us / 1000000)));
    }
    json_t *out = json_pack("{s:o,s:o}", "candidates", list, "twins", twins_of(t, &c));
    retrieval_candidates_free(&c);
    return out;
}

static json_t *ranks_of(const tool *t, const retrieval_query *q)
{
    base_error err = {0};
    retrieval_hit hits[HITS];
    size_t count;
    double begin = base_clock_ms();
    if (retrieval_search(t->r, q, hits, &count, &err)) {
        stop("cannot search", &err);
    }
    double ms = base_clock_ms() - begin;
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        store_episode e;
        if (store_get(t->s, hits[i].id, &e, &err)) {
            stop("cannot read a hit", &err);
        }
        json_array_append_new(list, json_string(e.external_id));
        store_episode_free(&e);
    }
    return json_pack("{s:o,s:f,s:f}", "hits", list, "score", count ? (double)hits[0].score : 0.0,
                     "ms", ms);
}

static bool set_weight(retrieval_weights *w, const char *name, float value)
{
    const struct {
        const char *name;
        float *field;
    } fields[] = {{"similarity", &w->similarity},
                  {"bm25", &w->bm25},
                  {"time", &w->time},
                  {"numbers", &w->numbers},
                  {"bm25_half", &w->bm25_half},
                  {"strength_power", &w->strength_power},
                  {"years", &w->years},
                  {"inside", &w->inside},
                  {"near", &w->near},
                  {"valid", &w->valid},
                  {"observed", &w->observed},
                  {"twin_cosine", &w->twin_cosine},
                  {"twin_margin", &w->twin_margin}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (strcmp(fields[i].name, name) == 0) {
            *fields[i].field = value;
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    base_error err = {0};
    tool t = {0};
    base_pool *pool = NULL;
    store_options options = {.read_only = true};
    static char line[LINE_MAX_BYTES];
    float vector[STORE_VECTOR_DIM_MAX];
    if (argc < 6) {
        stop("usage: STORE ENCODER QUESTIONS NOW features|ranks [NAME=VALUE ...]", NULL);
    }
    FILE *file = fopen(argv[3], "r");
    if (!file || base_time_parse(argv[4], strlen(argv[4]), &t.now_us, &err) ||
        base_pool_create(0, &pool, &err) || encoder_open(argv[2], pool, &t.e, &err) ||
        store_open(argv[1], &options, &t.s, &err) ||
        retrieval_open(t.s, encoder_dim(t.e), &t.r, &err)) {
        stop("cannot open", &err);
    }
    for (int i = 6; i < argc; i++) {
        char name[32];
        float value;
        if (sscanf(argv[i], "%31[a-z0-9_]=%f", name, &value) != 2 ||
            !set_weight(&t.r->weights, name, value)) {
            stop(argv[i], NULL);
        }
    }
    bool features = strcmp(argv[5], "features") == 0;
    while (fgets(line, sizeof line, file)) {
        json_t *question = json_loads(line, 0, NULL);
        if (!question) {
            stop("a line is no JSON", NULL);
        }
        retrieval_query q = query_of(&t, question, vector);
        json_t *out = features ? features_of(&t, &q) : ranks_of(&t, &q);
        json_object_set(out, "id", json_object_get(question, "id"));
        json_dumpf(out, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(out);
        json_decref(question);
    }
    fclose(file);
    retrieval_close(t.r);
    store_close(t.s);
    encoder_close(t.e);
    base_pool_free(pool);
    return fflush(stdout) == 0 ? 0 : 1;
}
