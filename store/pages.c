/* store/pages.c: is every page of data.mdb either in one tree or free, and as its tree says?
 *
 * LMDB has no checksums. What it notes for itself, free pages, room in a page, sizes, counters, no
 * lookup asks for, but the next write believes it: with one bit flipped there it writes over pages
 * and records that live. So the file is read here as LMDB 0.9 writes it (mdb.c, 64 bits,
 * little-endian), without LMDB's functions; numbers of pages are u64:
 *
 *   page 0, 1   page head; u32 magic, u32 version, 2 x u64, tree of free pages, tree of tables,
 *               u64 last page, u64 transaction. Transactions write them in turn, the even ones page
 *               0; the later one counts
 *   tree        u32 (of the first: size of a page), u16, u16 depth, u64 branch pages, u64 leaf
 *               pages, u64 overflow pages, u64 entries, u64 root (all bits set: empty)
 *   page head   u64 its number, u16, u16 kind, u16 end of the offsets, u16 begin of the nodes; of
 *               overflow pages the last two are one u32, their number
 *   page        head, u16 offsets of its nodes, room, nodes, without gaps
 *   node        branch: u48 page, u16 size of the key, key
 *               leaf: u32 size of the value, u16 flags, u16 size of the key, key, value or the
 *               number of its first overflow page; of even size
 *
 * Values are trees in the tree of tables, and in that of free pages u64 lists, their number first.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/check.h"

enum {
    PAGE_HEAD = 16,
    NODE_HEAD = 8,
    TREE_SIZE = 48,
    BRANCH = 1, /* kinds of pages */
    LEAF = 2,
    OVERFLOW = 4,
    BIG = 1, /* flags of nodes: the value has pages of its own */
    SUBTREE = 2,
    DEPTH_MAX = 32 /* LMDB's own bound */
};
#define MAGIC 0xBEEFC0DEu
#define VERSION 1u

typedef enum tree_kind { TREE_OF_FREE, TREE_OF_TABLES, TREE_OF_RECORDS } tree_kind;

typedef struct pages {
    store_check *check;
    base_map map;
    size_t page_size;
    uint64_t last;
    uint8_t *taken; /* [last + 1] */
} pages;

typedef struct counts {
    uint64_t branch, leaf, overflow, entries;
} counts;

static void check_tree(pages *p, tree_kind kind, const uint8_t *tree);

static bool spoilt(pages *p, uint64_t number)
{
    store_check_lmdb(p->check, number, "layout");
    return false;
}

/* Each page once. */
static bool take(pages *p, uint64_t number, uint64_t count)
{
    if (number < 2 || number > p->last || count > p->last - number + 1) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (p->taken[number + i]) {
            return false;
        }
        p->taken[number + i] = 1;
    }
    return true;
}

/* A page of a kind, NULL when there is none of that number. */
static const uint8_t *page_of(const pages *p, uint64_t number, unsigned kind)
{
    if (number > p->last || (number + 1) * p->page_size > p->map.size) {
        return NULL;
    }
    const uint8_t *page = p->map.data + number * p->page_size;
    return base_get_u64(page) == number && base_get_u16(page + 10) == kind ? page : NULL;
}

/* A value of pages of its own; NULL when they are not as they should be. */
static const uint8_t *overflow_value(pages *p, uint64_t number, uint64_t size, counts *n)
{
    const uint8_t *page = page_of(p, number, OVERFLOW);
    uint64_t count = page ? base_get_u32(page + 12) : 0, bytes = count * p->page_size;
    if (!page || !take(p, number, count) || PAGE_HEAD + size > bytes ||
        number * p->page_size + bytes > p->map.size) {
        return NULL;
    }
    n->overflow += count;
    return page + PAGE_HEAD;
}

static bool check_value(pages *p, tree_kind kind, const uint8_t *value, uint64_t size)
{
    if (kind == TREE_OF_TABLES) {
        if (size == TREE_SIZE) {
            check_tree(p, TREE_OF_RECORDS, value);
        }
        return size == TREE_SIZE;
    }
    bool sound =
        kind != TREE_OF_FREE || (size >= 8 && size % 8 == 0 && base_get_u64(value) <= size / 8 - 1);
    uint64_t count = kind == TREE_OF_FREE && sound ? base_get_u64(value) : 0;
    for (uint64_t i = 1; i <= count && sound; i++) {
        sound = take(p, base_get_u64(value + 8 * i), 1);
    }
    return sound;
}

/* room: bytes from the node to the end of its page. *size: of the node. */
static bool check_leaf_node(pages *p, tree_kind kind, const uint8_t *node, size_t room,
                            size_t *size, counts *n)
{
    uint64_t value_size = base_get_u32(node);
    unsigned flags = base_get_u16(node + 4);
    bool big = flags & BIG;
    uint64_t own = NODE_HEAD + base_get_u16(node + 6), stored = big ? 8 : value_size;
    if (own + stored > room || (flags & ~BIG) != (kind == TREE_OF_TABLES ? SUBTREE : 0)) {
        return false;
    }
    *size = (size_t)(own + stored + 1) & ~(size_t)1;
    n->entries++;
    const uint8_t *value =
        big ? overflow_value(p, base_get_u64(node + own), value_size, n) : node + own;
    return value && check_value(p, kind, value, value_size);
}

/* A page and all below it; depth 1: a leaf. What is wrong is reported. */
static bool check_page(pages *p, tree_kind kind, uint64_t number, unsigned depth, counts *n)
{
    const uint8_t *page = page_of(p, number, depth == 1 ? LEAF : BRANCH);
    if (!page || !take(p, number, 1)) {
        return spoilt(p, number);
    }
    size_t offsets_end = base_get_u16(page + 12), begin = base_get_u16(page + 14), filled = 0;
    if (offsets_end < PAGE_HEAD || offsets_end % 2 != 0 || offsets_end > begin ||
        begin > p->page_size) {
        return spoilt(p, number);
    }
    *(depth == 1 ? &n->leaf : &n->branch) += 1;
    for (size_t i = PAGE_HEAD; i < offsets_end; i += 2) {
        size_t at = base_get_u16(page + i), size = 0;
        const uint8_t *node = page + at;
        if (at < begin || at + NODE_HEAD > p->page_size) {
            return spoilt(p, number);
        }
        if (depth == 1 && !check_leaf_node(p, kind, node, p->page_size - at, &size, n)) {
            return spoilt(p, number);
        }
        if (depth > 1) {
            uint64_t child = base_get_u32(node) | (uint64_t)base_get_u16(node + 4) << 32;
            size = (size_t)(NODE_HEAD + base_get_u16(node + 6) + 1) & ~(size_t)1;
            if (!check_page(p, kind, child, depth - 1, n)) {
                return false;
            }
        }
        filled += size;
    }
    return filled == p->page_size - begin || spoilt(p, number);
}

static void check_tree(pages *p, tree_kind kind, const uint8_t *tree)
{
    counts n = {0};
    unsigned depth = base_get_u16(tree + 6);
    uint64_t root = base_get_u64(tree + 40);
    bool empty = root == UINT64_MAX;
    if (depth > DEPTH_MAX || empty != (depth == 0)) {
        spoilt(p, root);
        return;
    }
    bool sound = empty || check_page(p, kind, root, depth, &n);
    if (sound && (base_get_u64(tree + 8) != n.branch || base_get_u64(tree + 16) != n.leaf ||
                  base_get_u64(tree + 24) != n.overflow || base_get_u64(tree + 32) != n.entries)) {
        spoilt(p, root);
    }
}

static base_status check_map(pages *p, base_error *err)
{
    enum { FREE_TREE = 24, TABLE_TREE = 72, LAST_PAGE = 120, TRANSACTION = 128 };
    const uint8_t *first = p->map.data + PAGE_HEAD;
    p->page_size = p->map.size >= PAGE_HEAD + FREE_TREE + 4 ? base_get_u32(first + FREE_TREE) : 0;
    if (p->page_size < 256 || p->map.size / 2 < p->page_size) {
        spoilt(p, 0);
        return BASE_OK;
    }
    const uint8_t *second = first + p->page_size;
    uint64_t even = base_get_u64(first + TRANSACTION), odd = base_get_u64(second + TRANSACTION);
    const uint8_t *meta = even < odd ? second : first;
    bool in_turn = even % 2 == 0 && odd % 2 == 1 && (even + 1 == odd || odd + 1 == even);
    bool alike = memcmp(first, second, 8) == 0; /* magic, version */
    if (alike && base_get_u32(meta) == MAGIC && base_get_u32(meta + 4) != VERSION) {
        return BASE_OK; /* opening it says so */
    }
    p->last = base_get_u64(meta + LAST_PAGE);
    if (!alike || base_get_u32(meta) != MAGIC || (!in_turn && (even | odd) != 0) ||
        base_get_u32(meta + FREE_TREE) != p->page_size || p->last < 2 || p->last > UINT32_MAX) {
        spoilt(p, 0);
        return BASE_OK;
    }
    p->taken = base_calloc((size_t)p->last + 1, 1);
    if (!p->taken) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    check_tree(p, TREE_OF_TABLES, meta + TABLE_TREE);
    check_tree(p, TREE_OF_FREE, meta + FREE_TREE);
    const uint8_t *unknown = memchr(p->taken + 2, 0, (size_t)p->last - 1);
    if (unknown && p->check->problems == 0) { /* neither in a tree nor free */
        spoilt(p, (uint64_t)(unknown - p->taken));
    }
    base_free(p->taken);
    return BASE_OK;
}

base_status store_check_pages(store_check *check, const char *folder, base_error *err)
{
    char path[STORE_PATH_SIZE];
    pages p = {.check = check};
    base_status status = base_path_join(path, sizeof path, folder, STORE_DATA_NAME);
    if (status != BASE_OK) {
        return base_fail(err, status, "path is too long: %.80s...", folder);
    }
    status = base_map_open(path, &p.map, err);
    if (status == BASE_OK) {
        status = check_map(&p, err);
        base_map_close(&p.map);
    }
    return status;
}
