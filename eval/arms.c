/* eval/arms.c: arms and their ablations by name. */
#include <string.h>

#include "eval/eval.h"

const char eval_arm_ablations[] =
    "+trigger=innovation|once|always|random, +layout=B|S, +query=encoder|hidden (the query is the "
    "model's own hidden state, as are the vectors of the store), +no-bias, +no-time, +no-bm25, "
    "+splice-state=none|replay|sum|picaso (what recurrent states make of a memory), "
    "+no-kv-disk (never read keys and values from disk), +no-follow (a note leads to no "
    "other, a refusal stands), +no-names (what names other things than the question stays), "
    "+no-draft (one token a pass), "
    "+plain (prompt: notes without dates), "
    "+rival (oracle: what the right note replaced lies beside it at strength 0.1; questions where "
    "it replaced nothing are left out), "
    "+warm (asked twice, the second answer counts)";

static bool is_word(const char *text, size_t size, const char *word)
{
    return strlen(word) == size && memcmp(text, word, size) == 0;
}

static bool set_flag(eval_arm *arm, const char *text, size_t size)
{
    const struct {
        const char *name;
        bool *flag;
    } flags[] = {{"no-bias", &arm->no_bias},     {"no-time", &arm->no_time},
                 {"no-bm25", &arm->no_bm25},     {"no-kv-disk", &arm->no_kv_disk},
                 {"no-draft", &arm->no_draft},   {"plain", &arm->plain},
                 {"no-follow", &arm->no_follow}, {"no-names", &arm->no_names},
                 {"warm", &arm->warm},           {"rival", &arm->rival}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (is_word(text, size, flags[i].name)) {
            *flags[i].flag = true;
            return true;
        }
    }
    return false;
}

/* "trigger=once", "layout=S" or a flag. */
static bool set_ablation(eval_arm *arm, const char *text, size_t size)
{
    char value[EVAL_ARM_NAME_MAX];
    const char *equals = memchr(text, '=', size);
    if (!equals) {
        return set_flag(arm, text, size);
    }
    size_t name_size = (size_t)(equals - text), value_size = size - name_size - 1;
    memcpy(value, equals + 1, value_size);
    value[value_size] = 0;
    if (is_word(text, name_size, "trigger")) {
        return engine_trigger_parse(value, &arm->trigger);
    }
    if (is_word(text, name_size, "layout")) {
        arm->layout = strcmp(value, "S") == 0 ? ENGINE_LAYOUT_S : ENGINE_LAYOUT_B;
        return strcmp(value, "S") == 0 || strcmp(value, "B") == 0;
    }
    if (is_word(text, name_size, "splice-state")) {
        return core_splice_state_parse(value, &arm->splice_state);
    }
    if (is_word(text, name_size, "query")) {
        arm->query_hidden = strcmp(value, "hidden") == 0;
        return arm->query_hidden || strcmp(value, "encoder") == 0;
    }
    return false;
}

static base_status parse_arm(const char *text, size_t size, eval_arm *arm, base_error *err)
{
    char name[EVAL_ARM_NAME_MAX];
    *arm = (eval_arm){.arm = ENGINE_ARM_NONE};
    if (size == 0 || size >= sizeof arm->name) {
        return base_fail(err, BASE_INVALID, "arms: '%.*s' is no arm", (int)(size < 80 ? size : 80),
                         text);
    }
    memcpy(arm->name, text, size);
    size_t end = strcspn(arm->name, "+");
    memcpy(name, arm->name, end);
    name[end] = 0;
    if (!engine_arm_parse(name, &arm->arm)) {
        return base_fail(err, BASE_INVALID,
                         "arms: '%s' is none of none, full-context, prompt, static, full, oracle",
                         name);
    }
    while (arm->name[end]) {
        const char *part = arm->name + end + 1;
        size_t part_size = strcspn(part, "+");
        if (!set_ablation(arm, part, part_size)) {
            return base_fail(err, BASE_INVALID, "arms: '%.*s' is no ablation (%s)", (int)part_size,
                             part, eval_arm_ablations);
        }
        end += 1 + part_size;
    }
    if (arm->rival && arm->arm != ENGINE_ARM_ORACLE) {
        return base_fail(err, BASE_INVALID, "arms: '%s': +rival belongs to oracle", arm->name);
    }
    return BASE_OK;
}

base_status eval_arms_parse(const char *text, eval_arm *arms, size_t *count, base_error *err)
{
    *count = 0;
    for (const char *at = text;; at++) {
        size_t size = strcspn(at, ",");
        if (*count == EVAL_ARMS_MAX) {
            return base_fail(err, BASE_INVALID, "arms: more than %d", EVAL_ARMS_MAX);
        }
        base_status status = parse_arm(at, size, &arms[*count], err);
        if (status) {
            return status;
        }
        for (size_t i = 0; i < *count; i++) {
            if (strcmp(arms[i].name, arms[*count].name) == 0) {
                return base_fail(err, BASE_INVALID, "arms: '%s' stands twice", arms[i].name);
            }
        }
        ++*count;
        at += size;
        if (!*at) {
            return BASE_OK;
        }
    }
}

void eval_arm_apply(const eval_arm *arm, engine_session_options *options)
{
    options->arm = arm->arm;
    options->trigger = arm->trigger;
    options->layout = arm->layout;
    options->splice_state = arm->splice_state;
    options->no_bias = arm->no_bias;
    options->no_time = arm->no_time;
    options->no_bm25 = arm->no_bm25;
    options->query_hidden = arm->query_hidden;
    options->no_kv_disk = arm->no_kv_disk;
    options->no_follow = arm->no_follow;
    options->no_names = arm->no_names;
    options->no_draft = arm->no_draft;
    options->notes_plain = arm->plain;
}
