/* eval/consolidate.c: numbered facts of which later ones contradict earlier ones, asked in one and
 * in two hops: the shape of MemoryAgentBench's FactConsolidation (Hu et al. 2025), with names that
 * no model knows. The number of a fact and its time say the same. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "eval/harness.h"

/* A person lives in a town or works for a firm; a town or firm has a value. */
typedef struct relation {
    const char *told, *asked; /* of subject (and value) */
    const char *second;       /* asked of "the town where %s lives", NULL for a first hop */
    bool person;              /* subject is a person, its value a town */
} relation;
static const relation relations[] = {
    {"%s lives in %s.", "In which town does %s live?", NULL, true},
    {"The emblem of %s is the %s.", "What is the emblem of %s?",
     "What is the emblem of the town where %s lives?", false},
    {"The sign of the inn in %s shows a %s.", "What does the sign of the inn in %s show?",
     "What does the sign of the inn show in the town where %s lives?", false},
    {"The toy that %s is known for is the %s.", "Which toy is %s known for?",
     "Which toy is the town where %s lives known for?", false},
};
enum { RELATIONS = sizeof relations / sizeof *relations, VERSIONS_MAX = 3 };

typedef struct fact {
    size_t relation, subject;
    size_t versions, values[VERSIONS_MAX]; /* town or value numbers, oldest first */
    size_t serials[VERSIONS_MAX];
} fact;

typedef struct world {
    fact *facts; /* [RELATIONS * subjects]: by relation, then by subject */
    size_t subjects, told;
    size_t *order; /* serial -> fact * VERSIONS_MAX + version */
} world;

static void name_subject(const relation *r, size_t subject, char *out, size_t size)
{
    if (r->person) {
        eval_word_person(subject, out, size);
    } else {
        eval_word_town(subject, out, size);
    }
}

static void name_value(const relation *r, size_t value, char *out, size_t size)
{
    if (r->person) {
        eval_word_town(value, out, size);
    } else {
        eval_word_value(value, out, size);
    }
}

/* Facts, six in ten of them contradicted once or twice, in a drawn order that keeps the versions of
 * a fact in theirs. */
static base_status build(world *w, base_rng *rng, base_error *err)
{
    size_t count = RELATIONS * w->subjects, at = 0;
    w->facts = base_calloc(count, sizeof *w->facts);
    size_t *shuffled = base_calloc(count * VERSIONS_MAX, sizeof *shuffled);
    w->order = base_calloc(count * VERSIONS_MAX, sizeof *w->order);
    if (!w->facts || !shuffled || !w->order) {
        base_free(shuffled);
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu facts", count);
    }
    for (size_t i = 0; i < count; i++) {
        fact *f = &w->facts[i];
        f->relation = i / w->subjects;
        f->subject = i % w->subjects;
        f->versions = base_rng_below(rng, 10) < 6 ? 2 + (size_t)base_rng_below(rng, 2) : 1;
        size_t range = relations[f->relation].person ? w->subjects : EVAL_WORD_VALUES;
        size_t value = (size_t)base_rng_below(rng, range);
        for (size_t v = 0; v < f->versions; v++) {
            f->values[v] = value;
            value = (value + 1 + (size_t)base_rng_below(rng, range / VERSIONS_MAX)) % range;
        }
    }
    eval_shuffle(rng, shuffled, count * VERSIONS_MAX);
    for (size_t i = 0; i < count * VERSIONS_MAX; i++) {
        fact *f = &w->facts[shuffled[i] / VERSIONS_MAX];
        if (shuffled[i] % VERSIONS_MAX < f->versions) { /* this draw is the fact's next version */
            size_t version = 0;
            while (version < f->versions && f->serials[version]) {
                version++;
            }
            f->serials[version] = ++at;
            w->order[at - 1] = shuffled[i] / VERSIONS_MAX * VERSIONS_MAX + version;
        }
    }
    w->told = at;
    base_free(shuffled);
    return BASE_OK;
}

static base_status add_documents(const world *w, eval_set *set, base_error *err)
{
    base_status status = BASE_OK;
    int64_t begin = base_time_from_civil(2024, 1, 1);
    for (size_t i = 0; i < w->told && !status; i++) {
        const fact *f = &w->facts[w->order[i] / VERSIONS_MAX];
        const relation *r = &relations[f->relation];
        char id[32], subject[64], value[64], sentence[192], text[256], time[BASE_TIME_TEXT_MAX];
        name_subject(r, f->subject, subject, sizeof subject);
        name_value(r, f->values[w->order[i] % VERSIONS_MAX], value, sizeof value);
        snprintf(id, sizeof id, "fact-%zu", i + 1);
        snprintf(sentence, sizeof sentence, r->told, subject, value);
        snprintf(text, sizeof text, "%zu. %s", i + 1, sentence);
        base_time_format(begin + (int64_t)i * 3600 * 1000000, time);
        status = eval_add_line(&set->documents_text,
                               json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", id, "source", "facts",
                                         "title", "", "text", text, "observed_at", time),
                               err);
    }
    return status;
}

static const fact *fact_of(const world *w, size_t of, size_t subject)
{
    return &w->facts[of * w->subjects + subject];
}

static size_t last_value(const fact *f)
{
    return f->values[f->versions - 1];
}

static void append_text(json_t *list, const char *text)
{
    json_array_append_new(list, json_string(text));
}

/* Evidence of one fact: the document of its last version. */
static void append_evidence(json_t *list, const fact *f)
{
    char id[32];
    snprintf(id, sizeof id, "fact-%zu", f->serials[f->versions - 1]);
    append_text(list, id);
}

static base_status add_question(const world *w, size_t number, size_t asked, size_t subject,
                                bool two_hops, eval_set *set, base_error *err)
{
    const relation *r = &relations[asked];
    const fact *home = two_hops ? fact_of(w, 0, subject) : NULL;
    size_t towns = two_hops ? home->versions : 1;
    char id[48], name[64], text[256], gold[64], value[64];
    json_t *stale = json_array(), *evidence = json_array();
    const fact *f = fact_of(w, asked, two_hops ? last_value(home) : subject);
    name_value(r, last_value(f), gold, sizeof gold);
    if (two_hops) {
        append_evidence(evidence, home);
    }
    append_evidence(evidence, f);
    for (size_t t = 0; t < towns; t++) { /* what an older version of either hop leads to */
        const fact *g = two_hops ? fact_of(w, asked, home->values[t]) : f;
        for (size_t v = 0; v < g->versions; v++) {
            name_value(r, g->values[v], value, sizeof value);
            if (strcmp(value, gold) != 0) {
                append_text(stale, value);
            }
        }
    }
    name_subject(two_hops ? &relations[0] : r, subject, name, sizeof name);
    snprintf(text, sizeof text, two_hops ? r->second : r->asked, name);
    snprintf(id, sizeof id, "consolidate/%zu", number);
    int64_t updates =
        (int64_t)(two_hops && home->versions > f->versions ? home->versions : f->versions);
    bool unchanged = json_array_size(stale) == 0;
    return eval_add_line(&set->questions_text,
                         json_pack("{s:s, s:s, s:[s], s:o, s:s, s:o, s:{s:s, s:I, s:b, s:s}}", "id",
                                   id, "question", text, "answers", gold, "stale_answers", stale,
                                   "as_of", "2034-01-01", "evidence", evidence, "meta", "kind",
                                   two_hops ? "two_hops" : "single_hop", "updates", updates,
                                   "unchanged", unchanged, "time_axis", "observed"),
                         err);
}

base_status eval_generate_consolidate(const eval_options *o, engine *e, size_t limit, eval_set *set,
                                      base_error *err)
{
    enum { SUBJECTS_MIN = 12 };
    /* A subject gives up to four single-hop and three two-hop questions. */
    world w = {.subjects = limit / 4 < SUBJECTS_MIN ? SUBJECTS_MIN : limit / 4};
    base_rng rng;
    (void)e;
    base_rng_seed(&rng, o->seed);
    base_status status = build(&w, &rng, err);
    size_t *single = base_calloc(RELATIONS * w.subjects, sizeof *single);
    size_t *two = base_calloc((RELATIONS - 1) * w.subjects, sizeof *two);
    if (!status && (!single || !two)) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu questions", limit);
    }
    if (!status) {
        status = add_documents(&w, set, err);
        eval_shuffle(&rng, single, RELATIONS * w.subjects);
        eval_shuffle(&rng, two, (RELATIONS - 1) * w.subjects);
    }
    for (size_t i = 0; i < limit && !status; i++) {
        bool hops = i % 2 == 1;
        size_t pick = hops ? two[i / 2] + w.subjects : single[i / 2];
        status = add_question(&w, i, pick / w.subjects, pick % w.subjects, hops, set, err);
    }
    base_free(single);
    base_free(two);
    base_free(w.facts);
    base_free(w.order);
    return status;
}
