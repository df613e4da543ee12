/* cli/upkeep.h: what `age` does, a little at a time, while a conversation waits for its user: new
 * episodes (what was said among them) are compared with older ones and close what they replace, and
 * half-lives follow what was counted by that. It ends at once when a turn begins; what was compared
 * is committed, the rest goes on at the next wait, in `age` or `ingest`. Index segments are merged
 * by those alone: that cannot be interrupted.
 */
#ifndef CLI_UPKEEP_H
#define CLI_UPKEEP_H

#include "ingest/ingest.h"

typedef struct upkeep upkeep;

/* All borrowed. From upkeep_begin to upkeep_end retrieval and encoder belong to the upkeep: nobody
 * else may use them. */
base_status upkeep_open(store *s, retrieval *r, encoder *e, upkeep **out, base_error *err);
/* Ends what runs. NULL is ignored. */
void upkeep_close(upkeep *u);

/* Begin to work on a thread of its own, with now_us as the clock of its commits. Where no thread
 * can be made, nothing is done. */
void upkeep_begin(upkeep *u, int64_t now_us);
/* Stop, and wait until it has (the time of one comparison and one commit). The error of what ran,
 * if any: nothing is lost by it but this work. Without upkeep_begin: BASE_OK. */
base_status upkeep_end(upkeep *u, base_error *err);

/* Work here and now, on at most so many episodes: the same result in every run. While another
 * process writes, nothing is done. Errors: those of reading and writing the store. */
base_status upkeep_slice(upkeep *u, int64_t now_us, uint64_t episodes_max, base_error *err);

/* Half-lives from what was counted (store_put_drift), in a commit of its own. *measured: sources.
 */
base_status upkeep_measure(store *s, int64_t now_us, uint64_t *measured, base_error *err);

#endif
