/* retrieval/slot.c: the decision of slot.h, from the words that two statements share (words.h):
 * what is not shared, and where it stands, decides.
 */
#include "retrieval/slot.h"

#include <string.h>

#include "base/status.h"
#include "retrieval/words.h"

enum {
    VALUE_WORDS_MAX = 14,
    FIRST_VALUE_WORDS_MAX = 8, /* of a value that stands before "is the" */
    PARTS_MAX = 6,             /* of a version number */
    FRAME_CONTENT_MAX = 6,     /* content words of frames that are compared: chosen */
    STEM_MIN = 4,              /* letters that words of one stem have in common */
    ENDING_MAX = 4
};

/* How one statement is taken apart. Words outside [value_from, value_to) are entity and frame. */
typedef struct parts {
    bool ok, value_first, names;
    bool turned; /* "[Heron] is the maker of [value]": or is Heron the value? */
    size_t value_from, value_to;
} parts;

static bool word_is(const word *w, const char *small)
{
    return retrieval_word_is_one_of(w, &small, 1);
}

/* --- version numbers ------------------------------------------------------------------------- */

typedef struct version {
    unsigned long parts[PARTS_MAX];
    size_t count;
} version;

/* "1.0.5", "1.0.x" (2 parts): false for anything else. */
static bool parse_version(const word *w, version *out)
{
    out->count = 0;
    for (size_t i = 0; i < w->size;) {
        if (!retrieval_is_digit(w->text[i])) {
            return out->count > 0 && w->text[i] == 'x' && i + 1 == w->size;
        }
        if (out->count == PARTS_MAX) {
            return false;
        }
        unsigned long value = 0;
        for (; i < w->size && retrieval_is_digit(w->text[i]); i++) {
            value = value < 1000000000 ? 10 * value + (unsigned long)(w->text[i] - '0') : value;
        }
        out->parts[out->count++] = value;
        if (i < w->size && w->text[i] != '.') {
            return false;
        }
        i += i < w->size;
    }
    return out->count > 0;
}

static int compare_versions(const version *a, const version *b)
{
    for (size_t i = 0; i < a->count && i < b->count; i++) {
        if (a->parts[i] != b->parts[i]) {
            return a->parts[i] < b->parts[i] ? -1 : 1;
        }
    }
    return (a->count > b->count) - (a->count < b->count);
}

static bool is_prefix(const version *line, const version *whole)
{
    return line->count > 0 && line->count < whole->count &&
           memcmp(line->parts, whole->parts, line->count * sizeof line->parts[0]) == 0;
}

/* The version that a statement is about (the largest of two or more parts), and the line that it
 * names: the shortest other figure that begins it. */
static bool main_version(const sentence *s, version *out, version *line)
{
    version v;
    out->count = line->count = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (parse_version(&s->words[i], &v) && v.count > 1 &&
            s->words[i].text[s->words[i].size - 1] != 'x' &&
            (out->count == 0 || compare_versions(&v, out) > 0)) {
            *out = v;
        }
    }
    for (size_t i = 0; i < s->count && out->count > 0; i++) {
        if (parse_version(&s->words[i], &v) && is_prefix(&v, out) &&
            (line->count == 0 || v.count < line->count)) {
            *line = v;
        }
    }
    return out->count > 0;
}

static bool mentions(const sentence *s, const version *wanted)
{
    version v;
    for (size_t i = 0; i < s->count; i++) {
        if (parse_version(&s->words[i], &v) && v.count == wanted->count &&
            compare_versions(&v, wanted) == 0) {
            return true;
        }
    }
    return false;
}

static bool same_line(const sentence *newer, const version *a, const version *line_a,
                      const version *b, const version *line_b)
{
    if (line_a->count > 0 && line_b->count > 0 &&
        (line_a->count != line_b->count || compare_versions(line_a, line_b) != 0)) {
        return false;
    }
    if (mentions(newer, a)) {
        return true;
    }
    const version *line = line_a->count > 0 ? line_a : line_b;
    if (line->count > 0) {
        return is_prefix(line, a) && is_prefix(line, b);
    }
    return a->count > 2 && a->count == b->count &&
           memcmp(a->parts, b->parts, (a->count - 1) * sizeof a->parts[0]) == 0;
}

/* The names but the figures are the same in both. same_title: a first word may differ. */
static bool same_product(const sentence *s, bool same_title, size_t *names)
{
    version v;
    for (size_t i = 0; i < s->count; i++) {
        const word *w = &s->words[i];
        if (w->kind != NAME || parse_version(w, &v)) {
            continue;
        }
        if (!w->shared && !(w->first && same_title)) {
            return false;
        }
        *names += w->shared;
    }
    return true;
}

static retrieval_slot_verdict compare_releases(const sentence *a, const sentence *b,
                                               bool same_title)
{
    version va, vb, line_a, line_b;
    size_t names = 0;
    main_version(a, &va, &line_a);
    main_version(b, &vb, &line_b);
    bool same = same_product(a, same_title, &names) && same_product(b, same_title, &names) &&
                (names > 0 || same_title) && compare_versions(&va, &vb) < 0 &&
                same_line(b, &va, &line_a, &vb, &line_b);
    return same ? RETRIEVAL_SLOT_SAME : RETRIEVAL_SLOT_OTHER;
}

/* --- entity, frame, value -------------------------------------------------------------------- */

static size_t first_unshared_name(const sentence *s)
{
    size_t i = 0;
    while (i < s->count && (s->words[i].kind != NAME || s->words[i].shared)) {
        i++;
    }
    return i;
}

/* Is what lies in [from, to) one value, and nothing of the other statement's behind it that names
 * something? Within it, shared words may only join names or belong to one. */
static bool is_one_value(const sentence *s, size_t from, size_t to)
{
    while (s->words[from].shared) { /* the first words of the name may be shared */
        from++;
    }
    bool touching = true;
    for (size_t i = from + 1; i < s->count; i++) {
        const word *w = &s->words[i];
        if (w->kind == NAME) {
            if (w->shared && !touching) {
                return false;
            }
            touching = true;
        } else {
            touching = false;
            if (i < to && w->shared && !w->connector && w->hash != 1) {
                return false; /* "2019 was 3" against "2020 was 4": two values */
            }
        }
    }
    return true;
}

/* Without such a name: the content words at the end, if one of them is not shared. */
static parts small_value(const sentence *s)
{
    parts p = {.value_from = s->count, .value_to = s->count};
    bool other = false;
    while (p.value_from > 0 && s->words[p.value_from - 1].kind == CONTENT) {
        other = other || !s->words[p.value_from - 1].shared;
        p.value_from--;
    }
    p.ok = other && p.value_from > 0;
    return p;
}

/* Where the name that word i belongs to begins: "United" of "United States", "University" of
 * "University of Bergen". */
static size_t name_begin(const sentence *s, size_t i)
{
    while (i > 0) {
        if (s->words[i - 1].kind == NAME) {
            i--;
        } else if (i > 1 && s->words[i - 1].connector && s->words[i - 2].kind == NAME) {
            i -= 2;
        } else {
            break;
        }
    }
    return i;
}

/* "Heron Ltd is the maker of" before the value: what stands behind names the thing, and the name in
 * front is the value, which other things may have as well. */
static bool names_role_of_value(const sentence *s, size_t from)
{
    if (from < 4 || !word_is(&s->words[from - 1], "of")) {
        return false;
    }
    size_t i = 0;
    while (i < from && s->words[i].kind == NAME) {
        i++;
    }
    return i + 1 < from && retrieval_word_is_copula(&s->words[i]) &&
           word_is(&s->words[i + 1], "the");
}

/* The value is the first name that the other statement has not, up to the last such name. */
static parts value_last(const sentence *s)
{
    size_t from = first_unshared_name(s), to = s->count;
    parts p = {0};
    if (from == s->count) {
        p = small_value(s);
    } else {
        while (s->words[to - 1].kind != NAME || s->words[to - 1].shared) {
            to--;
        }
        while (to < s->count && s->words[to].kind == NAME) {
            to++; /* "Columbia University": the last words of the name may be shared */
        }
        size_t end = to;
        while (end < s->count && s->words[end].kind == CONTENT && !s->words[end].shared) {
            end++;
        }
        to = end == s->count ? end : to; /* "American football." */
        from = name_begin(s, from);
        p = (parts){.value_from = from, .value_to = to};
        bool subject = to < s->count && /* "the head of Heron is": what the statement is about */
                       retrieval_word_is_copula(&s->words[to]);
        p.ok = from > 0 && !subject && is_one_value(s, from, to);
    }
    p.ok = p.ok && p.value_to - p.value_from <= VALUE_WORDS_MAX;
    p.turned = p.ok && names_role_of_value(s, p.value_from);
    for (size_t i = 0; i < p.value_from && p.ok; i++) {
        p.names = p.names || s->words[i].kind == NAME;
    }
    return p;
}

/* "[value] is the capital of England", "[value] is England's capital": what fills a role that a
 * definite description names. Every name behind "is" must be shared. */
static parts value_first(const sentence *s)
{
    parts p = {.value_first = true};
    size_t at = 0;
    bool other = false;
    for (; at < s->count && at <= FIRST_VALUE_WORDS_MAX; at++) {
        const word *w = &s->words[at];
        if (retrieval_word_is_copula(w)) {
            break;
        }
        other = other || (w->kind != FUNCTION && !w->shared);
        if (w->kind == NAME && w->shared) {
            return p;
        }
    }
    if (!other || at + 2 >= s->count || at > FIRST_VALUE_WORDS_MAX) {
        return p;
    }
    bool definite = word_is(&s->words[at + 1], "the");
    for (size_t i = at + 1; i < s->count; i++) {
        const word *w = &s->words[i];
        if (w->kind == NAME && !w->shared) {
            return p;
        }
        p.names = p.names || w->kind == NAME;
        definite = definite || (w->hash == 1 && i > at + 1 && s->words[i - 1].kind == NAME);
    }
    p.value_to = at;
    p.ok = definite && p.names;
    return p;
}

/* --- comparing ------------------------------------------------------------------------------- */

static bool in_value(const parts *p, size_t i)
{
    return i >= p->value_from && i < p->value_to;
}

/* Names outside the value, in any order: each the same number of times in both. */
static bool same_entity(const sentence *a, const parts *pa, const sentence *b, const parts *pb)
{
    size_t in_a = 0, in_b = 0;
    uint64_t sum_a = 0, sum_b = 0;
    for (size_t i = 0; i < a->count; i++) {
        if (a->words[i].kind == NAME && !in_value(pa, i)) {
            in_a++;
            sum_a += a->words[i].hash * 0x9e3779b97f4a7c15u;
        }
    }
    for (size_t i = 0; i < b->count; i++) {
        if (b->words[i].kind == NAME && !in_value(pb, i)) {
            in_b++;
            sum_b += b->words[i].hash * 0x9e3779b97f4a7c15u;
        }
    }
    return in_a == in_b && sum_a == sum_b;
}

/* The frame as text: each run of names is "it", the value "something". *hash: of its words. */
static void write_frame(const sentence *s, const parts *p, char *out, uint64_t *hash)
{
    size_t size = 0;
    bool in_names = false;
    *hash = 0;
    for (size_t i = 0; i < s->count; i++) {
        const word *w = &s->words[i];
        const char *text = w->text;
        size_t n = w->size;
        uint64_t h = w->hash;
        if (in_value(p, i)) {
            text = i == p->value_from ? "something" : "";
            h = i == p->value_from ? 2 : 0;
            n = strlen(text);
            in_names = false;
        } else if (w->kind == NAME) {
            text = in_names ? "" : "it";
            h = in_names ? 0 : 3;
            n = strlen(text);
            in_names = true;
        } else {
            in_names = false;
        }
        if (n > 0 && size + n + 2 < RETRIEVAL_FRAME_MAX) {
            if (size > 0 && w->hash != 1) {
                out[size++] = ' ';
            }
            memcpy(out + size, text, n);
            size += n;
            *hash = (*hash ^ h) * 0x100000001b3u + 1;
        }
    }
    out[size] = 0;
}

static void write_value(const sentence *s, const parts *p, char *out)
{
    size_t size = 0;
    for (size_t i = p->value_from; i < p->value_to; i++) {
        const word *w = &s->words[i];
        if (size + w->size + 2 < RETRIEVAL_FRAME_MAX) {
            if (size > 0 && w->hash != 1) {
                out[size++] = ' ';
            }
            memcpy(out + size, w->text, w->size);
            size += w->size;
        }
    }
    out[size] = 0;
}

/* Content words outside the value, and how many of them are shared. */
static size_t count_content(const sentence *s, const parts *p, size_t *shared)
{
    size_t count = 0;
    *shared = 0;
    for (size_t i = 0; i < s->count; i++) {
        bool content = s->words[i].kind == CONTENT || s->words[i].subject;
        if (content && !in_value(p, i)) {
            *shared += s->words[i].shared;
            count++;
        }
    }
    return count;
}

static bool same_word_of_frame(const sentence *a, const parts *pa, size_t i, const sentence *b,
                               const parts *pb, size_t k)
{
    bool value_a = in_value(pa, i), value_b = in_value(pb, k);
    const word *x = &a->words[i], *y = &b->words[k];
    return value_a || value_b ? value_a == value_b
                              : x->hash == y->hash || (x->kind == NAME && y->kind == NAME);
}

/* The next word of the frame behind i: values and runs of names count as one. */
static size_t next_of_frame(const sentence *s, const parts *p, size_t i)
{
    size_t next = i + 1;
    while (next < s->count && ((in_value(p, i) && in_value(p, next)) ||
                               (!in_value(p, i) && !in_value(p, next) && s->words[i].kind == NAME &&
                                s->words[next].kind == NAME))) {
        next++;
    }
    return next;
}

/* "it was born in something" against "it was buried in something": one word gives way to another
 * and all else stays. In the same thing said in other words more changes, or words only go. */
static bool one_word_replaced(const sentence *a, const parts *pa, const sentence *b,
                              const parts *pb)
{
    size_t replaced = 0, i = 0, k = 0;
    while (i < a->count && k < b->count) {
        bool same = same_word_of_frame(a, pa, i, b, pb, k);
        if (!same && (a->words[i].kind != CONTENT || b->words[k].kind != CONTENT)) {
            return false;
        }
        replaced += !same;
        i = next_of_frame(a, pa, i);
        k = next_of_frame(b, pb, k);
    }
    return i == a->count && k == b->count && replaced == 1;
}

/* Are two words of one stem ("developed", "developer")? At least four letters and half of each are
 * the same, and what is left are endings. */
static bool same_stem(const word *x, const word *y)
{
    char a[WORD_BYTES_MAX], b[WORD_BYTES_MAX];
    size_t common = 0;
    retrieval_word_lower(x->text, x->size, a);
    retrieval_word_lower(y->text, y->size, b);
    while (common < x->size && common < y->size && a[common] == b[common]) {
        common++;
    }
    /* "is coaching", "is coached": who does it changes. */
    bool doing_x = x->size > 3 && memcmp(x->text + x->size - 3, "ing", 3) == 0;
    bool doing_y = y->size > 3 && memcmp(y->text + y->size - 3, "ing", 3) == 0;
    return doing_x == doing_y && common >= STEM_MIN && x->size - common <= ENDING_MAX &&
           y->size - common <= ENDING_MAX && 2 * common >= x->size && 2 * common >= y->size;
}

/* Has each content word of a's frame one of its stem in b's? false when there is none. */
static bool stems_within(const sentence *a, const parts *pa, const sentence *b, const parts *pb)
{
    bool any = false;
    for (size_t i = 0; i < a->count; i++) {
        bool found = a->words[i].kind != CONTENT || in_value(pa, i);
        any = any || !found;
        for (size_t k = 0; k < b->count && !found; k++) {
            found = b->words[k].kind == CONTENT && !in_value(pb, k) &&
                    same_stem(&a->words[i], &b->words[k]);
        }
        if (!found) {
            return false;
        }
    }
    return any;
}

static bool is_by(const word *w)
{
    return word_is(w, "by");
}

static bool frame_has(const sentence *s, const parts *p, bool (*is)(const word *))
{
    for (size_t i = 0; i < s->count; i++) {
        if (!in_value(p, i) && is(&s->words[i])) {
            return true;
        }
    }
    return false;
}

/* Not "coached [value]" against "was coached by [value]": what is said of something that is done
 * "by" another needs a form of "to be" in the other statement, too ("the coach is"). */
static bool same_voice(const sentence *a, const parts *pa, const sentence *b, const parts *pb)
{
    bool by_a = frame_has(a, pa, is_by), by_b = frame_has(b, pb, is_by);
    return by_a == by_b || (by_a ? frame_has(b, pb, retrieval_word_is_copula)
                                 : frame_has(a, pa, retrieval_word_is_copula));
}

static const char *const additions[] = {"also",    "too",       "another", "additionally", "both",
                                        "besides", "alongside", "further", "well"};

static bool has_addition(const sentence *newer)
{
    for (size_t i = 0; i < newer->count; i++) {
        const word *w = &newer->words[i];
        if (!w->shared &&
            retrieval_word_is_one_of(w, additions, sizeof additions / sizeof additions[0])) {
            return true;
        }
    }
    return false;
}

static bool value_has_figure(const sentence *s, const parts *p)
{
    bool figure = true; /* all of it */
    for (size_t i = p->value_from; i < p->value_to; i++) {
        figure = figure && (s->words[i].figure || s->words[i].kind == FUNCTION);
    }
    return figure;
}

/* "The emblem of [Heron] is the thistle": what stands behind the value says something of it, so it
 * is what the statement is about. */
static bool says_more(const sentence *s, const parts *p)
{
    for (size_t i = p->value_to; i < s->count; i++) {
        if (s->words[i].kind == CONTENT) {
            return true;
        }
    }
    return false;
}

/* "[Heron] [value]", as in a heading: nothing is said. */
static bool is_bare(const sentence *s, const parts *p)
{
    for (size_t i = 0; i < s->count; i++) {
        if (!in_value(p, i) && s->words[i].kind != NAME) {
            return false;
        }
    }
    return true;
}

static bool has_proper_name(const sentence *s, const parts *p)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->words[i].kind == NAME && !s->words[i].subject && !in_value(p, i)) {
            return true;
        }
    }
    return false;
}

/* "[Heron] was founded by [value]", "[Heron]'s founder is [value]": the value fills a role, as one
 * that "is the founder of [Heron]" does. Not "[Heron] founded [value]". */
static bool names_filler(const sentence *s, const parts *p)
{
    const word *before = p->value_from > 0 ? &s->words[p->value_from - 1] : NULL;
    return before && (retrieval_word_is_copula(before) || is_by(before));
}

/* What a definite description behind "is" calls it: "founder" in "[value] is the founder of
 * [Heron]", "[value] is [Heron]'s founder". NULL: nothing. */
static const word *role_of(const sentence *s, const parts *p)
{
    size_t i = p->value_first ? p->value_to : 0;
    const word *role = NULL;
    for (; i < s->count && !word_is(&s->words[i], "of"); i++) {
        role = s->words[i].kind == CONTENT ? &s->words[i] : role;
    }
    return role;
}

/* One who holds an office or does something, by the ending of the word or because it is written in
 * capitals. Not "creation", "daughter": of these one may have many at a time. */
static bool is_holder(const word *role)
{
    static const char *const endings[] = {"er", "or", "man", "woman", "person", "ent", "ain"};
    static const char *const heads[] = {"head",  "chief", "chair", "capital", "king",
                                        "queen", "coach", "boss",  "dean",    "host"};
    static const char *const many[] = {"brother", "sister", "daughter", "follower", "member"};
    if (!role || retrieval_word_is_one_of(role, many, sizeof many / sizeof many[0])) {
        return false;
    }
    char last = role->text[role->size - 1];
    bool holder = (last >= 'A' && last <= 'Z') ||
                  retrieval_word_is_one_of(role, heads, sizeof heads / sizeof heads[0]);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0] && !holder; i++) {
        size_t n = strlen(endings[i]);
        holder = role->size > n + 2 && memcmp(role->text + role->size - n, endings[i], n) == 0;
    }
    return holder;
}

/* May the entities be what is not the value, in both? Where two names stand around a role ("is the
 * founder of"), one statement may tell it of the other; else it is open who is whose. shared:
 * content words of the frames that both have. */
static bool same_direction(const sentence *a, const parts *pa, const sentence *b, const parts *pb,
                           size_t shared, bool same_title)
{
    if (pa->turned || pb->turned) { /* "is the creation of [value]" after "was made by [value]" */
        const word *role = pa->turned ? role_of(a, pa) : role_of(b, pb);
        return pa->turned != pb->turned && !pa->value_first && !pb->value_first && shared == 0 &&
               role && !is_holder(role);
    }
    if (pa->value_first && pb->value_first) { /* not "is the creation of" */
        return same_title || (is_holder(role_of(a, pa)) && is_holder(role_of(b, pb)));
    }
    return pa->value_first == pb->value_first || shared > 0 ||
           names_filler(pa->value_first ? b : a, pa->value_first ? pb : pa);
}

static parts take_apart(const sentence *s)
{
    parts p = value_last(s);
    return p.ok ? p : value_first(s);
}

static retrieval_slot_verdict compare_facts(const sentence *a, const sentence *b, int titles,
                                            retrieval_slot *out)
{
    uint64_t hash_a, hash_b;
    parts pa = take_apart(a), pb = take_apart(b);
    if (!pa.ok || !pb.ok || pa.names != pb.names || !same_entity(a, &pa, b, &pb) ||
        value_has_figure(a, &pa) != value_has_figure(b, &pb)) {
        return RETRIEVAL_SLOT_OTHER;
    }
    write_frame(a, &pa, out->older_frame, &hash_a);
    write_frame(b, &pb, out->newer_frame, &hash_b);
    size_t shared_a, shared_b;
    size_t content_a = count_content(a, &pa, &shared_a);
    size_t content_b = count_content(b, &pb, &shared_b);
    size_t shared = shared_a < shared_b ? shared_a : shared_b;
    if (!same_direction(a, &pa, b, &pb, shared, titles > 0)) {
        return RETRIEVAL_SLOT_OTHER;
    }
    if (!has_proper_name(a, &pa)) { /* not under two titles, and no more than a kind: in full */
        bool same = hash_a == hash_b && shared > 1 && !says_more(a, &pa);
        if (hash_a == hash_b || titles < 0 || !pa.names) {
            return same && titles >= 0 ? RETRIEVAL_SLOT_SAME : RETRIEVAL_SLOT_OTHER;
        }
    }
    if (hash_a == hash_b) {
        return is_bare(a, &pa) ? RETRIEVAL_SLOT_OTHER : RETRIEVAL_SLOT_SAME;
    }
    if (content_a == 0 || content_b == 0 || content_a > FRAME_CONTENT_MAX ||
        content_b > FRAME_CONTENT_MAX) {
        return RETRIEVAL_SLOT_OTHER; /* "[Heron] has [value]": nothing to compare; or prose */
    }
    write_value(a, &pa, out->older_value);
    write_value(b, &pb, out->newer_value);
    out->same_stems =
        stems_within(a, &pa, b, &pb) && stems_within(b, &pb, a, &pa) && same_voice(a, &pa, b, &pb);
    out->one_word = pa.value_first != pb.value_first /* "was led by [x]", "[y] is the owner of" */
                        ? shared == 0 && content_a == 1 && content_b == 1 && !out->same_stems
                        : one_word_replaced(a, &pa, b, &pb);
    return RETRIEVAL_SLOT_IF_FRAMES_AGREE;
}

/* A web address names what it leads to; words around it ("Resolution: http://...") name nothing. */
static bool has_address(const retrieval_statement *s)
{
    for (size_t i = 0; i + 3 <= s->text_size; i++) {
        if (memcmp(s->text + i, "://", 3) == 0) {
            return true;
        }
    }
    return false;
}

/* A heading or code: names stand side by side and nothing is said of them. */
static bool is_markup(const retrieval_statement *s)
{
    size_t i = 0;
    while (i < s->text_size && s->text[i] == ' ') {
        i++;
    }
    if (i < s->text_size && s->text[i] == '#') {
        return true;
    }
    for (; i < s->text_size; i++) {
        char c = s->text[i];
        bool twice = i + 1 < s->text_size && c == s->text[i + 1];
        if (c == '{' || c == '}' || (twice && (c == ':' || c == '`'))) {
            return true;
        }
    }
    return false;
}

/* false: not one sentence that states something. */
static bool cut_statement(const retrieval_statement *s, sentence *out)
{
    retrieval_words_cut(s->text, s->text_size, 1, out);
    return !out->too_long && !out->question && out->count > 0 && out->sentences == 1 &&
           !has_address(s) && !is_markup(s);
}

static bool is_of_date(const word *w)
{
    static const char *const months[] = {"january",   "february", "march",    "april",
                                         "may",       "june",     "july",     "august",
                                         "september", "october",  "november", "december"};
    return w->figure || retrieval_word_is_one_of(w, months, sizeof months / sizeof months[0]);
}

/* "The mayor of Heron is [value] since 3 May 2021": since when it holds is no part of the value.
 * The end of such a statement is left out, unless nothing before it differs from the other's. */
static void leave_out_since(sentence *s)
{
    size_t end = s->count;
    while (end > 0 && is_of_date(&s->words[end - 1])) {
        end--;
    }
    if (end == s->count || end < 2 || !word_is(&s->words[end - 1], "since")) {
        return;
    }
    bool other = false;
    for (size_t i = 0; i + 1 < end; i++) {
        other = other || (s->words[i].kind != FUNCTION && !s->words[i].shared);
    }
    s->count = other ? end - 1 : s->count;
}

void retrieval_slot_compare(const retrieval_statement *older, const retrieval_statement *newer,
                            retrieval_slot *out)
{
    sentence a, b;
    version va, vb, line;
    bool both = older->title[0] && newer->title[0];
    int titles = !both ? 0 : strcmp(older->title, newer->title) == 0 ? 1 : -1;
    out->verdict = RETRIEVAL_SLOT_OTHER;
    out->older_frame[0] = out->newer_frame[0] = 0;
    out->older_value[0] = out->newer_value[0] = 0;
    out->one_word = out->same_stems = false;
    if (!cut_statement(older, &a) || !cut_statement(newer, &b)) {
        return;
    }
    retrieval_words_align(&a, &b);
    leave_out_since(&a);
    leave_out_since(&b);
    if (has_addition(&b)) {
        return;
    }
    bool version_a = main_version(&a, &va, &line), version_b = main_version(&b, &vb, &line);
    bool same_version = version_a && version_b && compare_versions(&va, &vb) == 0;
    if ((version_a || version_b) && !same_version) { /* "Windows Phone 8.1 was developed by" */
        out->verdict =
            version_a && version_b ? compare_releases(&a, &b, titles > 0) : RETRIEVAL_SLOT_OTHER;
        return;
    }
    out->verdict = compare_facts(&a, &b, titles, out);
}

size_t retrieval_slot_names(const retrieval_statement *statement, char *out, size_t size)
{
    sentence s;
    size_t written = 0;
    retrieval_words_cut(statement->text, statement->text_size, SIZE_MAX, &s);
    for (int kind = NAME; kind >= CONTENT && written == 0; kind--) {
        for (size_t i = 0; i < s.count; i++) {
            const word *w = &s.words[i];
            if (w->kind == (word_kind)kind && written + w->size + 2 < size) {
                if (written > 0) {
                    out[written++] = ' ';
                }
                memcpy(out + written, w->text, w->size);
                written += w->size;
            }
        }
    }
    out[written] = 0;
    return written;
}
