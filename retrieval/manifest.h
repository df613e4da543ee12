/* retrieval/manifest.h: the list of segments that make up the vector index on disk. Internal to
 * retrieval/.
 *
 * <store>/index/manifest is a text file, replaced as a whole:
 *
 *     eidetic-index 2
 *     dim 384
 *     encoder 90ab12cd  sum of the name of the encoder that made the vectors (not in version 1)
 *     serial 7          grows with every replacement
 *     commit 41         episodes forgotten up to this commit are in no segment
 *     covered 9120      every episode with a vector and an id up to here is in a segment
 *     segment 7-0.faiss 1 9120 9001 13829632 1a2b3c4d 5e6f7a8b IDMap2,Flat
 *     crc32c 90ab12cd   of all bytes before this line
 *
 * A segment line holds: file, first id, last id, vectors, bytes, CRC-32C of the file, anchor, kind.
 * Ranges ascend and do not overlap. The anchor is a check value of the episode with the last id, so
 * that an index beside another store than its own is noticed.
 *
 * Valid: the magic and version match, the CRC matches, the fields are in this order, ranges ascend.
 * Segment files are written and synced before the manifest that names them; files that no manifest
 * names are leftovers and are removed by the next writer.
 */
#ifndef RETRIEVAL_MANIFEST_H
#define RETRIEVAL_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "retrieval/index.h"

#define RETRIEVAL_MANIFEST_VERSION 2
#define RETRIEVAL_SEGMENTS_MAX 4096

typedef struct retrieval_entry {
    char file[48];
    char kind[RETRIEVAL_KIND_MAX];
    uint64_t first_id, last_id, count, bytes;
    uint32_t crc, anchor;
} retrieval_entry;

typedef struct retrieval_manifest {
    uint64_t dim, serial, commit, covered;
    uint32_t encoder; /* 0: not known (version 1) */
    retrieval_entry *entries; /* [count] */
    size_t count;
} retrieval_manifest;

/* Read <folder>/manifest. Errors: BASE_NOT_FOUND, BASE_CORRUPT, BASE_VERSION (a newer one),
 * BASE_NO_MEMORY; *out is unchanged then. */
base_status retrieval_manifest_read(const char *folder, retrieval_manifest *out, base_error *err);
/* Replace it durably. */
base_status retrieval_manifest_write(const char *folder, const retrieval_manifest *manifest,
                                     base_error *err);
void retrieval_manifest_free(retrieval_manifest *manifest);

#endif
