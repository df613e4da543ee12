/* engine/answer.c: what is reported of an answer: tokens, text, attention masses, citations; and
 * the writes that follow from it. */
#include "engine/session.h"

#include <string.h>

#include "base/mem.h"
#include "engine/words.h"

/* A memory was used if it got this share of attention (mean over layers, heads and answer tokens;
 * semantics §2). */
static const float mass_counts = 0.05f;

base_status session_note_token(engine_session *s, const engine_token *token, base_error *err)
{
    engine_answer *answer = s->answer;
    if (answer->token_count == s->token_capacity) {
        size_t capacity = s->token_capacity ? 2 * s->token_capacity : 256;
        engine_token *grown = base_realloc(answer->tokens, capacity * sizeof *grown);
        if (!grown) {
            return base_fail(err, BASE_NO_MEMORY, "no memory for the trace");
        }
        answer->tokens = grown;
        s->token_capacity = capacity;
    }
    answer->tokens[answer->token_count++] = *token;
    return BASE_OK;
}

/* Bytes at the end that may be the beginning of a code point that is not whole yet. */
static size_t unfinished_bytes(const char *text, size_t size)
{
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        unsigned char c = (unsigned char)text[size - back];
        if ((c & 0xC0) == 0xC0) {
            size_t whole = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
            return back < whole ? back : 0;
        }
        if ((c & 0x80) == 0) {
            break;
        }
    }
    return 0;
}

base_status session_note_text(engine_session *s, int32_t id, bool last, base_error *err)
{
    if (id >= 0) {
        base_status status = tokenizer_decode(s->e->tokenizer, id, false, &s->text);
        if (status) {
            return base_fail(err, status, "no memory for the answer");
        }
    }
    bool whole;
    if (!last && session_refuses(s, &whole)) {
        return BASE_OK;
    }
    size_t end = s->text.size - (last ? 0 : unfinished_bytes(s->text.data, s->text.size));
    if (s->options.on_text && end > s->text_sent) {
        s->options.on_text(s->options.on_text_argument, s->text.data + s->text_sent,
                           end - s->text_sent);
        s->text_sent = end;
    }
    return BASE_OK;
}

base_status session_queue_write(engine_session *s, session_write write_take, base_error *err)
{
    if (s->write_count == s->write_capacity) {
        size_t capacity = s->write_capacity ? 2 * s->write_capacity : 16;
        session_write *grown = base_realloc(s->writes, capacity * sizeof *grown);
        if (!grown) {
            base_free(write_take.blob);
            return base_fail(err, BASE_NO_MEMORY, "no memory for pending writes");
        }
        s->writes = grown;
        s->write_capacity = capacity;
    }
    s->writes[s->write_count++] = write_take;
    return BASE_OK;
}

/* --- citations -------------------------------------------------------------------------------- */

/* Do all content words of the answer that are not the question's stand in the episode? None left:
 * no. */
static base_status holds_answer(const engine_session *s, const store_episode *episode, bool *holds)
{
    base_buffer answer = {0}, question = {0}, text = {0};
    base_status status;
    if ((status = base_buffer_append(&answer, s->text.data ? s->text.data : "", s->text.size)) ||
        (status = base_buffer_append_text(&question, s->question ? s->question : "")) ||
        (status = base_buffer_printf(&text, "%s\n", episode->title)) ||
        (status = base_buffer_append(&text, episode->text, episode->text_size))) {
        goto done;
    }
    session_words_lower(&answer);
    session_words_lower(&question);
    session_words_lower(&text);
    const char *word;
    size_t at = 0, length, content = 0, held = 0;
    while (session_words_next(answer.data ? answer.data : "", answer.size, &at, &word, &length)) {
        if (!session_words_is_function(word, length) &&
            !session_words_hold(&question, word, length)) {
            content++;
            held += session_words_hold(&text, word, length);
        }
    }
    *holds = content > 0 && held == content;
done:
    base_buffer_free(&answer);
    base_buffer_free(&question);
    base_buffer_free(&text);
    return status;
}

void session_note_mass(engine_session *s, const splice_resident *resident)
{
    float mass = resident->mass_tokens > 0 ? (float)(resident->mass / resident->mass_tokens) : 0;
    for (size_t e = 0; s->answer && e < s->answer->event_count; e++) {
        for (size_t m = 0; m < s->answer->events[e].memory_count; m++) {
            if (s->answer->events[e].memories[m].id == resident->episode) {
                s->answer->events[e].memories[m].attention_mass = mass;
            }
        }
    }
}

/* Add a citation for `id` unless its span neither holds the answer's words nor got enough
 * attention. */
static base_status consider(engine_session *s, uint64_t id, float mass, base_error *err)
{
    store_episode episode;
    bool holds = false;
    base_status status = store_get(s->options.store, id, &episode, err);
    if (status) {
        return status == BASE_NOT_FOUND ? BASE_OK : status;
    }
    status = holds_answer(s, &episode, &holds);
    if (!status && (holds || mass >= mass_counts)) {
        engine_answer *answer = s->answer;
        engine_citation *grown =
            base_realloc(answer->citations, (answer->citation_count + 1) * sizeof *grown);
        if (grown) {
            answer->citations = grown;
            grown[answer->citation_count++] =
                (engine_citation){.episode = episode, .attention_mass = mass, .words = holds};
            return BASE_OK;
        }
        status = BASE_NO_MEMORY;
    }
    store_episode_free(&episode);
    return status ? base_fail(err, status, "no memory for citations") : BASE_OK;
}

/* Where some spans hold the answer's words, those that only drew attention are no citations; best
 * first. */
static void sort_citations(engine_answer *answer)
{
    bool words = false;
    size_t kept = 0;
    for (size_t i = 0; i < answer->citation_count; i++) {
        words = words || answer->citations[i].words;
    }
    for (size_t i = 0; i < answer->citation_count; i++) {
        engine_citation citation = answer->citations[i];
        if (words && !citation.words) {
            store_episode_free(&citation.episode);
            continue;
        }
        size_t at = kept++;
        while (at > 0 && answer->citations[at - 1].attention_mass < citation.attention_mass) {
            answer->citations[at] = answer->citations[at - 1];
            at--;
        }
        answer->citations[at] = citation;
    }
    answer->citation_count = kept;
}

/* Did an earlier event of this answer bring the same episode (evicted since, and fetched again)? */
static bool came_before(const engine_answer *answer, size_t event, uint64_t id)
{
    for (size_t e = 0; e < event; e++) {
        for (size_t m = 0; m < answer->events[e].memory_count; m++) {
            if (answer->events[e].memories[m].id == id) {
                return true;
            }
        }
    }
    return false;
}

static base_status find_replaced(engine_session *s, engine_citation *citation, base_error *err)
{
    uint64_t id = citation->episode.replaced;
    base_status status =
        id ? store_get(s->options.store, id, &citation->replaced, err) : BASE_NOT_FOUND;
    if (status) {
        citation->replaced = (store_episode){0};
    }
    return status == BASE_NOT_FOUND || status == BASE_CORRUPT ? BASE_OK : status;
}

static base_status cite(engine_session *s, base_error *err)
{
    engine_answer *answer = s->answer;
    base_status status = BASE_OK;
    splice_collect(&s->window);
    for (size_t i = 0; i < s->window.resident_count; i++) {
        session_note_mass(s, &s->window.residents[i]);
    }
    for (size_t e = 0; e < answer->event_count; e++) {
        for (size_t m = 0; m < answer->events[e].memory_count && !status; m++) {
            const engine_memory *memory = &answer->events[e].memories[m];
            if (came_before(answer, e, memory->id)) {
                continue;
            }
            if (memory->attention_mass >= mass_counts && s->options.keep_writes &&
                !s->options.no_uses) {
                status = session_queue_write(
                    s, (session_write){.episode = memory->id, .mass = memory->attention_mass}, err);
            }
            if (!status) {
                status = consider(s, memory->id, memory->attention_mass, err);
            }
        }
    }
    sort_citations(answer);
    for (size_t i = 0; i < answer->citation_count && !status; i++) {
        status = find_replaced(s, &answer->citations[i], err);
    }
    return status;
}

/* Where the text begins to say something. */
static const char *without_blanks(const base_buffer *text, size_t *size)
{
    size_t begin = 0;
    while (begin < text->size && (text->data[begin] == ' ' || text->data[begin] == '\n')) {
        begin++;
    }
    *size = text->size - begin;
    return text->size ? text->data + begin : "";
}

static bool says_not_held(const base_buffer *text)
{
    size_t size, length = strlen(PROMPT_NOT_HELD);
    const char *said = without_blanks(text, &size);
    return size >= length && memcmp(said, PROMPT_NOT_HELD, length) == 0;
}

bool session_refuses(const engine_session *s, bool *whole)
{
    size_t size, length = strlen(PROMPT_NOT_HELD);
    const char *said = without_blanks(&s->text, &size);
    *whole = size == length;
    return size <= length && memcmp(said, PROMPT_NOT_HELD, size) == 0;
}

void session_drop_answer(engine_session *s)
{
    engine_answer *answer = s->answer;
    base_buffer_clear(&s->text);
    while (answer->token_count > 0 && answer->tokens[answer->token_count - 1].answer) {
        answer->token_count--;
    }
}

base_status session_finish_answer(engine_session *s, base_error *err)
{
    engine_answer *answer = s->answer;
    answer->abstained = answer->abstained || says_not_held(&s->text);
    if (s->options.store && !answer->abstained) {
        base_status status = cite(s, err);
        if (status) {
            return status;
        }
    }
    answer->text = base_strndup(s->text.data ? s->text.data : "", s->text.size);
    return answer->text ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for the answer");
}

void engine_answer_free(engine_answer *answer)
{
    if (!answer) {
        return;
    }
    for (size_t i = 0; i < answer->event_count; i++) {
        base_free(answer->events[i].query);
    }
    for (size_t i = 0; i < answer->citation_count; i++) {
        store_episode_free(&answer->citations[i].episode);
        store_episode_free(&answer->citations[i].replaced);
    }
    base_free(answer->events);
    base_free(answer->citations);
    base_free(answer->tokens);
    base_free(answer->text);
    *answer = (engine_answer){0};
}

/* --- writes after the answer ------------------------------------------------------------------ */

void engine_session_write(engine_session *s)
{
    store_txn *txn = NULL;
    size_t count = s->write_count;
    s->write_count = 0;
    if (count == 0) {
        return;
    }
    base_status status = store_begin(s->options.store, s->options.now_us, &txn, NULL);
    for (size_t i = 0; i < count; i++) {
        session_write *w = &s->writes[i];
        if (!status && w->blob) {
            status = store_put_kv(txn, w->episode, kvcache_tag(s->kv), w->blob, w->blob_size, NULL);
        } else if (!status) {
            status = store_put_use(txn, w->episode, s->options.now_us, w->mass, NULL);
        }
        base_free(w->blob);
    }
    if (!status) {
        status = store_trim_kv(txn, s->options.kv_budget, NULL, NULL);
    }
    if (!status) {
        status = store_commit(txn, NULL);
    } else {
        store_abort(txn);
    }
    if (status) {
        store_count_dropped(s->options.store, count, NULL);
    }
}
