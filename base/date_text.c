/* base/date_text.c: the times that running text speaks of.
 *
 * base_date_intervals reads left to right with a small lexer (words, numbers, dashes, other signs)
 * and a grammar of calendar words only:
 *     item  := [lead] atom [connector atom]
 *     atom  := [early|mid|late] (year | decade | century | month year | date)
 *     lead  := before | after | since | until | from | between ...
 *
 * It does not resolve relative times ("last year", "three days ago"): it has no clock.
 */
#include <stdbool.h>
#include <string.h>

#include "base/date.h"
#include "base/text.h"

#define OPEN_YEARS 40 /* how far an open end reaches; chosen: about a working life */
#define YEAR_MIN 1000
#define YEAR_MAX 2199

/* --- lexer ----------------------------------------------------------------------------------- */

typedef enum token_kind { TOKEN_END, TOKEN_WORD, TOKEN_NUMBER, TOKEN_DASH, TOKEN_OTHER } token_kind;

typedef struct token {
    token_kind kind;
    size_t start, end;
    uint32_t sign; /* TOKEN_OTHER: the code point */
    int value;     /* TOKEN_NUMBER of at most 6 digits */
    size_t digits; /* TOKEN_NUMBER */
    char word[16]; /* TOKEN_WORD in lower case; "" when longer or not ASCII */
} token;

typedef struct reader {
    const char *text;
    size_t length;
} reader;

static bool is_dash(uint32_t c)
{
    return c == '-' || (c >= 0x2010 && c <= 0x2015) || c == 0x2212;
}

static bool is_space(uint32_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0xA0 || c == 0x2009 || c == 0x202F;
}

static bool is_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= 0xC0 && c != 0xFFFFFFFF && !is_dash(c) && !is_space(c) &&
            !(c >= 0x2000 && c <= 0x206F) && !(c >= 0x3000 && c <= 0x303F));
}

static uint32_t peek(const reader *r, size_t at, size_t *next)
{
    uint32_t c;
    if (at >= r->length) {
        *next = at;
        return 0;
    }
    *next = at + base_utf8_decode(r->text + at, r->length - at, &c);
    return c;
}

static token lex(const reader *r, size_t at)
{
    token t = {.kind = TOKEN_END};
    size_t next;
    uint32_t c = peek(r, at, &next);
    while (at < r->length && is_space(c)) {
        at = next;
        c = peek(r, at, &next);
    }
    t.start = t.end = at;
    if (at >= r->length) {
        return t;
    }
    if (is_digit(c)) {
        t.kind = TOKEN_NUMBER;
        while (t.end < r->length && is_digit((uint8_t)r->text[t.end])) {
            if (t.digits < 6) {
                t.value = t.value * 10 + (r->text[t.end] - '0');
            }
            t.digits++;
            t.end++;
        }
        return t;
    }
    if (is_letter(c)) {
        t.kind = TOKEN_WORD;
        size_t used = 0;
        bool fits = true;
        while (t.end < r->length && is_letter(c)) {
            if (c < 0x80 && used + 1 < sizeof t.word) {
                t.word[used++] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
            } else {
                fits = false;
            }
            t.end = next;
            c = peek(r, t.end, &next);
        }
        t.word[fits ? used : 0] = '\0';
        return t;
    }
    t.kind = is_dash(c) ? TOKEN_DASH : TOKEN_OTHER;
    t.sign = c;
    t.end = next;
    return t;
}

static bool word_is(const token *t, const char *word)
{
    return t->kind == TOKEN_WORD && strcmp(t->word, word) == 0;
}

static bool sign_is(const token *t, uint32_t sign)
{
    return t->kind == TOKEN_OTHER && t->sign == sign;
}

/* 1..12 for a month's name or usual abbreviation; 0 otherwise. "may" counts only when a number
 * stands beside it, which the callers make sure of. */
static int month_of(const token *t)
{
    static const char *const names[12] = {"january",   "february", "march",    "april",
                                          "may",       "june",     "july",     "august",
                                          "september", "october",  "november", "december"};
    if (t->kind != TOKEN_WORD) {
        return 0;
    }
    size_t n = strlen(t->word);
    if (n < 3) {
        return 0;
    }
    for (int m = 0; m < 12; m++) {
        if (strcmp(t->word, names[m]) == 0 || (n == 3 && strncmp(t->word, names[m], 3) == 0)) {
            return m + 1;
        }
    }
    return strcmp(t->word, "sept") == 0 ? 9 : 0;
}

/* --- atoms ----------------------------------------------------------------------------------- */

/* A stretch without its surroundings. year 0: a month or day whose year stands behind the
 * connector. */
typedef struct atom {
    int year, month, day; /* month, day 0 when not named */
    int years;            /* length in years when month is 0: 1, 10, 100 */
    int part;             /* 0 whole, 1 early, 2 mid, 3 late */
    size_t end;
} atom;

static int64_t atom_from(const atom *a)
{
    return base_time_from_civil(a->year, a->month ? a->month : 1, a->day ? a->day : 1);
}

static int64_t atom_to(const atom *a)
{
    if (a->month == 0) {
        return base_time_from_civil(a->year + a->years, 1, 1);
    }
    if (a->day == 0) {
        return a->month == 12 ? base_time_from_civil(a->year + 1, 1, 1)
                              : base_time_from_civil(a->year, a->month + 1, 1);
    }
    return atom_from(a) + BASE_DAY_US;
}

/* "early", "mid" and "late" overlap a little, as the words do: tenths 0-4, 3-7, 6-10. */
static base_interval atom_interval(const atom *a)
{
    base_interval out = {atom_from(a), atom_to(a)};
    int64_t tenth = (out.to_us - out.from_us) / 10;
    if (a->part == 1) {
        out.to_us = out.from_us + 4 * tenth;
    } else if (a->part == 2) {
        out.to_us = out.from_us + 7 * tenth;
        out.from_us += 3 * tenth;
    } else if (a->part == 3) {
        out.from_us += 6 * tenth;
    }
    return out;
}

static bool is_year(const token *t)
{
    return t->kind == TOKEN_NUMBER && t->digits == 4 && t->value >= YEAR_MIN &&
           t->value <= YEAR_MAX;
}

/* A number that is part of a larger thing ("1.1999", "$1500", "v2010", "2010a", "1999.5") is no
 * year. */
static bool stands_alone(const reader *r, const token *t)
{
    if (t->start > 0) {
        char before = r->text[t->start - 1];
        bool glued_digit = t->start > 1 && is_digit((uint8_t)r->text[t->start - 2]);
        if (before == '$' || before == '#' || before == '%' || before == '_' || before == '=' ||
            before == '@' || is_letter((uint8_t)before) || (uint8_t)before == 0xA3 ||
            ((before == '.' || before == ',') && glued_digit)) {
            return false;
        }
    }
    size_t next;
    uint32_t c = peek(r, t->end, &next);
    if (c == '%' || c == '_' || (is_letter(c) && c != 's')) {
        return false;
    }
    return !((c == '.' || c == ',') && next < r->length && is_digit((uint8_t)r->text[next]));
}

/* "st", "nd", "rd", "th" glued to the number that ends at `at`. */
static size_t skip_ordinal(const reader *r, size_t at, bool *found)
{
    token t = lex(r, at);
    *found = t.start == at &&
             (word_is(&t, "st") || word_is(&t, "nd") || word_is(&t, "rd") || word_is(&t, "th"));
    return *found ? t.end : at;
}

static bool day_fits(const atom *a)
{
    return a->day >= 1 && a->day <= base_days_in_month(a->year ? a->year : 2000, a->month);
}

/* 2021-03-05, 2021-03, 2021/03/05; t is the year. A two-digit number that can only be a year
 * ("1999-04" read as 1999 to 2004) is left to the range rule. */
static bool parse_iso(const reader *r, const token *t, atom *out)
{
    token sep = lex(r, t->end);
    if (sep.start != t->end ||
        !(sign_is(&sep, '/') || (sep.kind == TOKEN_DASH && sep.sign == '-'))) {
        return false;
    }
    token month = lex(r, sep.end);
    if (month.kind != TOKEN_NUMBER || month.start != sep.end || month.digits != 2 ||
        month.value < 1 || month.value > 12) {
        return false;
    }
    *out = (atom){.year = t->value, .month = month.value, .end = month.end};
    token sep2 = lex(r, month.end);
    token day = lex(r, sep2.end);
    if (sep2.start == month.end && sep2.kind == sep.kind && sep2.sign == sep.sign &&
        day.kind == TOKEN_NUMBER && day.start == sep2.end && day.digits <= 2) {
        out->day = day.value;
        out->end = day.end;
        return day_fits(out);
    }
    /* 2003-04 is April or the season 2003/04; only the month after the year's own digits is in
     * doubt. */
    return month.value != (t->value + 1) % 100;
}

/* 03/2021, 05/03/2021; t is the first number. With two small numbers the order of day and month is
 * not known: the year counts. */
static bool parse_slashed(const reader *r, const token *t, atom *out)
{
    token s1 = lex(r, t->end);
    if (t->digits > 2 || !sign_is(&s1, '/') || s1.start != t->end) {
        return false;
    }
    token n2 = lex(r, s1.end);
    if (n2.kind != TOKEN_NUMBER || n2.start != s1.end) {
        return false;
    }
    if (is_year(&n2)) {
        *out = (atom){.year = n2.value, .month = t->value, .years = 1, .end = n2.end};
        return t->value >= 1 && t->value <= 12;
    }
    token s2 = lex(r, n2.end);
    token n3 = lex(r, s2.end);
    if (!sign_is(&s2, '/') || n2.digits > 2 || !is_year(&n3) || n3.start != s2.end) {
        return false;
    }
    *out = (atom){.year = n3.value, .years = 1, .end = n3.end};
    if (t->value > 12 || t->value == n2.value) {
        out->day = t->value;
        out->month = n2.value;
    } else if (n2.value > 12) {
        out->month = t->value;
        out->day = n2.value;
    }
    return out->month == 0 || (out->month >= 1 && out->month <= 12 && day_fits(out));
}

/* Month [day][,] [year]; t is the month's name. Without a year it is an atom only with a day or
 * before a connector, which the caller checks by year == 0. */
static bool parse_month_first(const reader *r, const token *t, atom *out)
{
    *out = (atom){.month = month_of(t), .years = 1, .end = t->end};
    token n = lex(r, t->end);
    if (sign_is(&n, '.')) {
        n = lex(r, n.end);
    }
    if (word_is(&n, "of")) {
        n = lex(r, n.end);
    }
    if (is_year(&n) && stands_alone(r, &n)) {
        out->year = n.value;
        out->end = n.end;
        return true;
    }
    if (n.kind == TOKEN_NUMBER && n.digits <= 2) {
        bool ordinal;
        out->day = n.value;
        out->end = skip_ordinal(r, n.end, &ordinal);
        if (!day_fits(out)) {
            return false;
        }
        token y = lex(r, out->end);
        if (sign_is(&y, ',')) {
            y = lex(r, y.end);
        }
        if (is_year(&y) && stands_alone(r, &y)) {
            out->year = y.value;
            out->end = y.end;
            return day_fits(out);
        }
    }
    return true;
}

/* day [of] Month[,] [year]; t is the day. */
static bool parse_day_first(const reader *r, const token *t, atom *out)
{
    if (t->digits > 2) {
        return false;
    }
    bool ordinal;
    token m = lex(r, skip_ordinal(r, t->end, &ordinal));
    if (word_is(&m, "of")) {
        m = lex(r, m.end);
    }
    *out = (atom){.month = month_of(&m), .day = t->value, .years = 1, .end = m.end};
    if (out->month == 0 || !day_fits(out)) {
        return false;
    }
    token y = lex(r, m.end);
    if (sign_is(&y, ',') || sign_is(&y, '.')) {
        y = lex(r, y.end);
    }
    if (is_year(&y) && stands_alone(r, &y)) {
        out->year = y.value;
        out->end = y.end;
    }
    return day_fits(out);
}

/* "18th century": the hundred years that the words mean (1700-1799 here; the calendar's 1701-1800
 * differs by a year). */
static bool parse_century(const reader *r, const token *t, atom *out)
{
    bool ordinal;
    token c = lex(r, skip_ordinal(r, t->end, &ordinal));
    if (c.kind == TOKEN_DASH) {
        c = lex(r, c.end);
    }
    if (!ordinal || !(word_is(&c, "century") || word_is(&c, "centuries")) || t->value < 11 ||
        t->value > 21) {
        return false;
    }
    *out = (atom){.year = (t->value - 1) * 100, .years = 100, .end = c.end};
    return true;
}

/* 1999, 1970s, 1970's; t is the year. */
static bool parse_year(const reader *r, const token *t, atom *out)
{
    if (!is_year(t) || !stands_alone(r, t)) {
        return false;
    }
    *out = (atom){.year = t->value, .years = 1, .end = t->end};
    token s = lex(r, t->end);
    size_t glue = t->end;
    if (s.start == glue && (sign_is(&s, '\'') || sign_is(&s, 0x2019))) {
        glue = s.end;
        s = lex(r, glue);
    }
    if (s.start == glue && word_is(&s, "s") && t->value % 10 == 0) {
        out->years = t->value % 100 == 0 ? 100 : 10;
        out->end = s.end;
        return true;
    }
    return !(s.start == t->end && s.kind == TOKEN_WORD); /* "1999s" and "1999x" are no years */
}

static bool parse_atom(const reader *r, size_t at, atom *out)
{
    token t = lex(r, at);
    int part = word_is(&t, "early") ? 1 : word_is(&t, "mid") ? 2 : word_is(&t, "late") ? 3 : 0;
    if (part != 0) {
        t = lex(r, t.end);
        if (t.kind == TOKEN_DASH || word_is(&t, "in")) {
            t = lex(r, t.end);
        }
        if (word_is(&t, "the")) {
            t = lex(r, t.end);
        }
    }
    bool found = false;
    if (t.kind == TOKEN_NUMBER) {
        if (is_year(&t)) {
            found = (stands_alone(r, &t) && parse_iso(r, &t, out)) || parse_year(r, &t, out);
        } else if (stands_alone(r, &t) || t.digits <= 2) {
            found = parse_slashed(r, &t, out) || parse_century(r, &t, out) ||
                    parse_day_first(r, &t, out);
        }
    } else if (month_of(&t) != 0) {
        found = parse_month_first(r, &t, out);
    }
    if (found) {
        out->part = part;
    }
    return found;
}

/* --- leads, connectors, the scan ------------------------------------------------------------- */

typedef enum lead {
    LEAD_NONE,
    LEAD_BEFORE,
    LEAD_AFTER,
    LEAD_SINCE, /* since, from */
    LEAD_UNTIL,
    LEAD_BETWEEN
} lead;

static lead lead_of(const token *t)
{
    static const struct {
        const char *word;
        lead kind;
    } table[] = {{"before", LEAD_BEFORE}, {"prior", LEAD_BEFORE},   {"after", LEAD_AFTER},
                 {"since", LEAD_SINCE},   {"from", LEAD_SINCE},     {"until", LEAD_UNTIL},
                 {"till", LEAD_UNTIL},    {"between", LEAD_BETWEEN}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (word_is(t, table[i].word)) {
            return table[i].kind;
        }
    }
    return LEAD_NONE;
}

/* Words that may stand between a lead and its date: "from about the year 1999", "prior to", "up
 * to". */
static bool keeps_lead(const token *t)
{
    static const char *const words[] = {"the",           "year", "years", "about", "around",
                                        "circa",         "to",   "in",    "c",     "ca",
                                        "approximately", "at",   "least"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (word_is(t, words[i])) {
            return true;
        }
    }
    return sign_is(t, '.');
}

static bool is_open_word(const token *t)
{
    return word_is(t, "present") || word_is(t, "now") || word_is(t, "today") ||
           word_is(t, "date") || word_is(t, "onwards") || word_is(t, "onward");
}

static int64_t shift_years(int64_t time_us, int years)
{
    int year, month, day;
    int64_t rest_us = base_time_to_civil(time_us, &year, &month, &day);
    year += years;
    if (day > base_days_in_month(year, month)) {
        day = base_days_in_month(year, month);
    }
    return base_time_from_civil(year, month, day) + rest_us;
}

/* Second half of a range behind atom a: "to 1827", "-04", "until present". False when none follows;
 * a is completed with the year of the second half where it had none. */
static bool parse_range(const reader *r, atom *a, lead before, base_interval *out, size_t *end)
{
    token c = lex(r, a->end);
    bool dash = c.kind == TOKEN_DASH;
    bool word = word_is(&c, "to") || word_is(&c, "until") || word_is(&c, "till") ||
                word_is(&c, "through") || word_is(&c, "thru") ||
                (before == LEAD_BETWEEN && word_is(&c, "and"));
    bool slash = sign_is(&c, '/') && c.start == a->end; /* only in 1999/00 */
    if (!dash && !word && !slash) {
        return false;
    }
    token n = lex(r, c.end);
    if (word_is(&n, "the")) {
        n = lex(r, n.end);
    }
    if (is_open_word(&n) && a->year != 0) {
        int64_t from_us = atom_interval(a).from_us;
        *out = (base_interval){from_us, shift_years(from_us, OPEN_YEARS)};
        *end = n.end;
        return true;
    }
    /* 1999-04, 1999/04 seasons and shortened years */
    if ((dash || slash) && a->year != 0 && a->month == 0 && n.kind == TOKEN_NUMBER &&
        n.digits == 2 && n.start == c.end && n.value != a->year % 100) {
        int century = a->year - a->year % 100;
        if (n.value < a->year % 100 && n.value != (a->year + 1) % 100) {
            return false; /* 1999-00 is a turn of the century; 1999-04 is not read as 1999 to 2004
                           */
        }
        atom b = {.year = century + n.value + (n.value < a->year % 100 ? 100 : 0), .years = 1};
        *out = (base_interval){atom_interval(a).from_us, atom_to(&b)};
        *end = n.end;
        return true;
    }
    atom b;
    if (slash || !parse_atom(r, n.start, &b) || b.year == 0) {
        return false;
    }
    if (a->year == 0) {
        a->year = b.year - (a->month > (b.month ? b.month : 12));
        if (a->day != 0 && !day_fits(a)) {
            return false;
        }
    }
    *out = (base_interval){atom_interval(a).from_us, atom_interval(&b).to_us};
    *end = b.end;
    return out->from_us < out->to_us;
}

static base_interval apply_lead(const atom *a, lead kind)
{
    base_interval out = atom_interval(a);
    switch (kind) {
    case LEAD_BEFORE:
        return (base_interval){shift_years(out.from_us, -OPEN_YEARS), out.from_us};
    case LEAD_UNTIL:
        return (base_interval){shift_years(out.to_us, -OPEN_YEARS), out.to_us};
    case LEAD_AFTER:
        return (base_interval){out.to_us, shift_years(out.to_us, OPEN_YEARS)};
    case LEAD_SINCE:
        return (base_interval){out.from_us, shift_years(out.from_us, OPEN_YEARS)};
    case LEAD_NONE:
    case LEAD_BETWEEN:
        break;
    }
    return out;
}

/* "5-7 March 2021": a day, a dash, a full date. Only for the first half; false otherwise. */
static bool parse_day_range(const reader *r, const token *t, base_interval *out, size_t *end)
{
    token c = lex(r, t->end);
    if (t->kind != TOKEN_NUMBER || t->digits > 2 || c.kind != TOKEN_DASH) {
        return false;
    }
    token n = lex(r, c.end);
    atom b;
    if (n.kind != TOKEN_NUMBER || !parse_day_first(r, &n, &b) || b.year == 0 || t->value < 1 ||
        t->value >= b.day) {
        return false;
    }
    *out = (base_interval){base_time_from_civil(b.year, b.month, t->value), atom_to(&b)};
    *end = b.end;
    return true;
}

size_t base_date_intervals(const char *text, size_t length, base_interval *out, size_t max)
{
    reader r = {text, length};
    size_t count = 0;
    size_t at = 0;
    lead before = LEAD_NONE;
    while (count < max) {
        token t = lex(&r, at);
        if (t.kind == TOKEN_END) {
            break;
        }
        base_interval found;
        atom a;
        size_t end = 0;
        if (parse_day_range(&r, &t, &found, &end)) {
            before = LEAD_NONE;
        } else if (parse_atom(&r, t.start, &a)) {
            if (parse_range(&r, &a, before, &found, &end)) {
                before = LEAD_NONE;
            } else if (a.year != 0) {
                found = apply_lead(&a, before);
                end = a.end;
                before = LEAD_NONE;
            }
        }
        if (end == 0) {
            lead next = lead_of(&t);
            if (next != LEAD_NONE) {
                before = next;
            } else if (!keeps_lead(&t)) {
                before = LEAD_NONE;
            }
            at = t.end;
            continue;
        }
        at = end;
        bool seen = false;
        for (size_t i = 0; i < count && !seen; i++) {
            seen = out[i].from_us == found.from_us && out[i].to_us == found.to_us;
        }
        if (!seen) {
            out[count++] = found;
        }
    }
    return count;
}

size_t base_date_years(const char *text, size_t length, int *out, size_t max)
{
    reader r = {text, length};
    size_t count = 0;
    for (token t = lex(&r, 0); t.kind != TOKEN_END && count < max; t = lex(&r, t.end)) {
        if (!is_year(&t) || !stands_alone(&r, &t)) {
            continue;
        }
        bool seen = false;
        for (size_t i = 0; i < count && !seen; i++) {
            seen = out[i] == t.value;
        }
        if (!seen) {
            out[count++] = t.value;
        }
    }
    return count;
}
