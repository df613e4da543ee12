/* store/decay.c: the strength of an episode at a moment (a pure function; the design's formula).
 *
 *   strength(tau) = v(tau) * max(floor, 2^(-(tau - r)/h))
 *
 * tau the as-of time, r the later of observed_at and the last counted use, h the half-life of the
 * stream. The exponential is the plain radioactive form; v and floor keep what nothing replaced
 * within reach for ever. */
#include <math.h>

#include "store/store.h"

double store_strength(const store_brief *brief, int64_t as_of_us)
{
    if (brief->id == 0 || brief->observed_at_us > as_of_us) {
        return 0.0;
    }
    if (brief->valid_from_us != BASE_TIME_NONE && as_of_us < brief->valid_from_us) {
        return 0.0;
    }
    if (brief->valid_to_us != BASE_TIME_NONE && brief->valid_to_us != BASE_TIME_MAX &&
        as_of_us >= brief->valid_to_us) {
        return 0.0;
    }
    int64_t refreshed_us = brief->observed_at_us;
    if (brief->last_use_us > refreshed_us && brief->last_use_us <= as_of_us) {
        refreshed_us = brief->last_use_us;
    }
    /* BASE_TIME_MAX says "never", also at the end of time. */
    bool superseded =
        brief->superseded_at_us != BASE_TIME_MAX && brief->superseded_at_us <= as_of_us;
    double kept = 1.0;
    if (as_of_us == BASE_TIME_MAX) {
        kept = isinf(brief->half_life_s) ? 1.0 : 0.0; /* the limit */
    } else if (!isinf(brief->half_life_s)) {
        /* The difference in double: two int64 far apart would overflow. */
        double age_s = ((double)as_of_us - (double)refreshed_us) * 1e-6;
        kept = brief->half_life_s > 0.0 ? exp2(-age_s / brief->half_life_s) : 0.0;
    }
    double floor_now = superseded ? 0.0 : STORE_STRENGTH_FLOOR;
    return (superseded ? STORE_STRENGTH_SUPERSEDED : 1.0) * fmax(floor_now, kept);
}

/* Seconds for which the changed streams but one were watched. */
static double watched_s(const store_drift *d, double last_s, uint64_t own, double own_first_s)
{
    double sum_s = d->first_sum_s - (own > 0 ? own_first_s : 0.0);
    double count = (double)d->changed - (own > 0 ? 1.0 : 0.0);
    return fmax(count * last_s - sum_s, 0.0);
}

double store_half_life(const store_drift *source, const store_drift *document,
                       const store_stream *stream)
{
    double last_s = (double)source->last_observed_us * 1e-6;
    double first_s = (double)stream->first_observed_us * 1e-6;
    double exposed_s = watched_s(source, last_s, 0, 0.0);
    if (source->changes == 0 || exposed_s <= 0.0) {
        return INFINITY;
    }
    uint64_t own = stream->changes < document->changes ? stream->changes : document->changes;
    double others = (double)(document->changes - own);
    double rate = (double)source->changes / exposed_s; /* of streams that change, per second */
    rate = (1.0 + others) / (1.0 / rate + watched_s(document, last_s, own, first_s));
    double until_s = fmin(last_s, (double)stream->until_us * 1e-6);
    double seen_s = fmax(until_s - first_s, 0.0);
    if (stream->changes > 0) {
        rate = (1.0 + (double)stream->changes) / (1.0 / rate + seen_s);
    } else {
        /* Laplace's rule for the share of streams that change at all, as strong as two streams in
         * the document; then Bayes. */
        double share = ((double)source->changed + 1.0) / ((double)source->streams + 2.0);
        double changed = (double)document->changed;
        double streams = fmax((double)document->streams - 1.0, changed);
        share = fmin((2.0 * share + changed) / (2.0 + streams), 1.0 - 1e-6);
        double unseen = share * exp(-rate * seen_s);
        rate *= unseen / (1.0 - share + unseen);
    }
    return rate > 1e-12 ? 0.69314718055994531 / rate : INFINITY; /* beyond 20,000 years: for ever */
}
