/* retrieval/segment_file.c: a segment's file written without some of its vectors.
 *
 * FAISS removes nothing from lists of packed codes, and to make an index anew it has to train on
 * and encode every vector again. But its file is a plain sequence of arrays, so that it can be
 * copied without what goes; the bytes of all others stay as they are. Layout of a kind of two
 * stages (FAISS 1.7.3, faiss/impl/index_write.cpp, pq4_fast_scan.cpp; little-endian; head = four
 * letters, i32 dim, i64 vectors, 2 x i64, u8 trained, i32 metric):
 *
 *   head IxMp
 *     head IxRF
 *       head IwPf, u64 lists, u64 probes
 *         head IxFI (its vectors: the lists' centres), u64 n, n x f32
 *         u8 0, u64 0                                   no map from ids to lists
 *         u8, u64, i32 vectors of a block, u64 codes of a vector, i32, u64
 *         u64, u64, u64, u64 n, n x f32                 product quantizer
 *         ilbl, u64 lists, u64, u64 vectors of a block, u64 bytes of a block
 *         for each list: u64 n, n x i64 places; u64 n, n x u8 blocks
 *       head IxSQ, i32, i32, f32, u64 dim, u64 bytes of a code, u64 n, n x f32
 *         u64 n, n x u8 codes, by place
 *       f32
 *     u64 n, n x i64 ids, by place
 *
 * A vector's place is its position among all. A block holds the four-bit codes of 32 vectors: 16
 * bytes for each code number, vectors 0 to 15 in the low halves and 16 to 31 in the high ones, in
 * the order 0 8 1 9 2 10 ... 7 15. Whatever else is found is BASE_UNSUPPORTED: the caller makes the
 * segment from the records. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "retrieval/index.h"

#define HEAD 37          /* bytes */
#define BLOCK_VECTORS 32 /* FAISS's default, which index_factory takes */
#define CODE_BYTES 16    /* of one code number in a block */
#define GONE UINT64_MAX

base_status retrieval_file_create(const char *path, FILE **out, base_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!file) {
        int system_errno = errno;
        if (fd >= 0) {
            close(fd);
        }
        return base_fail_errno(err, system_errno, "cannot create %s", path);
    }
    *out = file;
    return BASE_OK;
}

base_status retrieval_file_finish(FILE *file, const char *path, base_status status, base_error *err)
{
    if (status == BASE_OK && (fflush(file) != 0 || fsync(fileno(file)) != 0)) {
        status = base_fail_errno(err, errno, "cannot write %s", path);
    }
    if (fclose(file) != 0 && status == BASE_OK) {
        status = base_fail_errno(err, errno, "cannot close %s", path);
    }
    return status;
}

/* --- copying with a look at what passes ------------------------------------------------------- */

typedef struct copier {
    const uint8_t *at, *end; /* what has not passed yet */
    FILE *out;
    bool unknown;               /* another layout than the one above; nothing passes any more */
    int write_errno;            /* 0: all was written */
    uint64_t total, left;       /* vectors before and after */
    uint64_t *moved;            /* [total] the new place of a vector, or GONE */
    uint64_t first_id, last_id; /* of what is left */
} copier;

/* The next size bytes, NULL (and unknown) when there are not as many. */
static const uint8_t *take(copier *c, uint64_t size)
{
    if (c->unknown || size > (uint64_t)(c->end - c->at)) {
        c->unknown = true;
        return NULL;
    }
    const uint8_t *bytes = c->at;
    c->at += size;
    return bytes;
}

/* An array: its number of items, then they. */
static const uint8_t *take_items(copier *c, size_t item_size, uint64_t *count)
{
    const uint8_t *head = take(c, 8);
    *count = head ? base_get_u64(head) : 0;
    if (*count > (uint64_t)(c->end - c->at) / item_size) {
        c->unknown = true;
    }
    return take(c, *count * item_size);
}

static void put(copier *c, const void *bytes, size_t size)
{
    errno = 0;
    if (!c->unknown && c->write_errno == 0 && fwrite(bytes, 1, size, c->out) != size) {
        c->write_errno = errno ? errno : EIO;
    }
}

static void put_u64(copier *c, uint64_t value)
{
    uint8_t bytes[8];
    base_put_u64(bytes, value);
    put(c, bytes, sizeof bytes);
}

static void pass(copier *c, size_t size)
{
    const uint8_t *bytes = take(c, size);
    put(c, bytes, size);
}

static uint64_t pass_u64(copier *c)
{
    const uint8_t *bytes = take(c, 8);
    put(c, bytes, 8);
    return bytes ? base_get_u64(bytes) : 0;
}

static void pass_floats(copier *c)
{
    uint64_t count;
    const uint8_t *items = take_items(c, sizeof(float), &count);
    put_u64(c, count);
    put(c, items, (size_t)count * sizeof(float));
}

static void expect(copier *c, bool holds)
{
    c->unknown |= !holds;
}

/* A head; shrinks: it counts the vectors of which some go. */
static void pass_head(copier *c, const char *letters, bool shrinks)
{
    const uint8_t *head = take(c, HEAD);
    uint8_t changed[HEAD] = {0};
    if (head) {
        memcpy(changed, head, HEAD);
        expect(c, memcmp(head, letters, 4) == 0);
        expect(c, !shrinks || base_get_u64(head + 8) == c->total);
    }
    if (head && shrinks) {
        base_put_u64(changed + 8, c->left);
    }
    put(c, changed, HEAD);
}

/* --- the lists -------------------------------------------------------------------------------- */

/* Where the low or high half of a byte holds code number `number` of the vector at `place`. */
static size_t code_byte(size_t place, size_t number, size_t block_bytes)
{
    size_t column = place % 16;
    return place / BLOCK_VECTORS * block_bytes + number * CODE_BYTES +
           (column < 8 ? 2 * column : 2 * (column - 8) + 1);
}

static void copy_code(const uint8_t *from, size_t from_place, uint8_t *to, size_t to_place,
                      size_t block_bytes)
{
    unsigned from_shift = (unsigned)(from_place % BLOCK_VECTORS / 16) * 4;
    unsigned to_shift = (unsigned)(to_place % BLOCK_VECTORS / 16) * 4;
    for (size_t number = 0; number < block_bytes / CODE_BYTES; number++) {
        unsigned code = from[code_byte(from_place, number, block_bytes)] >> from_shift & 15U;
        to[code_byte(to_place, number, block_bytes)] |= (uint8_t)(code << to_shift);
    }
}

static size_t blocks_size(size_t count, size_t block_bytes)
{
    return (count + BLOCK_VECTORS - 1) / BLOCK_VECTORS * block_bytes;
}

/* One list: places and codes of those that stay. */
static base_status pass_list(copier *c, size_t block_bytes)
{
    uint64_t count, size, kept = 0;
    const uint8_t *places = take_items(c, 8, &count), *blocks = take_items(c, 1, &size);
    expect(c, size == blocks_size((size_t)count, block_bytes));
    for (uint64_t i = 0; i < count && !c->unknown; i++) {
        expect(c, base_get_u64(places + 8 * i) < c->total);
        kept += !c->unknown && c->moved[base_get_u64(places + 8 * i)] != GONE;
    }
    if (c->unknown) {
        return BASE_OK;
    }
    size_t kept_size = blocks_size((size_t)kept, block_bytes);
    uint8_t *packed = kept < count ? base_calloc(kept_size + 1, 1) : NULL;
    if (kept < count && !packed) {
        return BASE_NO_MEMORY;
    }
    put_u64(c, kept);
    for (uint64_t i = 0, n = 0; i < count; i++) {
        uint64_t to = c->moved[base_get_u64(places + 8 * i)];
        if (to != GONE) {
            put_u64(c, to);
            if (packed) {
                copy_code(blocks, (size_t)i, packed, (size_t)n++, block_bytes);
            }
        }
    }
    put_u64(c, kept_size);
    put(c, packed ? packed : blocks, kept_size);
    base_free(packed);
    return BASE_OK;
}

static base_status pass_lists(copier *c)
{
    base_status status = BASE_OK;
    pass_head(c, "IwPf", true);
    uint64_t lists = pass_u64(c);
    pass(c, 8);
    pass_head(c, "IxFI", false);
    pass_floats(c);
    const uint8_t *map = take(c, 9);
    expect(c, map && map[0] == 0 && base_get_u64(map + 1) == 0);
    put(c, map, 9);
    pass(c, 1 + 8 + 4);
    uint64_t codes = pass_u64(c);
    pass(c, 4 + 8);
    pass(c, 3 * 8);
    pass_floats(c);
    const uint8_t *letters = take(c, 4);
    expect(c, letters && memcmp(letters, "ilbl", 4) == 0);
    put(c, letters, 4);
    expect(c, pass_u64(c) == lists);
    pass(c, 8);
    expect(c, pass_u64(c) == BLOCK_VECTORS);
    uint64_t block_bytes = pass_u64(c);
    expect(c, codes > 0 && codes <= UINT32_MAX && block_bytes == codes * CODE_BYTES);
    for (uint64_t i = 0; i < lists && !c->unknown && status == BASE_OK; i++) {
        status = pass_list(c, (size_t)block_bytes);
    }
    return status;
}

/* --- what lies by place ----------------------------------------------------------------------- */

/* items [total, size]: those that stay, in runs. */
static void put_kept(copier *c, const uint8_t *items, size_t size)
{
    for (uint64_t i = 0; i < c->total;) {
        uint64_t end = i;
        while (end < c->total && (c->moved[end] == GONE) == (c->moved[i] == GONE)) {
            end++;
        }
        if (c->moved[i] != GONE) {
            put(c, items + i * size, (size_t)(end - i) * size);
        }
        i = end;
    }
}

static void pass_second_stage(copier *c)
{
    uint64_t count;
    pass_head(c, "IxSQ", true);
    pass(c, 4 + 4 + 4 + 8);
    uint64_t size = pass_u64(c);
    pass_floats(c);
    const uint8_t *codes = take_items(c, 1, &count);
    expect(c, size > 0 && count / size == c->total && count % size == 0);
    if (!c->unknown) {
        put_u64(c, c->left * size);
        put_kept(c, codes, (size_t)size);
    }
}

static void pass_ids(copier *c)
{
    uint64_t count;
    const uint8_t *ids = take_items(c, 8, &count);
    expect(c, count == c->total && c->at == c->end);
    if (!c->unknown) {
        put_u64(c, c->left);
        put_kept(c, ids, 8);
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

/* Which vectors go: their ids are the end of the file. */
static base_status find_moved(copier *c, const uint64_t *gone, size_t gone_count, base_error *err)
{
    size_t size = (size_t)(c->end - c->at);
    expect(c, size >= HEAD);
    uint64_t total = c->unknown ? 0 : base_get_u64(c->at + 8);
    expect(c, total <= (size - 8) / 8 && !c->unknown);
    if (c->unknown || base_get_u64(c->end - 8 * total - 8) != total) {
        c->unknown = true;
        return BASE_OK;
    }
    c->total = total;
    c->moved = base_calloc((size_t)total + 1, sizeof *c->moved);
    if (!c->moved) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu places", (size_t)total);
    }
    for (uint64_t i = 0, k = 0; i < total; i++) {
        uint64_t id = base_get_u64(c->end - 8 * (total - i));
        while (k < gone_count && gone[k] < id) {
            k++;
        }
        bool stays = k == gone_count || gone[k] != id;
        c->moved[i] = stays ? c->left++ : GONE;
        if (stays) {
            c->first_id = c->left == 1 ? id : c->first_id;
            c->last_id = id;
        }
    }
    return BASE_OK;
}

static base_status pass_all(copier *c)
{
    pass_head(c, "IxMp", true);
    pass_head(c, "IxRF", true);
    base_status status = pass_lists(c);
    if (status == BASE_OK) {
        pass_second_stage(c);
        pass(c, 4);
        pass_ids(c);
    }
    return status;
}

base_status retrieval_segment_strip(const void *data, size_t size, const uint64_t *gone,
                                    size_t gone_count, const char *path, retrieval_stripped *out,
                                    base_error *err)
{
    copier c = {.at = data, .end = (const uint8_t *)data + size};
    base_status status = find_moved(&c, gone, gone_count, err);
    if (status == BASE_OK && !c.unknown && c.left > 0 &&
        (status = retrieval_file_create(path, &c.out, err)) == BASE_OK) {
        status = pass_all(&c);
        if (status != BASE_OK) {
            base_fail(err, status, "no memory for a list of %s", path);
        } else if (c.write_errno != 0) {
            status = base_fail_errno(err, c.write_errno, "cannot write %s", path);
        }
        status = retrieval_file_finish(c.out, path, status, err);
    }
    base_free(c.moved);
    if (status == BASE_OK && c.unknown) {
        status = base_fail(err, BASE_UNSUPPORTED, "%s: not a segment of two stages", path);
    }
    if (status == BASE_OK) {
        *out = (retrieval_stripped){.count = c.left, .first_id = c.first_id, .last_id = c.last_id};
    }
    return status;
}
