/* tests/fuzz/fuzz.h: what a fuzz target is. One file, one program: the entry point is libFuzzer's,
 * so that either libFuzzer (clang -fsanitize=fuzzer) or the driver beside drives it.
 *
 * A target must come back from any input; what it breaks is found by the sanitizers, by FUZZ_CHECK,
 * or by the driver's clock.
 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Words that the driver puts into inputs, NULL at the end: what random bytes hardly ever spell. */
extern const char *const fuzz_words[];

#define FUZZ_CHECK(x)                                                              \
    do {                                                                           \
        if (!(x)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #x); \
            abort();                                                               \
        }                                                                          \
    } while (0)

#endif
