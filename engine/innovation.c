/* engine/innovation.c: when to consult memory (semantics §4).
 *
 * The threshold follows the (1 - target) quantile of the entropies that are observed, by the
 * stochastic approximation of Robbins and Monro (1951) with a constant step, so that it keeps
 * adapting:
 *
 *     theta <- theta + eta * ([entropy > theta] - target)
 *
 * It is at rest where the share of tokens that exceed it is the target. The gap lies between that
 * and events: with a gap of g tokens there are at most 1/g events a token, whatever the target.
 */
#include "engine/innovation.h"

#include "base/status.h"

/* Nats a token. Chosen: in 100 tokens of constant high entropy the threshold rises by 4, so that
 * it adapts within one long answer; at rest it moves by about 0.1
 * (tests/unit/test_core_innovation.c). */
static const float step_nats = 0.05f;

void innovation_begin(innovation *state, const innovation_options *options)
{
    innovation_options o = options ? *options : (innovation_options){0};
    if (o.threshold == 0.0f) {
        o.threshold = 3.0f;
    }
    if (o.target_rate == 0.0f) {
        o.target_rate = 0.15f;
    }
    if (o.gap == 0) {
        o.gap = 8;
    }
    if (o.stride == 0) {
        o.stride = 1;
    }
    BASE_ASSERT(o.target_rate > 0.0f);
    BASE_ASSERT(o.target_rate < 1.0f);
    *state = (innovation){.options = o, .threshold = o.threshold, .since_event = o.gap};
}

bool innovation_observe(innovation *state, float entropy_nats)
{
    bool looked_at = state->seen % state->options.stride == 0;
    state->seen++;
    state->since_event += state->since_event < state->options.gap;
    bool exceeds = looked_at && entropy_nats > state->threshold;
    if (looked_at && entropy_nats >= 0.0f) { /* NaN teaches nothing */
        state->threshold += step_nats * ((exceeds ? 1.0f : 0.0f) - state->options.target_rate);
        state->threshold = state->threshold < 0.0f ? 0.0f : state->threshold;
    }
    if (state->again_in > 0) { /* an event is open */
        return --state->again_in == 0;
    }
    if (!exceeds || state->since_event < state->options.gap) {
        return false;
    }
    state->since_event = state->open_for = 0;
    state->events++;
    return true;
}

void innovation_forced(innovation *state)
{
    state->since_event = state->open_for = state->again_in = 0;
}

bool innovation_again(innovation *state, size_t tokens)
{
    BASE_ASSERT(tokens > 0);
    state->open_for += tokens;
    state->again_in = state->open_for <= INNOVATION_OPEN_MAX ? tokens : 0;
    return state->again_in > 0;
}
