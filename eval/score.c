/* eval/score.c: normalised comparison of answers (Rajpurkar et al. 2016: lower case, no punctuation
 * at word ends, no articles). */
#include <string.h>

#include "base/mem.h"
#include "eval/eval.h"

enum { WORDS_MAX = 512, WORD_SIZE = 64 };

typedef struct words {
    char word[WORDS_MAX][WORD_SIZE];
    size_t count;
} words;

static bool is_edge_punctuation(unsigned char c)
{
    return c < 0x80 && !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '+' || c == '#');
}

static bool is_article(const char *w)
{
    return strcmp(w, "a") == 0 || strcmp(w, "an") == 0 || strcmp(w, "the") == 0;
}

static void split(const char *text, words *out)
{
    out->count = 0;
    while (*text && out->count < WORDS_MAX) {
        char word[WORD_SIZE];
        size_t size = 0;
        while (*text && strchr(" \t\r\n\"(),;/", *text)) {
            text++;
        }
        while (*text && !strchr(" \t\r\n\"(),;/", *text)) {
            char c = *text++;
            c = c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
            if (size + 1 < sizeof word) {
                word[size++] = c;
            }
        }
        while (size > 0 && is_edge_punctuation((unsigned char)word[size - 1])) {
            size--;
        }
        size_t from = 0;
        while (from < size && is_edge_punctuation((unsigned char)word[from])) {
            from++;
        }
        word[size] = 0;
        if (size > from && !is_article(word + from)) {
            memcpy(out->word[out->count++], word + from, size - from + 1);
        }
    }
}

typedef struct pair {
    words answer, gold;
} pair;

static pair *split_both(const char *answer, const char *gold)
{
    pair *p = base_alloc(sizeof *p);
    BASE_ASSERT(p != NULL);
    split(answer, &p->answer);
    split(gold, &p->gold);
    return p;
}

static bool run_at(const pair *p, size_t at)
{
    for (size_t k = 0; k < p->gold.count; k++) {
        if (strcmp(p->answer.word[at + k], p->gold.word[k]) != 0) {
            return false;
        }
    }
    return true;
}

bool eval_same(const char *answer, const char *gold)
{
    pair *p = split_both(answer, gold);
    bool same = p->gold.count > 0 && p->gold.count == p->answer.count && run_at(p, 0);
    base_free(p);
    return same;
}

bool eval_holds(const char *answer, const char *gold)
{
    pair *p = split_both(answer, gold);
    bool holds = false;
    for (size_t at = 0; p->gold.count > 0 && at + p->gold.count <= p->answer.count && !holds;
         at++) {
        holds = run_at(p, at);
    }
    base_free(p);
    return holds;
}

double eval_f1(const char *answer, const char *gold)
{
    pair *p = split_both(answer, gold);
    bool used[WORDS_MAX] = {false};
    size_t shared = 0;
    for (size_t i = 0; i < p->answer.count; i++) {
        for (size_t k = 0; k < p->gold.count; k++) {
            if (!used[k] && strcmp(p->answer.word[i], p->gold.word[k]) == 0) {
                used[k] = true;
                shared++;
                break;
            }
        }
    }
    double f1 = shared ? 2.0 * (double)shared / (double)(p->answer.count + p->gold.count) : 0;
    base_free(p);
    return f1;
}
