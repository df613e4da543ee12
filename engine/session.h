/* engine/session.h: inside of an engine and a session, shared by engine.c, session.c (the loop),
 * recall.c (memory into the window), running.c (in mid-sentence) and answer.c (what is reported).
 */
#ifndef ENGINE_SESSION_H
#define ENGINE_SESSION_H

#include "engine/chat.h"
#include "engine/engine.h"
#include "engine/kvcache.h"
#include "engine/prompt.h"
#include "engine/splice.h"

struct engine {
    base_pool *pool;
    core_model *model;
    struct gpu_model *gpu; /* its copy on the device, NULL = the CPU */
    tokenizer *tokenizer;
    encoder *encoder;
    core_stream_options stream_options;
    core_stream *hidden;  /* hidden.c: of its own, opened when first asked for */
    float *hidden_centre; /* [channels] */
    kvblob_type kv_type;
    char *model_name;
    double load_ms;
};

/* A use or a KV block that waits to be committed after the answer. */
typedef struct session_write {
    uint64_t episode;
    void *blob; /* NULL: a use */
    size_t blob_size;
    float mass;
} session_write;

/* Live text that has not been cut into episodes yet (lived.c). */
typedef struct session_lived {
    int32_t *ids;     /* [capacity] oldest first */
    float *surprises; /* [capacity] nats */
    size_t count, capacity;
    size_t begin;    /* tokens of the stream before ids[0] */
    uint64_t first;  /* episode of this stream, 0 = none yet */
    float threshold; /* of a span's pooled surprise */
    struct {
        uint64_t first_id, end_id; /* episodes [first_id, end_id) */
        size_t end;                /* tokens of the stream up to their last */
    } recent[16];
    size_t recent_next;
    engine_lived counts;
} session_lived;

enum {
    SESSION_TAIL = 8,         /* tokens run again in mid-sentence */
    SESSION_PROMPT_QUERY = 16 /* tokens of running text in a prompt event's query */
};

enum { SESSION_HITS_MAX = 32 }; /* of all lookups of a question together */

enum { SESSION_STREAM_MEMORIES = 24 }; /* single sentences, while a living stream is read */

enum { SESSION_FOLLOWS_MAX = 3 }; /* notes that one names the next of: four in all */

enum { SESSION_DRAFT_MAX = 6 }; /* tokens run ahead: cheap beside a step, most values fit */

/* Greedy answers that run ahead of themselves (draft.c). */
typedef struct session_draft {
    struct {
        uint64_t episode;
        base_buffer text; /* title and text as they were spliced */
    } sources[SPLICE_RESIDENTS_MAX];
    size_t source_count;
    int32_t ids[SESSION_DRAFT_MAX]; /* [count] that stand in the window, unsaid from `row` on */
    size_t count, row; /* row of s->logits that is the distribution of the next token */
    size_t refused;    /* drafts in a row of which not one token was said */
    base_buffer word;
} session_draft;

struct engine_session {
    engine *e;
    engine_session_options options;
    chat_template *chat;
    prompt prompt;
    kvcache *kv;
    sample_state *sampler;
    innovation innovation;
    splice_window window;
    float *logits;       /* [SESSION_ROWS, V]; row 0 is the distribution of the next token; while an
                          * answer is said: session_logits */
    float *query_vector; /* [the larger of encoder dim and channels] */

    /* Marks in the window; they move with every insert and eviction. */
    /* where memories go: before the user turn's text (in text without turns: before what is newest)
     * */
    size_t memory_at;
    size_t header_at; /* first slot of the assistant's header */
    size_t answer_at; /* first slot of the answer */

    char *question;        /* of the answer under way, NULL in plain text */
    bool answered_before;  /* a turn stands in the window already */
    bool behind_turns;     /* ... it did when the question under way was asked */
    uint32_t reply;        /* CRC-32C of the last answer, 0 = none */
    bool prefix_stands;    /* the window begins with the fixed prefix */
    float *prefix_logits;  /* [V] behind it */
    void *prefix_mark;     /* the window that has nothing else, where it cannot go back to that */
    base_rng noise;        /* of ENGINE_TRIGGER_RANDOM */
    double begin_ms;       /* when the answer under way was asked for */
    engine_answer *answer; /* of the caller, being filled */
    size_t token_capacity, event_capacity;
    base_buffer text; /* the answer so far */
    size_t text_sent; /* bytes of it given to on_text */
    session_write *writes;
    size_t write_count, write_capacity;
    session_lived lived;
    session_draft draft;
    struct { /* the best note for the question, and those that were looked up through it */
        uint64_t ids[1 + SESSION_FOLLOWS_MAX];
        size_t count;
    } chain;
};

enum { SESSION_ROWS = 64 }; /* prompt tokens run and tested at once (semantics §4) */

/* recall.c ------------------------------------------------------------------------------------- */

/* Does this session consult memory inside the loop? */
bool session_recalls(const engine_session *s);
/* Open an event in the trace; it owns the query text. */
base_status session_event(engine_session *s, bool in_answer, float score, const char *query,
                          size_t query_size, engine_event **event, base_error *err);
/* Look up one query: appends to hits (merged by id, best score kept), up to max. */
base_status session_look_up(engine_session *s, const char *query, size_t query_size,
                            retrieval_hit *hits, size_t *count, size_t max, double *ms,
                            base_error *err);
/* The best of hits that says something (a stored question may score highest and answers nothing),
 * or NULL. */
const retrieval_hit *session_best_hit(const retrieval_hit *hits, size_t count);
/* Is a hit given to the reader? Its relevance reaches score_min, so that age alone hides nothing,
 * and its score is at least score_share of the best's (NULL: there is none). */
bool session_is_enough(const engine_session *s, const retrieval_hit *best,
                       const retrieval_hit *hit);
/* ... and is it strong enough for attention, as this arm sees strength? */
bool session_may_splice(const engine_session *s, const retrieval_hit *best,
                        const retrieval_hit *hit);
/* Splice one hit before slot *at, which moves behind it. Makes room by evicting the weakest; where
 * live text fills the window, nothing comes in. *spliced counts what did. */
base_status session_splice_one(engine_session *s, const retrieval_hit *hit, size_t *at,
                               engine_event *event, size_t *spliced, base_error *err);
/* Splice the best of hits (best first) before slot *at, nearest to what follows the best: at most
 * `wanted`, within the budget, nothing that is resident. Makes room by evicting the weakest.
 * *spliced: how many came in. */
base_status session_splice(engine_session *s, const retrieval_hit *hits, size_t count,
                           size_t wanted, size_t at, engine_event *event, size_t *spliced,
                           base_error *err);

/* Take one resident out of the window; its attention goes to the trace. Marks move, and *also,
 * where that is not NULL. */
void session_evict(engine_session *s, size_t resident, size_t *also);

/* running.c ------------------------------------------------------------------------------------ */

/* An event fired before the next token: look up, splice one memory, run the last tokens again; row
 * 0 of the logits follows. */
base_status session_recall_here(engine_session *s, bool in_answer, float entropy, base_error *err);

/* subject.c ------------------------------------------------------------------------------------ */

/* Where a hit that may be spliced names most of what the question names, only such hits and others
 * of their documents stay. hits [at most SESSION_HITS_MAX]. */
base_status session_keep_subject(engine_session *s, retrieval_hit *hits, size_t *count,
                                 base_error *err);

/* follow.c ------------------------------------------------------------------------------------- */

/* May one note lead to the next here? */
bool session_may_follow(const engine_session *s);
/* Go on from the last note of the chain while that leads to new ones; they are spliced, and nothing
 * but the chain stays: with a part of it a small reader takes what is named in between for the
 * answer, and beside it others mislead. Behind a refusal the answer is dropped first, with all that
 * stands behind the memories. *count: how many notes joined. */
base_status session_follow_chain(engine_session *s, bool refused, bool layout_b, size_t *count,
                                 base_error *err);

/* lived.c -------------------------------------------------------------------------------------- */

/* Does this session keep what leaves its window? */
bool session_lives(const engine_session *s);
/* A live token was run; surprise of it. */
base_status session_lived_note(engine_session *s, int32_t id, float surprise, base_error *err);
/* Where enough is about to leave the window: cut it into episodes and store those that pass the
 * write test, with vector and KV; the index follows. */
base_status session_lived_leave(engine_session *s, base_error *err);
/* Is this episode's text still in the window? */
bool session_lived_visible(const engine_session *s, uint64_t episode);
/* Is this episode this stream's? */
bool session_lived_own(const engine_session *s, uint64_t episode);
/* Does a sentence that is still in the window, before the one under way, hold as many of a query's
 * words as this episode? It is newer, and seen already. */
base_status session_lived_says(const engine_session *s, const char *query, size_t size,
                               uint64_t episode, bool *says, base_error *err);
/* The stream ends, or begins anew: what has not left is no episode. */
void session_lived_clear(engine_session *s);
void session_lived_free(engine_session *s);

/* notes.c -------------------------------------------------------------------------------------- */

/* Arm prompt: of hits (best first), at most memories_max that score enough, as text: dated, oldest
 * first (notes_plain: as they would be spliced). Appends to ids. */
base_status session_paste_hits(engine_session *s, const retrieval_hit *hits, size_t count,
                               engine_event *event, chat_ids *ids, base_error *err);
/* Arm full-context: all that is known at as-of, dated, oldest first. BASE_LIMIT when it has more
 * than `room` tokens. */
base_status session_paste_all(engine_session *s, size_t room, chat_ids *ids, base_error *err);

/* draft.c ------------------------------------------------------------------------------------- */

void session_draft_free(session_draft *draft);
/* An episode was spliced: what it says may be copied. */
void session_draft_note(engine_session *s, const store_episode *episode);
/* Distribution [V] of the next token. */
const float *session_logits(const engine_session *s);
/* Share of the attention behind it that memories got; NAN where that was not watched. */
float session_mass(const engine_session *s);
/* The token that was chosen from it, noted in the answer already, goes into the window; behind it
 * up to ahead_max that may follow (0: none). */
base_status session_say(engine_session *s, int32_t id, size_t ahead_max, base_error *err);
/* What was run ahead and not said leaves the window; row 0 is the next token's distribution. */
void session_draft_drop(engine_session *s);

/* answer.c ------------------------------------------------------------------------------------- */

base_status session_note_token(engine_session *s, const engine_token *token, base_error *err);
base_status session_note_text(engine_session *s, int32_t id, bool last, base_error *err);
/* The attention that a memory has got so far goes to the trace: before it is evicted, and at the
 * end. */
void session_note_mass(engine_session *s, const splice_resident *resident);
/* Is the answer so far the beginning, *whole: all, of the refusal (PROMPT_NOT_HELD)? That is held
 * back from on_text: memory may still be followed. */
bool session_refuses(const engine_session *s, bool *whole);
/* The answer begins anew: its text and its tokens go; what was run stays counted. */
void session_drop_answer(engine_session *s);
/* Attention masses, citations, the answer's text; queues uses that counted. */
base_status session_finish_answer(engine_session *s, base_error *err);
base_status session_queue_write(engine_session *s, session_write write_take, base_error *err);

#endif
