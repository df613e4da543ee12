/* eval/haystack.c: facts hidden in real text (--documents), asked at the end: recall by distance.
 * The text is cut into pieces, each a document; a fact is a sentence between two of a piece's own.
 * Distances are spread evenly on a logarithmic scale from the last piece to the first. Where the
 * text is shorter than asked for, it begins again. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"
#include "eval/harness.h"

enum { PIECE_BYTES = 900, FACTS_MAX = 24 * 24, NEAREST = 64 };

static const struct {
    const char *told, *asked;
} forms[] = {
    {"The emblem of %s is the %s.", "What is the emblem of %s?"},
    {"The password of the %s depot is %s.", "What is the password of the %s depot?"},
    {"The ship that sails from %s is the %s.", "Which ship sails from %s?"},
    {"The inn at %s is called the %s.", "What is the inn at %s called?"},
};
enum { FORMS = sizeof forms / sizeof *forms };

typedef struct hay {
    json_t *texts; /* of the documents */
    size_t text, at;
    size_t round; /* how often the text began again */
    engine *e;
} hay;

typedef struct needle {
    size_t position; /* wanted, in tokens from the begin */
    size_t piece;    /* where it came to stand, and tokens up to behind it */
    size_t tokens;
} needle;

/* --- the text --------------------------------------------------------------------------------- */

static base_status read_texts(const char *path, json_t **texts, base_error *err)
{
    base_buffer text = {0};
    size_t line = 0;
    *texts = json_array();
    base_status status = base_file_read(path, (size_t)1 << 30, &text, err);
    for (size_t at = 0; at < text.size && !status;) {
        const char *begin = text.data + at, *end = memchr(begin, '\n', text.size - at);
        size_t size = end ? (size_t)(end - begin) : text.size - at;
        json_error_t problem;
        line++;
        at += size + 1;
        if (size == 0) {
            continue;
        }
        json_t *object = json_loadb(begin, size, 0, &problem);
        json_t *value = json_object_get(object, "text");
        if (!object) {
            status = base_fail(err, BASE_INVALID, "%s:%zu, column %d: %s", path, line,
                               problem.column, problem.text);
        } else if (!json_is_string(value)) {
            status = base_fail(err, BASE_INVALID, "%s:%zu: \"text\" is missing", path, line);
        } else if (json_string_length(value) > 0) {
            json_array_append(*texts, value);
        }
        json_decref(object);
    }
    if (!status && json_array_size(*texts) == 0) {
        status = base_fail(err, BASE_INVALID, "%s: there is no text in it", path);
    }
    base_buffer_free(&text);
    return status;
}

/* The next piece of about PIECE_BYTES, cut behind a sentence where there is one. */
static void next_piece(hay *h, const char **piece, size_t *size)
{
    json_t *text = json_array_get(h->texts, h->text);
    const char *begin = json_string_value(text) + h->at;
    size_t left = json_string_length(text) - h->at, cut = left;
    if (left > PIECE_BYTES) {
        cut = base_utf8_cut(begin, left, PIECE_BYTES);
        for (size_t i = cut; i > PIECE_BYTES / 2; i--) {
            if (strchr(".!?", begin[i - 1]) && strchr(" \n", begin[i])) {
                cut = i;
                break;
            }
        }
    }
    *piece = begin;
    *size = cut;
    h->at += cut;
    if (cut == left) {
        h->at = 0;
        if (++h->text == json_array_size(h->texts)) {
            h->text = 0;
            h->round++;
        }
    }
}

static base_status count_tokens(const hay *h, const char *text, size_t size, size_t *count,
                                base_error *err)
{
    int32_t *ids = NULL;
    base_status status = tokenizer_encode(engine_tokenizer(h->e), text, size, &ids, count, err);
    base_free(ids);
    return status;
}

/* --- facts ------------------------------------------------------------------------------------ */

static void say(uint64_t seed, size_t fact, char *told, char *asked, char *value, size_t size)
{
    char town[64];
    eval_word_town((size_t)(seed % FACTS_MAX) + fact, town, sizeof town);
    eval_word_value((size_t)(seed % EVAL_WORD_VALUES) + 389 * fact, value, size);
    snprintf(told, size, forms[fact % FORMS].told, town, value);
    snprintf(asked, size, forms[fact % FORMS].asked, town);
}

/* Where a sentence of a piece ends, from its middle on; its end when there is none. */
static size_t gap(const char *piece, size_t size)
{
    for (size_t i = size / 2; i + 1 < size; i++) {
        if (strchr(".!?", piece[i]) && strchr(" \n", piece[i + 1])) {
            return i + 1;
        }
    }
    return size;
}

/* One piece with the facts that belong there. */
static base_status add_piece(hay *h, size_t number, uint64_t seed, needle *needles, size_t count,
                             size_t *next, size_t *tokens, eval_set *set, base_error *err)
{
    const char *piece;
    char told[160], asked[160], value[160], id[48], time[BASE_TIME_TEXT_MAX];
    base_buffer text = {0};
    size_t size, n = 0;
    next_piece(h, &piece, &size);
    base_status status = count_tokens(h, piece, size, &n, err);
    size_t at = gap(piece, size);
    status = status ? status : base_buffer_append(&text, piece, at);
    while (!status && *next < count && needles[*next].position < *tokens + n) {
        say(seed, *next, told, asked, value, sizeof told);
        needles[*next].piece = number;
        needles[*next].tokens = *tokens + n / 2; /* half of the piece stands before it */
        ++*next;
        status = base_buffer_printf(&text, " %s", told);
    }
    if (!status && !(status = base_buffer_append(&text, piece + at, size - at))) {
        status = count_tokens(h, text.data, text.size, &n, err);
        *tokens += n;
    }
    snprintf(id, sizeof id, "hay/%zu", number);
    base_time_format(base_time_from_civil(2024, 1, 1) + (int64_t)number * 60000000, time);
    if (!status) {
        status = eval_add_line(&set->documents_text,
                               json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", id, "source", "hay",
                                         "title", "", "text", text.data, "observed_at", time),
                               err);
    } else {
        status = base_fail(err, status, "no memory for a text");
    }
    base_buffer_free(&text);
    return status;
}

static base_status add_question(size_t fact, const needle *n, size_t total, uint64_t seed,
                                eval_set *set, base_error *err)
{
    char told[160], asked[160], value[160], id[48], piece[48];
    say(seed, fact, told, asked, value, sizeof told);
    snprintf(id, sizeof id, "haystack/%zu", fact);
    snprintf(piece, sizeof piece, "hay/%zu", n->piece);
    return eval_add_line(&set->questions_text,
                         json_pack("{s:s, s:s, s:[s], s:[s], s:{s:s, s:I, s:b}}", "id", id,
                                   "question", asked, "answers", value, "evidence", piece, "meta",
                                   "kind", "hidden", "distance", (json_int_t)(total - n->tokens),
                                   "unchanged", 1),
                         err);
}

base_status eval_generate_haystack(const eval_options *o, engine *e, size_t limit, eval_set *set,
                                   base_error *err)
{
    hay h = {.e = e};
    size_t next = 0, tokens = 0, number = 0;
    if (limit > FACTS_MAX) {
        return base_fail(err, BASE_LIMIT, "haystack hides at most %d facts", FACTS_MAX);
    }
    needle *needles = base_calloc(limit, sizeof *needles);
    base_status status = needles ? read_texts(o->documents, &h.texts, err)
                                 : base_fail(err, BASE_NO_MEMORY, "no memory for %zu facts", limit);
    for (size_t i = 0; i < limit && !status; i++) { /* the farthest first */
        double share = limit > 1 ? (double)i / (double)(limit - 1) : 1;
        double distance = (double)o->tokens * pow(NEAREST / (double)o->tokens, share);
        distance = distance < (double)o->tokens ? distance : (double)o->tokens;
        needles[i].position = (size_t)((double)o->tokens - distance);
    }
    while (!status && (tokens < o->tokens || next < limit)) {
        status = add_piece(&h, number++, o->seed, needles, limit, &next, &tokens, set, err);
    }
    for (size_t i = 0; i < limit && !status; i++) {
        status = add_question(i, &needles[i], tokens, o->seed, set, err);
    }
    json_decref(h.texts);
    base_free(needles);
    return status;
}
