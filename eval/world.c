/* eval/world.c: towns whose attributes change at different speeds, some never, over four years;
 * asked at drawn moments: what is so now, what was known as of an earlier day, and about an earlier
 * day. The runner replays it: what a question is asked on is all that had been said by then. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "eval/harness.h"

static const struct {
    const char *speed, *told, *asked, *about; /* told: town, value, day; about: town, day */
    double per_year;                          /* changes */
    bool person;                              /* values are persons */
} attributes[] = {
    {"never", "The founder of %s was %s, says the chronicle of %s.", "Who was the founder of %s?",
     NULL, 0, true},
    {"slow", "The mayor of %s is %s, in office since %s.", "Who is the mayor of %s?",
     "Who was the mayor of %s on %s?", 0.5, true},
    {"medium", "The inn at %s is called the %s since %s.", "What is the inn at %s called?",
     "What was the inn at %s called on %s?", 3, false},
    {"fast", "The prize of the fair at %s is the %s, drawn on %s.",
     "What is the prize of the fair at %s?", "What was the prize of the fair at %s on %s?", 12,
     false},
};
enum { ATTRIBUTES = sizeof attributes / sizeof *attributes, CHANGES_MAX = 160 };

typedef struct key {
    int64_t times[CHANGES_MAX]; /* ascending */
    size_t values[CHANGES_MAX], count;
} key;

typedef struct change {
    int64_t time_us;
    size_t key, version;
} change;

static int by_time(const void *pa, const void *pb)
{
    const change *a = pa, *b = pb;
    if (a->time_us != b->time_us) {
        return a->time_us < b->time_us ? -1 : 1;
    }
    return a->key < b->key ? -1 : a->key > b->key;
}

/* A Poisson process of changes (exponential gaps of a day at least) from a day in January 2021. */
static void draw_key(base_rng *rng, size_t attribute, int64_t end_us, key *k)
{
    enum { PERSONS = 24 * 24 };
    double per_year = attributes[attribute].per_year;
    size_t range = attributes[attribute].person ? PERSONS : EVAL_WORD_VALUES;
    size_t value = (size_t)base_rng_below(rng, range);
    int64_t time = base_time_from_civil(2021, 1, 1 + (int)base_rng_below(rng, 28)) +
                   (int64_t)base_rng_below(rng, 86400) * 1000000;
    while (k->count < CHANGES_MAX && time < end_us) {
        k->times[k->count] = time;
        k->values[k->count++] = value;
        if (per_year <= 0) {
            return;
        }
        double days = 1 - log(1 - base_rng_unit(rng)) * 365.25 / per_year;
        time += (int64_t)(days * (double)BASE_DAY_US);
        value = (value + 1 + (size_t)base_rng_below(rng, range / 2)) % range;
    }
}

/* Index of the version that holds at a time; there is one. */
static size_t version_at(const key *k, int64_t time_us)
{
    size_t v = 0;
    while (v + 1 < k->count && k->times[v + 1] <= time_us) {
        v++;
    }
    return v;
}

static void name_value(size_t attribute, size_t value, char *out, size_t size)
{
    if (attributes[attribute].person) {
        eval_word_person(value, out, size);
    } else {
        eval_word_value(value, out, size);
    }
}

static void name_day(int64_t time_us, char *out, size_t size)
{
    static const char *const months[] = {"January",   "February", "March",    "April",
                                         "May",       "June",     "July",     "August",
                                         "September", "October",  "November", "December"};
    int year, month, day;
    base_time_to_civil(time_us, &year, &month, &day);
    snprintf(out, size, "%d %s %d", day, months[month - 1], year);
}

static base_status add_document(const key *keys, const change *c, eval_set *set, base_error *err)
{
    char id[48], town[64], value[64], day[32], title[96], text[256], time[BASE_TIME_TEXT_MAX];
    size_t attribute = c->key % ATTRIBUTES, place = c->key / ATTRIBUTES;
    eval_word_town(place, town, sizeof town);
    name_value(attribute, keys[c->key].values[c->version], value, sizeof value);
    name_day(c->time_us, day, sizeof day);
    snprintf(id, sizeof id, "world/%zu/%zu", c->key, c->version);
    snprintf(text, sizeof text, attributes[attribute].told, town, value,
             attributes[attribute].per_year > 0 ? day : town);
    /* Every second town is written about with titles, the others without. */
    snprintf(title, sizeof title, "%s", place % 2 ? "" : town);
    base_time_format(c->time_us, time);
    return eval_add_line(&set->documents_text,
                         json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", id, "source", "gazette",
                                   "title", title, "text", text, "observed_at", time),
                         err);
}

typedef enum form { NOW, PAST, ABOUT } form;
static const char *const form_names[] = {"now", "past", "about"};

static base_status add_question(const key *keys, size_t number, size_t which, form f,
                                int64_t now_us, int64_t then_us, eval_set *set, base_error *err)
{
    const key *k = &keys[which];
    size_t attribute = which % ATTRIBUTES, known = version_at(k, now_us);
    size_t version = f == NOW ? known : version_at(k, then_us);
    char id[48], evidence[64], town[64], value[64], gold[64], day[32], text[256], kind[32];
    char now[BASE_TIME_TEXT_MAX], then[BASE_TIME_TEXT_MAX];
    json_t *stale = json_array();
    eval_word_town(which / ATTRIBUTES, town, sizeof town);
    name_value(attribute, k->values[version], gold, sizeof gold);
    for (size_t v = 0; v <= known; v++) {
        if (k->values[v] != k->values[version]) {
            name_value(attribute, k->values[v], value, sizeof value);
            json_array_append_new(stale, json_string(value));
        }
    }
    name_day(then_us, day, sizeof day);
    if (f == ABOUT) {
        snprintf(text, sizeof text, attributes[attribute].about, town, day);
    } else {
        snprintf(text, sizeof text, attributes[attribute].asked, town);
    }
    snprintf(id, sizeof id, "world/%zu", number);
    snprintf(kind, sizeof kind, "%s_%s", form_names[f], attributes[attribute].speed);
    snprintf(evidence, sizeof evidence, "world/%zu/%zu", which, version);
    base_time_format(now_us, now);
    base_time_format(f == NOW ? now_us : then_us, then);
    return eval_add_line(
        &set->questions_text,
        json_pack("{s:s, s:s, s:[s], s:o, s:s, s:s, s:[s], s:{s:s, s:s, s:I, s:b, s:s}}", "id", id,
                  "question", text, "answers", gold, "stale_answers", stale, "now", now, "as_of",
                  then, "evidence", evidence, "meta", "kind", kind, "cluster", town, "updates",
                  (json_int_t)known + 1, "unchanged", known == 0, "time_axis",
                  f == ABOUT ? "valid" : "observed"),
        err);
}

static int64_t draw_time(base_rng *rng, int64_t from_us, int64_t to_us)
{
    uint64_t seconds = (uint64_t)((to_us - from_us) / 1000000);
    return from_us + (int64_t)base_rng_below(rng, seconds ? seconds : 1) * 1000000;
}

static base_status add_questions(const key *keys, size_t key_count, size_t limit, base_rng *rng,
                                 eval_set *set, base_error *err)
{
    int64_t begin = base_time_from_civil(2021, 3, 1), end = base_time_from_civil(2025, 1, 1);
    base_status status = BASE_OK;
    for (size_t i = 0; i < limit && !status; i++) {
        size_t which = (size_t)base_rng_below(rng, key_count);
        uint64_t die = base_rng_below(rng, 10);
        form f = die < 6 ? NOW : die < 8 ? PAST : ABOUT;
        int64_t now = begin + (end - begin) / (int64_t)limit * (int64_t)i;
        now = draw_time(rng, now, now + (end - begin) / (int64_t)limit);
        int64_t first = base_time_from_civil(2021, 2, 1);
        f = f == ABOUT && !attributes[which % ATTRIBUTES].about ? PAST : f;
        status = add_question(keys, i, which, f, now, draw_time(rng, first, now), set, err);
    }
    return status;
}

base_status eval_generate_world(const eval_options *o, engine *e, size_t limit, eval_set *set,
                                base_error *err)
{
    enum { TOWNS_MIN = 3, QUESTIONS_A_TOWN = 8 };
    size_t towns = limit / QUESTIONS_A_TOWN > TOWNS_MIN ? limit / QUESTIONS_A_TOWN : TOWNS_MIN;
    size_t key_count = towns * ATTRIBUTES, count = 0;
    base_rng rng;
    (void)e;
    base_rng_seed(&rng, o->seed);
    key *keys = base_calloc(key_count, sizeof *keys);
    change *changes = base_calloc(key_count * CHANGES_MAX, sizeof *changes);
    base_status status = keys && changes
                             ? BASE_OK
                             : base_fail(err, BASE_NO_MEMORY, "no memory for %zu towns", towns);
    for (size_t i = 0; i < key_count && !status; i++) {
        draw_key(&rng, i % ATTRIBUTES, base_time_from_civil(2025, 1, 1), &keys[i]);
        for (size_t v = 0; v < keys[i].count; v++) {
            changes[count++] = (change){keys[i].times[v], i, v};
        }
    }
    if (!status) {
        qsort(changes, count, sizeof *changes, by_time);
    }
    for (size_t i = 0; i < count && !status; i++) {
        status = add_document(keys, &changes[i], set, err);
    }
    if (!status) {
        status = add_questions(keys, key_count, limit, &rng, set, err);
    }
    base_free(keys);
    base_free(changes);
    return status;
}
