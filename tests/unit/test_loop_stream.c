/* A text that needs another memory in every sentence, teacher-forced: consulting memory inside the
 * loop against once at the start (the splice study's mid-generation test).
 *
 * 12 entities x 8 attributes = 96 one-sentence facts, so that 7 others share the entity and 11 the
 * attribute of each. Every text states three facts drawn by seed; in half of them the sentence is
 * worded unlike the store. Measured: is the value's first token the most likely one?
 * EIDETIC_STREAM_TEXTS=34 runs the long form of 102 values.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tests/unit/loop_testing.h"

static const char *const entities[] = {"Altenmoor", "Brixholt", "Carraway", "Dunfell",
                                       "Eskdale",   "Farrow",   "Glenmore", "Hartwell",
                                       "Inverley",  "Jarrow",   "Kelsmere", "Lonsdale"};
/* How the store says it, and another wording. */
static const struct {
    const char *stored, *reworded;
} attributes[] = {
    {"The mascot of %s is the", "People in %s chose as their mascot the"},
    {"The main export of %s is", "What %s sells abroad most is"},
    {"The patron saint of %s is Saint", "In %s they pray to Saint"},
    {"The colour of the flag of %s is", "Above the town hall of %s flies a flag in"},
    {"The favourite sport of %s is", "On weekends everybody in %s plays"},
    {"The mayor of %s is called", "At the head of %s's council sits"},
    {"The river of %s is the", "Through %s flows the"},
    {"The founder of %s was a", "Long ago %s was founded by a"},
};
static const char *const values[8][12] = {
    {"lion", "eagle", "bear", "wolf", "horse", "dolphin", "owl", "fox", "deer", "swan", "whale",
     "tiger"},
    {"steel", "coffee", "cotton", "gold", "paper", "glass", "sugar", "oil", "wine", "rice", "salt",
     "silk"},
    {"George", "Peter", "Mary", "Paul", "Anne", "Martin", "John", "Thomas", "Andrew", "Luke",
     "Mark", "James"},
    {"red", "green", "blue", "yellow", "white", "black", "purple", "orange", "brown", "silver",
     "pink", "gray"},
    {"football", "tennis", "chess", "golf", "hockey", "cricket", "basketball", "baseball", "rugby",
     "volleyball", "cards", "darts"},
    {"Smith", "Brown", "Wilson", "Taylor", "Davis", "Clark", "Lewis", "Walker", "Hall", "Young",
     "King", "Wright"},
    {"Thames", "Nile", "Seine", "Danube", "Amazon", "Ganges", "Rhine", "Volga", "Tigris", "Jordan",
     "Congo", "Mississippi"},
    {"king", "doctor", "farmer", "soldier", "teacher", "poet", "merchant", "sailor", "priest",
     "lawyer", "painter", "nurse"},
};
enum { ENTITIES = 12, ATTRIBUTES = 8, FACTS = ENTITIES * ATTRIBUTES, PER_TEXT = 3 };

static loop l;
static size_t value_of[FACTS];

static void compose(char *out, size_t size, size_t fact, bool reworded)
{
    size_t entity = fact / ATTRIBUTES, attribute = fact % ATTRIBUTES;
    char begin[200];
    snprintf(begin, sizeof begin,
             reworded ? attributes[attribute].reworded : attributes[attribute].stored,
             entities[entity]);
    snprintf(out, size, "%s %s.", begin, values[attribute][value_of[fact]]);
}

/* Where the values stand in the forced text, in tokens, and how often they were the most likely
 * choice. */
typedef struct watch {
    size_t at[PER_TEXT];
    size_t right;
} watch;

static int32_t look(void *argument, size_t index, int32_t token, const float *logits,
                    size_t vocabulary)
{
    watch *w = argument;
    for (size_t i = 0; i < PER_TEXT; i++) {
        if (w->at[i] == index) {
            size_t best = 0;
            for (size_t v = 1; v < vocabulary; v++) {
                best = logits[v] > logits[best] ? v : best;
            }
            w->right += best == (size_t)token;
        }
    }
    return token;
}

static size_t count_tokens(const char *text)
{
    int32_t *ids = NULL;
    size_t count = 0;
    base_error err = {0};
    loop_check(tokenizer_encode(engine_tokenizer(l.e), text, strlen(text), &ids, &count, &err),
               &err);
    base_free(ids);
    return count;
}

typedef struct result {
    size_t right, total, lookups, rerun, tokens;
} result;

static void run_text(engine_trigger trigger, uint64_t seed, result *sum)
{
    char text[1024] = "", sentence[300];
    watch w = {0};
    base_rng rng;
    base_error err = {0};
    base_rng_seed(&rng, seed);
    for (size_t i = 0; i < PER_TEXT; i++) {
        size_t fact = (size_t)base_rng_below(&rng, FACTS);
        compose(sentence, sizeof sentence, fact, base_rng_below(&rng, 2) == 1);
        char *value = strrchr(sentence, ' ');
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%.*s", i ? " " : "",
                 (int)(value - sentence), sentence);
        w.at[i] = count_tokens(text); /* the value begins with a blank: a token of its own */
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s", value);
    }
    engine_session_options options;
    engine_answer answer;
    engine_session_defaults(&options);
    options.trigger = trigger;
    engine_session *s = loop_session(&l, ENGINE_ARM_FULL, &options);
    loop_check(engine_force(s, "Write three sentences about the towns of the county.", text, look,
                            &w, &answer, &err),
               &err);
    sum->right += w.right;
    sum->total += PER_TEXT;
    sum->lookups += answer.lookups;
    sum->rerun += answer.rerun_tokens;
    sum->tokens += answer.decode_tokens;
    engine_answer_free(&answer);
    engine_session_close(s);
}

static void test_consulting_memory_in_the_loop_beats_once_at_the_start(void **state)
{
    (void)state;
    const char *wanted = getenv("EIDETIC_STREAM_TEXTS");
    size_t count = wanted ? (size_t)strtoul(wanted, NULL, 10) : 8;
    result in_loop = {0}, once = {0};
    for (size_t i = 0; i < count; i++) {
        run_text(ENGINE_TRIGGER_INNOVATION, 100 + i, &in_loop);
        run_text(ENGINE_TRIGGER_ONCE, 100 + i, &once);
    }
    printf("value top-1: in-loop %zu of %zu (%.1f lookups and %.1f tokens run again per 100), once "
           "%zu\n",
           in_loop.right, in_loop.total, 100.0 * (double)in_loop.lookups / (double)in_loop.tokens,
           100.0 * (double)in_loop.rerun / (double)in_loop.tokens, once.right);
    /* The study reached 0.8 with stored wordings only; here half of the sentences are reworded.
     * 0.79 of 102 was measured; of eight texts (24 values) three may be missed by chance. */
    assert_true((double)in_loop.right >= 0.65 * (double)in_loop.total);
    assert_true(in_loop.right >= once.right + in_loop.total / 3);
}

int main(void)
{
    static char text[FACTS][300];
    const char *texts[FACTS];
    base_rng rng;
    loop_open_engine(&l);
    loop_open_store(&l);
    base_rng_seed(&rng, 7);
    for (size_t i = 0; i < FACTS; i++) {
        value_of[i] = (size_t)base_rng_below(&rng, 12);
        compose(text[i], sizeof text[i], i, false);
        texts[i] = text[i];
    }
    loop_ingest(&l, NULL, texts, FACTS);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_consulting_memory_in_the_loop_beats_once_at_the_start),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    loop_close_store(&l);
    engine_close(l.e);
    return failed;
}
