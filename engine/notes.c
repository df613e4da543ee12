/* engine/notes.c: notes as text in the prompt, once, before the question: what the arms `prompt`
 * (bolt-on retrieval; semantics §9) and `full-context` do instead of splicing. */
#include "engine/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* One note; dated: the day of its observation behind the title. */
static base_status paste(engine_session *s, uint64_t id, bool dated, chat_ids *ids, base_error *err)
{
    store_episode episode;
    base_buffer title = {0};
    char day[BASE_TIME_TEXT_MAX];
    base_status status = store_get(s->options.store, id, &episode, err);
    if (status) {
        return status;
    }
    base_time_format_date(episode.observed_at_us, day);
    status = !dated           ? base_buffer_append_text(&title, episode.title)
             : *episode.title ? base_buffer_printf(&title, "%s (%s)", episode.title, day)
                              : base_buffer_append_text(&title, day);
    status = status
                 ? base_fail(err, status, "no memory for a note")
                 : prompt_block(&s->prompt, title.data, episode.text, episode.text_size, ids, err);
    base_buffer_free(&title);
    store_episode_free(&episode);
    return status;
}

typedef struct dated_note {
    int64_t observed_at_us;
    retrieval_hit hit;
} dated_note;

/* Ascending; episode ids grow with every commit. */
static int by_time(const void *left, const void *right)
{
    const dated_note *a = left, *b = right;
    if (a->observed_at_us != b->observed_at_us) {
        return a->observed_at_us < b->observed_at_us ? -1 : 1;
    }
    return a->hit.id < b->hit.id ? -1 : a->hit.id > b->hit.id;
}

base_status session_paste_hits(engine_session *s, const retrieval_hit *hits, size_t count,
                               engine_event *event, chat_ids *ids, base_error *err)
{
    dated_note notes[ENGINE_EVENT_MEMORIES_MAX];
    size_t wanted = 0;
    bool dated = !s->options.notes_plain;
    const retrieval_hit *best = session_best_hit(hits, count);
    while (wanted < count && wanted < s->options.memories_max &&
           wanted < ENGINE_EVENT_MEMORIES_MAX && session_is_enough(s, best, &hits[wanted])) {
        store_brief brief;
        base_status status = store_get_briefs(s->options.store, &hits[wanted].id, 1,
                                              s->options.as_of_us, &brief, err);
        if (status) {
            return status;
        }
        notes[wanted] = (dated_note){brief.observed_at_us, hits[wanted]};
        wanted++;
    }
    if (dated && wanted > 0) {
        qsort(notes, wanted, sizeof *notes, by_time);
    }
    for (size_t i = 0; i < wanted; i++) {
        /* Plain: the best nearest to the question. */
        const retrieval_hit *hit = dated ? &notes[i].hit : &notes[wanted - 1 - i].hit;
        size_t before = ids->count;
        base_status status = paste(s, hit->id, dated, ids, err);
        if (status) {
            return status;
        }
        event->memories[event->memory_count++] = (engine_memory){.id = hit->id,
                                                                 .score = hit->score,
                                                                 .similarity = hit->similarity,
                                                                 .strength = 1.0f,
                                                                 .tokens = ids->count - before,
                                                                 .kv = ENGINE_KV_COMPUTED};
    }
    return BASE_OK;
}

/* What is known and valid at as-of, oldest first; *notes by base_free. */
static base_status list_known(engine_session *s, dated_note **notes, size_t *count, base_error *err)
{
    int64_t as_of = s->options.as_of_us;
    uint64_t *ids = NULL;
    size_t all = 0;
    store_brief brief;
    base_status status = store_select(s->options.store, NULL, BASE_TIME_NONE,
                                      as_of == BASE_TIME_MAX ? as_of : as_of + 1, &ids, &all, err);
    *count = 0;
    *notes = status ? NULL : base_calloc(all ? all : 1, sizeof **notes);
    if (!status && !*notes) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu notes", all);
    }
    for (size_t i = 0; i < all && !status; i++) {
        status = store_get_briefs(s->options.store, &ids[i], 1, as_of, &brief, err);
        if (!status && brief.id && store_strength(&brief, as_of) > 0) {
            (*notes)[*count].observed_at_us = brief.observed_at_us;
            (*notes)[(*count)++].hit = (retrieval_hit){.id = ids[i]};
        }
    }
    base_free(ids);
    if (status) {
        base_free(*notes);
        *notes = NULL;
    } else {
        qsort(*notes, *count, sizeof **notes, by_time);
    }
    return status;
}

base_status session_paste_all(engine_session *s, size_t room, chat_ids *ids, base_error *err)
{
    dated_note *notes;
    size_t count;
    base_status status = list_known(s, &notes, &count, err);
    /* No note has fewer tokens than this: a store that cannot fit is not read. */
    enum { NOTE_TOKENS_MIN = 6 };
    if (!status && count > room / NOTE_TOKENS_MIN) {
        status =
            base_fail(err, BASE_LIMIT, "the %zu notes known do not fit %zu tokens", count, room);
    }
    for (size_t i = 0; i < count && !status; i++) {
        status = paste(s, notes[i].hit.id, true, ids, err);
        if (!status && ids->count > room) {
            status = base_fail(err, BASE_LIMIT, "the %zu notes known do not fit %zu tokens", count,
                               room);
        }
    }
    base_free(notes);
    return status;
}
