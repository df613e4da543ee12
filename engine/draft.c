/* engine/draft.c: spliced memory as the draft model of greedy answers.
 *
 * An answer from memory is mostly a copy. Where the word that is being said stands in a resident
 * episode, what follows it there is run together with it, in one pass, and kept as far as it is
 * what greedy decoding chooses (speculative decoding, Leviathan et al. 2023; drafts by looking up
 * the text at hand: Saxena 2023). A pass of up to 16 tokens gives the bits of single steps
 * (kernels.h), so text, events and attention masses are those of decoding without drafts.
 *
 * Not for sampled answers, forced text, hybrids on a device (whose states agree in chunks only to a
 * tolerance), and streams that keep what leaves their window.
 */
#include "engine/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"

enum {
    CONTEXT_MAX = 32, /* bytes before the word that are compared */
    CONTEXT_SURE = 4, /* so many agree: more than the word itself was copied */
    AHEAD_BYTES = 48  /* of the episode that are proposed */
};

void session_draft_free(session_draft *d)
{
    for (size_t i = 0; i < d->source_count; i++) {
        base_buffer_free(&d->sources[i].text);
    }
    base_buffer_free(&d->word);
    *d = (session_draft){0};
}

void session_draft_note(engine_session *s, const store_episode *episode)
{
    session_draft *d = &s->draft;
    size_t at = 0;
    while (at < d->source_count && splice_find(&s->window, d->sources[at].episode)) {
        at++;
    }
    BASE_ASSERT(at < SPLICE_RESIDENTS_MAX);
    d->source_count += at == d->source_count;
    base_buffer_clear(&d->sources[at].text);
    d->sources[at].episode = episode->id;
    if (base_buffer_printf(&d->sources[at].text, "%s. ", episode->title) ||
        base_buffer_append(&d->sources[at].text, episode->text, episode->text_size)) {
        base_buffer_clear(&d->sources[at].text); /* no memory: no draft from it */
    }
}

const float *session_logits(const engine_session *s)
{
    return s->logits + s->draft.row * core_model_shape(s->e->model)->vocabulary;
}

float session_mass(const engine_session *s)
{
    return core_mass_of(s->window.stream, s->draft.count - s->draft.row);
}

void session_draft_drop(engine_session *s)
{
    session_draft *d = &s->draft;
    size_t v = core_model_shape(s->e->model)->vocabulary;
    size_t unsaid = d->count - d->row;
    if (unsaid > 0) {
        splice_unrun(&s->window, unsaid);
    }
    if (d->row > 0) {
        memmove(s->logits, s->logits + d->row * v, v * sizeof *s->logits);
    }
    d->count = d->row = 0;
}

/* --- what comes next -------------------------------------------------------------------------- */

/* Bytes that two texts have in common before a[at] and b[b_at]. */
static size_t common_before(const char *a, size_t at, const char *b, size_t b_at)
{
    size_t n = 0;
    while (n < CONTEXT_MAX && n < at && n < b_at && a[at - 1 - n] == b[b_at - 1 - n]) {
        n++;
    }
    return n;
}

/* Where the word at the end of what was said, begun at said[begin], goes on in a resident: the
 * place behind it with most of what was said before it. NULL when it stands nowhere. *context: how
 * many bytes before it agree. */
static const char *find(const engine_session *s, const char *said, size_t begin, size_t *left,
                        size_t *context)
{
    const char *word = said + begin, *best = NULL;
    size_t size = strlen(word);
    for (size_t i = 0; i < s->draft.source_count; i++) {
        const base_buffer *text = &s->draft.sources[i].text;
        const char *at = text->data;
        if (!at || !splice_find(&s->window, s->draft.sources[i].episode)) {
            continue;
        }
        const char *end = text->data + text->size;
        while ((at = strstr(at, word))) {
            size_t before = (size_t)(at - text->data);
            at += size;
            if (at == end || (before > 0 && base_is_word_byte(text->data[before - 1]))) {
                continue;
            }
            size_t common = common_before(said, begin, text->data, before);
            if (!best || common >= *context) {
                best = at;
                *left = (size_t)(end - at);
                *context = common;
            }
        }
    }
    return best;
}

/* Tokens of the answer that make up its last `size` bytes; 0 when a token begins before them. */
static size_t tokens_of(engine_session *s, size_t size)
{
    const engine_answer *a = s->answer;
    size_t count = 0, bytes = 0;
    while (bytes < size && count < a->token_count && a->tokens[a->token_count - 1 - count].answer) {
        base_buffer_clear(&s->draft.word);
        if (tokenizer_decode(s->e->tokenizer, a->tokens[a->token_count - 1 - count].id, false,
                             &s->draft.word)) {
            return 0;
        }
        bytes += s->draft.word.size;
        count++;
    }
    return bytes == size ? count : 0;
}

/* Up to max ids that may follow what has been said; 0 where nothing speaks for any. */
static size_t propose(engine_session *s, int32_t *ids, size_t max)
{
    const char *said = s->text.data;
    size_t end = s->text.size, begin = end, left = 0, context = 0;
    while (begin > 0 && !strchr(" \n", said[begin - 1])) {
        begin--;
    }
    size_t space = begin > 0;
    const char *next = begin < end ? find(s, said, begin, &left, &context) : NULL;
    if (!next || (s->draft.refused > 1 && context < CONTEXT_SURE)) {
        return 0;
    }
    size_t size = left < AHEAD_BYTES ? left : AHEAD_BYTES;
    while (size > 0 && size < left && base_is_word_byte(next[size])) {
        size--; /* no half word */
    }
    size_t known = tokens_of(s, end - begin + space), count = 0, proposed = 0;
    int32_t *all = NULL;
    base_buffer_clear(&s->draft.word);
    if (known == 0 ||
        base_buffer_append(&s->draft.word, said + begin - space, end - begin + space) ||
        base_buffer_append(&s->draft.word, next, size) ||
        tokenizer_encode(s->e->tokenizer, s->draft.word.data, s->draft.word.size, &all, &count,
                         NULL)) {
        return 0; /* a draft is never needed */
    }
    const engine_token *last = s->answer->tokens + s->answer->token_count - known;
    bool same = count > known;
    for (size_t i = 0; i < known && same; i++) {
        same = all[i] == last[i].id;
    }
    while (same && proposed < max && known + proposed < count) {
        ids[proposed] = all[known + proposed];
        proposed++;
    }
    base_free(all);
    return proposed;
}

base_status session_say(engine_session *s, int32_t id, size_t ahead_max, base_error *err)
{
    session_draft *d = &s->draft;
    s->answer->decode_tokens++;
    if (d->row < d->count && d->ids[d->row] == id) {
        d->row++;
        d->refused = 0;
        return BASE_OK;
    }
    d->refused += d->count > 0 && d->row == 0;
    session_draft_drop(s);
    int32_t run[1 + SESSION_DRAFT_MAX] = {id};
    size_t room = splice_free_slots(&s->window);
    size_t max = ahead_max < SESSION_DRAFT_MAX ? ahead_max : SESSION_DRAFT_MAX;
    max = max < room ? max : room > 0 ? room - 1 : 0;
    size_t count = max > 0 && s->window.resident_count > 0 ? propose(s, run + 1, max) : 0;
    double begin = base_clock_ms();
    base_status status = splice_run(&s->window, run, 1 + count, s->logits, 1 + count, err);
    s->answer->decode_ms += base_clock_ms() - begin;
    s->answer->decode_steps++;
    if (!status) {
        memcpy(d->ids, run + 1, count * sizeof *run);
        d->count = count;
    }
    return status;
}
