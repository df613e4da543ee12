/* cli/print.c: answers as JSON (the contract's fields) and as text for a person. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/cli.h"

int cli_print_json(json_t *document_take)
{
    char *text = document_take ? json_dumps(document_take, JSON_REAL_PRECISION(7)) : NULL;
    json_decref(document_take);
    if (!text) {
        cli_usage("no memory for the output");
        return CLI_FAILED;
    }
    puts(text);
    free(text); /* jansson's own allocation */
    return CLI_DONE;
}

json_t *cli_json_time(int64_t time_us)
{
    char text[BASE_TIME_TEXT_MAX];
    if (time_us == BASE_TIME_NONE || time_us == BASE_TIME_MAX) {
        return json_null();
    }
    base_time_format(time_us, text);
    return json_string(text);
}

json_t *cli_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* Episode text is valid UTF-8; a single token's bytes may not be. */
static json_t *json_bytes(const char *data, size_t size)
{
    json_t *text = json_stringn(data, size);
    return text ? text : json_string("\xEF\xBF\xBD");
}

static json_t *json_tokens(const engine *e, const engine_answer *answer)
{
    json_t *tokens = json_array();
    for (size_t i = 0; i < answer->token_count; i++) {
        const engine_token *t = &answer->tokens[i];
        base_buffer text = {0};
        tokenizer_decode(engine_tokenizer(e), t->id, true, &text);
        json_array_append_new(tokens,
                              json_pack("{s:i, s:o, s:f, s:f, s:b}", "id", (int)t->id, "text",
                                        json_bytes(text.data ? text.data : "", text.size),
                                        "surprise_nats", (double)t->surprise_nats, "entropy_nats",
                                        (double)t->entropy_nats, "event", t->event));
        base_buffer_free(&text);
    }
    return tokens;
}

static json_t *json_events(const engine_answer *answer)
{
    json_t *events = json_array();
    for (size_t i = 0; i < answer->event_count; i++) {
        const engine_event *e = &answer->events[i];
        json_t *memories = json_array();
        for (size_t m = 0; m < e->memory_count; m++) {
            const engine_memory *memory = &e->memories[m];
            json_array_append_new(
                memories,
                json_pack("{s:I, s:f, s:f, s:f, s:f, s:I, s:s, s:f}", "id", (json_int_t)memory->id,
                          "score", (double)memory->score, "similarity", (double)memory->similarity,
                          "strength", (double)memory->strength, "logit_bias",
                          (double)memory->logit_bias, "tokens", (json_int_t)memory->tokens, "kv",
                          memory->kv == ENGINE_KV_DISK ? "disk" : "computed", "attention_mass",
                          (double)memory->attention_mass));
        }
        json_array_append_new(events, json_pack("{s:I, s:s, s:f, s:f, s:f, s:f, s:s, s:o}",
                                                "at_token", (json_int_t)e->at_token, "phase",
                                                e->in_answer ? "answer" : "prompt", "score",
                                                (double)e->score, "threshold", (double)e->threshold,
                                                "query_ms", e->query_ms, "splice_ms", e->splice_ms,
                                                "query", e->query, "memories", memories));
    }
    return events;
}

/* What a citation took the place of, or null. */
static json_t *json_replaced(const store_episode *e)
{
    return e->id == 0 ? json_null()
                      : json_pack("{s:I, s:s, s:s, s:o, s:o}", "memory", (json_int_t)e->id,
                                  "source", e->source, "document", e->external_id, "observed_at",
                                  cli_json_time(e->observed_at_us), "text",
                                  json_bytes(e->text, e->text_size));
}

static json_t *json_citations(const engine_answer *answer)
{
    json_t *citations = json_array();
    for (size_t i = 0; i < answer->citation_count; i++) {
        const store_episode *e = &answer->citations[i].episode;
        json_array_append_new(
            citations,
            json_pack("{s:I, s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:f}", "memory",
                      (json_int_t)e->id, "source", e->source, "document", e->external_id, "title",
                      e->title, "start_byte", (json_int_t)e->start_byte, "end_byte",
                      (json_int_t)e->end_byte, "observed_at", cli_json_time(e->observed_at_us),
                      "valid_from", cli_json_time(e->valid_from_us), "valid_to",
                      cli_json_time(e->valid_to_us), "superseded_at",
                      cli_json_time(e->superseded_at_us), "replaced",
                      json_replaced(&answer->citations[i].replaced), "text",
                      json_bytes(e->text, e->text_size), "attention_mass",
                      (double)answer->citations[i].attention_mass));
    }
    return citations;
}

json_t *cli_json_answer(const cli_options *o, const engine *e, const char *question,
                        const engine_answer *answer)
{
    json_t *timing = json_pack(
        "{s:f, s:I, s:f, s:I, s:I, s:f, s:f, s:f, s:I, s:I}", "load_ms", engine_load_ms(e),
        "prefill_tokens", (json_int_t)answer->prefill_tokens, "prefill_ms", answer->prefill_ms,
        "decode_tokens", (json_int_t)answer->decode_tokens, "decode_steps",
        (json_int_t)answer->decode_steps, "decode_ms", answer->decode_ms, "retrieval_ms",
        answer->retrieval_ms, "splice_ms", answer->splice_ms, "rerun_tokens",
        (json_int_t)answer->rerun_tokens, "lookups", (json_int_t)answer->lookups);
    return json_pack("{s:s, s:o, s:b, s:o, s:s, s:s, s:f, s:o, s:o, s:o, s:o}", "question",
                     question, "answer", json_bytes(answer->text, strlen(answer->text)),
                     "abstained", answer->abstained, "as_of",
                     cli_json_time(o->as_of_us == BASE_TIME_NONE ? o->now_us : o->as_of_us), "arm",
                     o->arm ? o->arm : "full", "model", engine_model_name(e), "best_score",
                     (double)answer->best_score, "tokens", json_tokens(e, answer), "events",
                     json_events(answer), "citations", json_citations(answer), "timing", timing);
}

/* First line of an episode's text, at most `width` bytes, cut between code points. */
static void print_short(const char *text, size_t size, size_t width)
{
    while (size > 0 && (*text == ' ' || *text == '\n')) {
        text++;
        size--;
    }
    size_t end = 0;
    while (end < size && text[end] != '\n' && end < width) {
        end++;
    }
    while (end > 0 && end < size && ((unsigned char)text[end] & 0xC0) == 0x80) {
        end--;
    }
    printf("%.*s%s", (int)end, text, end < size && text[end] != '\n' ? "..." : "");
}

void cli_print_citations(const engine_answer *answer)
{
    for (size_t i = 0; i < answer->citation_count; i++) {
        const store_episode *e = &answer->citations[i].episode;
        const store_episode *old = &answer->citations[i].replaced;
        char date[BASE_TIME_TEXT_MAX], since[BASE_TIME_TEXT_MAX];
        base_time_format_date(e->observed_at_us, date);
        printf("  [%llu] %s, %s: ", (unsigned long long)e->id, date,
               *e->title ? e->title : e->external_id);
        print_short(e->text, e->text_size, 160);
        if (e->superseded_at_us != BASE_TIME_MAX) {
            base_time_format_date(e->superseded_at_us, since);
            printf(" (superseded %s)", since);
        }
        printf("\n");
        if (old->id != 0) {
            base_time_format_date(old->observed_at_us, date);
            printf("      which replaced [%llu] of %s: ", (unsigned long long)old->id, date);
            print_short(old->text, old->text_size, 120);
            printf("\n");
        }
    }
}

void cli_print_trace(const engine *e, store *s, const engine_answer *answer)
{
    printf("\ntrace: %zu prompt tokens run, %zu answer tokens in %zu steps, %zu run again; %zu "
           "lookups\n",
           answer->prefill_tokens, answer->decode_tokens, answer->decode_steps,
           answer->rerun_tokens, answer->lookups);
    for (size_t i = 0; i < answer->event_count; i++) {
        const engine_event *event = &answer->events[i];
        base_buffer before = {0};
        size_t from = event->at_token > 6 ? event->at_token - 6 : 0;
        for (size_t t = from; t < event->at_token && t < answer->token_count; t++) {
            tokenizer_decode(engine_tokenizer(e), answer->tokens[t].id, false, &before);
        }
        printf("  %s, after \"", event->in_answer ? "answer" : "prompt");
        print_short(before.data ? before.data : "", before.size, 60);
        printf("\": entropy %.2f nats (threshold %.2f); lookup %.1f ms, splice %.1f ms\n",
               (double)event->score, (double)event->threshold, event->query_ms, event->splice_ms);
        base_buffer_free(&before);
        for (size_t m = 0; m < event->memory_count; m++) {
            const engine_memory *memory = &event->memories[m];
            store_episode episode;
            printf("    + [%llu] score %.2f, similarity %.2f, strength %.2f (bias %.2f), %zu "
                   "tokens, KV %s, attention %.3f: ",
                   (unsigned long long)memory->id, (double)memory->score,
                   (double)memory->similarity, (double)memory->strength, (double)memory->logit_bias,
                   memory->tokens, memory->kv == ENGINE_KV_DISK ? "from disk" : "computed",
                   (double)memory->attention_mass);
            if (s && store_get(s, memory->id, &episode, NULL) == BASE_OK) {
                print_short(episode.text, episode.text_size, 70);
                store_episode_free(&episode);
            }
            printf("\n");
        }
    }
}
