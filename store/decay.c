/* store/decay.c: the strength of an episode at a moment (a pure function; the design's formula).
 *
 *   strength(tau) = v(tau) * max(floor, 2^(-(tau - r)/h))
 *
 * tau the as-of time, r the later of observed_at and the last counted use, h the half-life of the
 * source. The exponential is the plain radioactive form; v and floor keep what nothing replaced
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
