/* engine/innovation.h: when to consult memory. An adaptive test on the entropy of the next-token
 * distribution (semantics §4).
 *
 * Fires when the entropy exceeds a threshold that starts at 3.0 nats and follows a target event
 * rate by stochastic quantile tracking (theta += eta * (rate_of_exceeding - target)), at most once
 * in `gap` tokens. Frozen on spliced tokens: recall must not teach it that recalled text is normal.
 * Surprise and whitened surprise are kept for the trace and for writing.
 */
#ifndef ENGINE_INNOVATION_H
#define ENGINE_INNOVATION_H

#include <stdbool.h>
#include <stddef.h>

typedef struct innovation_options {
    float threshold;   /* start, nats; 0 = 3.0 */
    float target_rate; /* share of tokens, 0 = 0.15 */
    size_t gap;        /* refractory tokens, 0 = 8 */
    size_t stride;     /* look at every n-th token, 0 = 1 */
} innovation_options;

typedef struct innovation {
    innovation_options options;
    float threshold;
    size_t since_event; /* tokens since the last event */
    size_t seen, events;
    size_t again_in; /* an open event fires again after so many tokens; 0 = none is open */
    size_t open_for; /* tokens that it has been kept open for */
} innovation;

/* An event stays open for so many tokens at most: as many as the refractory gap. */
enum { INNOVATION_OPEN_MAX = 8 };

void innovation_begin(innovation *state, const innovation_options *options);
/* One position: entropy of the distribution of the token that comes next. Returns whether an event
 * fires. */
bool innovation_observe(innovation *state, float entropy_nats);
/* The caller consulted memory for another reason (start of an answer): restarts the gap. */
void innovation_forced(innovation *state);
/* The event that has just fired came too early to be used: it stays open and fires again after
 * `tokens` (>= 1) more, whatever the entropy is there. Returns false, and closes it, where that
 * would be more than INNOVATION_OPEN_MAX tokens in all. */
bool innovation_again(innovation *state, size_t tokens);

#endif
