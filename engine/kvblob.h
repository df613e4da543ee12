/* engine/kvblob.h: keys and values of an episode as they lie on disk.
 *
 * Little-endian:
 *    0  4  version (2)
 *    4  4  type (enum kvblob_type)
 *    8  4  count: tokens
 *   12  4  elements of one head, D
 *   16  4  heads of one token, in all layers, keys and values
 *   20 44  0
 *   64     type F16: what core_block_read gives (f16; f32 in reference runs)
 *          type Q8:  scale f32 [count * heads], then i8 [count * heads, D], in the block's order
 *
 * Q8: each head of each key and value has a scale of its own, s = max|x| / 127, q = round(x / s);
 * what is spliced is q * s, in the window's own type. A head is what one dot product of attention
 * reads, so an outlier in one head costs the others nothing. Keys are those before rotation: the
 * pairs that rotation mixes share a scale.
 */
#ifndef ENGINE_KVBLOB_H
#define ENGINE_KVBLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 8 bits is the default: its mean KL against f16 is below the 0.01 nats that the design allows
 * (tests/unit/test_loop_kv.c), at 53 % of the bytes. */
typedef enum kvblob_type { KVBLOB_Q8, KVBLOB_F16, KVBLOB_TYPES } kvblob_type;

const char *kvblob_type_name(kvblob_type type);
bool kvblob_type_parse(const char *text, kvblob_type *type); /* "q8", "f16" */

typedef struct kvblob_shape {
    kvblob_type type;
    size_t heads;     /* of one token: layers * 2 * KV heads */
    size_t head_size; /* D */
    bool wide;        /* the window keeps f32, not f16 */
} kvblob_shape;

size_t kvblob_bytes(const kvblob_shape *shape, size_t count);
/* block: as core_block_read gives it; blob [kvblob_bytes], 4-aligned. */
void kvblob_encode(const kvblob_shape *shape, const void *block, size_t count, void *blob);
/* Tokens of a blob of this very shape, 0 for any other or a damaged one. */
size_t kvblob_count(const kvblob_shape *shape, const void *blob, size_t size);
/* block: for core_window_insert, of kvblob_count tokens. */
void kvblob_decode(const kvblob_shape *shape, const void *blob, void *block);

#endif
