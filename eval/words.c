/* eval/words.c: invented names, and values made of ordinary words: nothing that a model could know
 * an answer from. */
#include <stdio.h>

#include "eval/harness.h"

void eval_word_town(size_t number, char *out, size_t size)
{
    static const char *const begins[] = {"Alten",  "Brix",   "Carr",  "Dun",  "Esk",   "Far",
                                         "Glen",   "Hart",   "Inver", "Jar",  "Kels",  "Lons",
                                         "Mar",    "Nether", "Oaken", "Pend", "Quarn", "Raven",
                                         "Silver", "Thorn",  "Under", "Vel",  "West",  "Yarl"};
    static const char *const ends[] = {"moor",  "holt",   "dale",   "fell", "wick",   "row",
                                       "mere",  "well",   "ley",    "gate", "ford",   "by",
                                       "stead", "combe",  "haven",  "bury", "cliff",  "marsh",
                                       "worth", "bridge", "hollow", "ness", "thorpe", "shaw"};
    enum { BEGINS = sizeof begins / sizeof *begins, ENDS = sizeof ends / sizeof *ends };
    size_t more = number / (BEGINS * ENDS);
    const char *begin = begins[number % BEGINS];
    const char *end = ends[(number / BEGINS + 7 * number) % ENDS];
    if (more) {
        snprintf(out, size, "%s%s %zu", begin, end, more + 1);
    } else {
        snprintf(out, size, "%s%s", begin, end);
    }
}

void eval_word_person(size_t number, char *out, size_t size)
{
    static const char *const first[] = {"Osric",  "Tamsin", "Ravi",   "Ines",  "Leif",   "Maud",
                                        "Edwin",  "Petra",  "Hugo",   "Selma", "Anton",  "Greta",
                                        "Casper", "Nora",   "Felix",  "Ida",   "Rufus",  "Vera",
                                        "Otto",   "Clara",  "Jasper", "Elin",  "Magnus", "Rosa"};
    static const char *const last[] = {
        "Penhallow", "Quill",    "Sundaram",  "Halloran", "Brandt",   "Okafor",
        "Lindqvist", "Marlowe",  "Ferrant",   "Whitlock", "Kovac",    "Abernathy",
        "Delacroix", "Nakamura", "Thorne",    "Vasquez",  "Ashdown",  "Petrov",
        "Galloway",  "Imrie",    "Castellan", "Rowntree", "Sorensen", "Blackwood"};
    enum { FIRST = sizeof first / sizeof *first, LAST = sizeof last / sizeof *last };
    size_t more = number / (FIRST * LAST);
    const char *family = last[(number / FIRST + 5 * number) % LAST];
    if (more) {
        snprintf(out, size, "%s %s-%zu", first[number % FIRST], family, more + 1);
    } else {
        snprintf(out, size, "%s %s", first[number % FIRST], family);
    }
}

void eval_word_value(size_t number, char *out, size_t size)
{
    static const char *const kinds[] = {
        "copper", "silver", "golden", "scarlet", "amber",   "violet",  "crimson",  "marble",
        "wooden", "frozen", "hidden", "broken",  "gentle",  "ancient", "northern", "southern",
        "quiet",  "bright", "hollow", "winter",  "summer",  "velvet",  "paper",    "stone",
        "iron",   "cotton", "cedar",  "salted",  "painted", "woven",   "striped",  "spotted"};
    static const char *const things[] = {
        "heron",  "lantern", "anchor", "falcon", "barrel", "compass", "rabbit", "kettle",
        "ladder", "dolphin", "basket", "hammer", "walnut", "feather", "bridge", "tiger",
        "candle", "mirror",  "turtle", "button", "window", "pigeon",  "saddle", "violin",
        "acorn",  "thistle", "beaver", "rocket", "parrot", "garden",  "pepper", "cobra"};
    number %= EVAL_WORD_VALUES;
    snprintf(out, size, "%s %s", kinds[number % 32], things[(number / 32 + 3 * number) % 32]);
}

void eval_shuffle(base_rng *rng, size_t *order, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t k = (size_t)base_rng_below(rng, i + 1);
        order[i] = order[k];
        order[k] = i;
    }
}
