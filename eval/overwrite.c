/* eval/overwrite.c: keys that are updated 3, 6, 12, 25, 50, 100, 200 or 400 times, all of them
 * among each other; asked: the last value. Half of the keys are one document with many versions,
 * the others are told by a new document every time. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "eval/harness.h"

static const struct {
    const char *asked, *told[3];
} attributes[] = {
    {"What is the emblem of %s?",
     {"The emblem of %s is the %s.", "From now on the emblem of %s is the %s.",
      "As its emblem %s has chosen the %s."}},
    {"What is the password of the %s depot?",
     {"The password of the %s depot is %s.", "Today the password of the %s depot became %s.",
      "To enter the %s depot, say the password %s."}},
    {"Which ship sails from %s?",
     {"The ship that sails from %s is the %s.", "From %s now sails a ship, the %s.",
      "The ship sailing from %s has become the %s."}},
    {"What is the name of the inn at %s?",
     {"The name of the inn at %s is the %s.", "The inn at %s is now named the %s.",
      "At %s the inn took the name of the %s."}},
};
enum { ATTRIBUTES = sizeof attributes / sizeof *attributes, CLASSES = 8, UPDATES_MAX = 400 };
static const size_t updates_of_class[CLASSES] = {3, 6, 12, 25, 50, 100, 200, UPDATES_MAX};

typedef struct told {
    int64_t time_us;
    size_t key, update;
} told;

/* Even keys are versions of one document, odd ones documents of their own; classes and attributes
 * go through both. */
static size_t updates_of(size_t key)
{
    return updates_of_class[key / 2 % CLASSES];
}

static size_t attribute_of(size_t key)
{
    return (key / 2 + key / (2 * CLASSES)) % ATTRIBUTES;
}

static int by_time(const void *pa, const void *pb)
{
    const told *a = pa, *b = pb;
    if (a->time_us != b->time_us) {
        return a->time_us < b->time_us ? -1 : 1;
    }
    return a->key != b->key ? (a->key < b->key ? -1 : 1) : a->update < b->update ? -1 : 1;
}

static int by_value(const void *pa, const void *pb)
{
    int64_t a = *(const int64_t *)pa, b = *(const int64_t *)pb;
    return a < b ? -1 : a > b;
}

/* Times of a key's updates, ascending, a second apart at least: 2020 to 2024. */
static void draw_times(base_rng *rng, size_t key, size_t count, told *out)
{
    int64_t begin = base_time_from_civil(2020, 1, 1), times[UPDATES_MAX];
    uint64_t seconds = (uint64_t)(base_time_from_civil(2025, 1, 1) - begin) / 1000000;
    for (size_t i = 0; i < count; i++) {
        times[i] = begin + (int64_t)base_rng_below(rng, seconds) * 1000000;
    }
    qsort(times, count, sizeof *times, by_value);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && times[i] <= times[i - 1]) {
            times[i] = times[i - 1] + 1000000;
        }
        out[i] = (told){times[i], key, i};
    }
}

/* Value of an update: a key's updates are all different. */
static void value_of(uint64_t seed, size_t key, size_t update, char *out, size_t size)
{
    eval_word_value((size_t)(seed % EVAL_WORD_VALUES) + 389 * key + 7 * update, out, size);
}

static void name_document(size_t key, size_t update, char *out, size_t size)
{
    if (key % 2) {
        snprintf(out, size, "key-%zu/%zu", key, update);
    } else {
        snprintf(out, size, "key-%zu", key);
    }
}

static base_status add_document(const told *t, uint64_t seed, size_t wording, eval_set *set,
                                base_error *err)
{
    char id[64], town[64], value[64], text[256], time[BASE_TIME_TEXT_MAX];
    name_document(t->key, t->update, id, sizeof id);
    eval_word_town(t->key, town, sizeof town);
    value_of(seed, t->key, t->update, value, sizeof value);
    const char *form = attributes[attribute_of(t->key)].told[t->update ? wording : 0];
    snprintf(text, sizeof text, form, town, value);
    base_time_format(t->time_us, time);
    return eval_add_line(&set->documents_text,
                         json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", id, "source", "overwrite",
                                   "title", "", "text", text, "observed_at", time),
                         err);
}

static base_status add_question(size_t key, size_t updates, uint64_t seed, eval_set *set,
                                base_error *err)
{
    char id[64], document[64], town[64], value[64], text[256];
    json_t *stale = json_array();
    eval_word_town(key, town, sizeof town);
    for (size_t i = 0; i + 1 < updates; i++) {
        value_of(seed, key, i, value, sizeof value);
        json_array_append_new(stale, json_string(value));
    }
    value_of(seed, key, updates - 1, value, sizeof value);
    name_document(key, updates - 1, document, sizeof document);
    snprintf(id, sizeof id, "overwrite/%zu", key);
    snprintf(text, sizeof text, attributes[attribute_of(key)].asked, town);
    return eval_add_line(&set->questions_text,
                         json_pack("{s:s, s:s, s:[s], s:o, s:s, s:[s], s:{s:s, s:I, s:s}}", "id",
                                   id, "question", text, "answers", value, "stale_answers", stale,
                                   "as_of", "2025-01-02", "evidence", document, "meta", "kind",
                                   key % 2 ? "documents" : "versions", "updates",
                                   (json_int_t)updates, "time_axis", "observed"),
                         err);
}

base_status eval_generate_overwrite(const eval_options *o, engine *e, size_t limit, eval_set *set,
                                    base_error *err)
{
    size_t total = 0, at = 0;
    base_rng rng;
    base_status status = BASE_OK;
    (void)e;
    base_rng_seed(&rng, o->seed);
    for (size_t key = 0; key < limit; key++) {
        total += updates_of(key);
    }
    told *all = base_calloc(total, sizeof *all);
    if (!all) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu documents", total);
    }
    for (size_t key = 0; key < limit; key++) {
        draw_times(&rng, key, updates_of(key), all + at);
        at += updates_of(key);
    }
    qsort(all, total, sizeof *all, by_time);
    for (size_t i = 0; i < total && !status; i++) {
        status = add_document(&all[i], o->seed, (size_t)base_rng_below(&rng, 3), set, err);
    }
    for (size_t key = 0; key < limit && !status; key++) {
        status = add_question(key, updates_of(key), o->seed, set, err);
    }
    base_free(all);
    return status;
}
