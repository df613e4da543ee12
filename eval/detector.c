/* eval/detector.c: see detector.h. */
#include "eval/detector.h"

#include <math.h>

size_t eval_detect(eval_rule rule, double h, const double *z, size_t count, bool *fired)
{
    double g = 0, mean = 0, least = 0;
    size_t events = 0;
    for (size_t i = 0; i < count; i++) {
        double value = z[i];
        if (rule == EVAL_RULE_CUSUM) {
            value = g = fmax(0, g + z[i] - 0.5);
        } else if (rule == EVAL_RULE_PAGE_HINKLEY) {
            mean = 0.999 * mean + 0.001 * z[i];
            g += z[i] - mean - 0.1;
            least = fmin(least, g);
            value = g - least;
        }
        fired[i] = value >= h;
        g = fired[i] ? 0 : g;
        least = fired[i] ? 0 : least;
        events += fired[i];
    }
    return events;
}

size_t eval_detect_at_rate(eval_rule rule, double rate, const double *z, size_t count, bool *fired)
{
    size_t wanted = (size_t)(rate * (double)count + 0.5);
    double low = -1e3, high = 1e6;
    for (int i = 0; i < 80; i++) {
        double middle = (low + high) / 2;
        if (eval_detect(rule, middle, z, count, fired) > wanted) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return eval_detect(rule, high, z, count, fired);
}
