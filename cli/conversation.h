/* cli/conversation.h: what a conversation consists of, turn by turn, and going on with it later.
 *
 * After every turn the store's folder gets two files (store/sessions.h): the log, which names the
 * documents that hold what was said, and the state behind that turn. Going on behind a turn whose
 * state is there gives the same bits as if nothing had happened in between; behind any other turn,
 * what was said is read again, without the memories that were consulted then.
 */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "engine/engine.h"
#include "store/store.h"

typedef struct conversation_turn {
    char *user, *assistant; /* external ids in the store; assistant "" when there was no answer */
    bool dropped;           /* the window was empty behind it: engine_answer.turns_dropped */
} conversation_turn;

typedef struct conversation {
    const char *source; /* "chat/NAME"; borrowed */
    store *store;       /* borrowed */
    conversation_turn *turns;
    size_t count;
    /* Commit from which on everything in the session's window was read. */
    uint64_t since;
    bool warned; /* that no state can be written */
} conversation;

void conversation_free(conversation *c);

/* Bring a fresh session behind turn `turn` (SIZE_MAX: the last that was kept) of this source's
 * conversation; *replayed: turns that were read again, 0 where the state was there. Later turns
 * leave the log with the next turn that is kept. Errors: BASE_NOT_FOUND (no conversation, no such
 * turn), those of store_session_get and engine_session_restore, with the file's path. */
base_status conversation_resume(conversation *c, engine_session *session, size_t turn,
                                size_t *replayed, base_error *err);

/* A turn is over and what was said is in the store: keep log and state. BASE_CANCELLED: something
 * was forgotten since the conversation began, the session must begin anew. */
base_status conversation_keep(conversation *c, engine_session *session, const char *user,
                              const char *assistant, bool dropped, base_error *err);
/* The session has begun anew. */
void conversation_restart(conversation *c);

#endif
