/* store/sessions.h: files in which running conversations are kept, so that another process can go
 * on with them. What is in them is the caller's; they are no records: nothing else refers to them,
 * and losing one loses no memory.
 *
 *   sessions/ID-00000000.log    what the conversation consists of (turn 0)
 *   sessions/ID-NNNNNNNN.state  its state behind turn NNNNNNNN, from 1
 *
 * ID: the first 16 hexadecimal digits of SHA-256 of the session's name. Mode 0600, folder 0700,
 * written beside, synced and renamed. Little-endian: "EIDTURNS" | u32 version (1) | u32 CRC-32C of
 * all that follows | u64 turn | u64 commit | name [32], its SHA-256 | the caller's bytes.
 *
 * Bounds: of one session the newest STORE_SESSION_TURNS states; of all together
 * STORE_SESSION_FILES_MAX files and STORE_SESSION_BYTES_MAX bytes, the longest unused go first.
 *
 * Forgetting: a state holds keys and values, and nobody can say of which episodes they were made
 * (what was said about a memory was read as well). So a scrub removes every state of every session,
 * and nothing is written whose beginnings are older than the last forget. Logs stay: they name
 * turns, and hold no text.
 */
#ifndef STORE_SESSIONS_H
#define STORE_SESSIONS_H

#include "base/mem.h"
#include "store/store.h"

enum { STORE_SESSION_TURNS = 2, STORE_SESSION_FILES_MAX = 128 };
/* Chosen: some 50 states of the default model with a window of 1,024. */
#define STORE_SESSION_BYTES_MAX ((uint64_t)2 << 30)

/* The file's path, for messages; "" when it is too long. */
void store_session_path(const store *s, const char *name, uint64_t turn, char *out, size_t size);

/* Write a file (turn 0: the log). since: commit from which on everything that went into data was
 * read; if anything has been forgotten by a later one, nothing is written: BASE_CANCELLED. Other
 * errors: BASE_LIMIT (larger than all may be), BASE_BUSY, BASE_DISK_FULL, BASE_IO,
 * BASE_PERMISSION; the old file is still there whole. */
base_status store_session_put(store *s, const char *name, uint64_t turn, uint64_t since,
                              const void *data, size_t size, base_error *err);

/* Append a file's bytes to out. Errors: BASE_NOT_FOUND (without text), BASE_CORRUPT (damaged, or
 * another session's), BASE_VERSION, BASE_CANCELLED (a state older than the last forget); all name
 * the file. */
base_status store_session_get(store *s, const char *name, uint64_t turn, base_buffer *out,
                              base_error *err);

/* Remove the session's states behind turns > after: the conversation took another way. */
base_status store_session_drop(store *s, const char *name, uint64_t after, base_error *err);

/* For the scrub after a forget, which holds the writer lock: remove every state there is. */
base_status store_forget_sessions(store *s, base_error *err);

#endif
