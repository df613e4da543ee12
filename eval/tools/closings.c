/* eval/tools/closings.c: which episodes of a store are superseded; eval/measure_supersession.py
 * builds this program. Not part of the product.
 *
 *     closings STORE > closings.jsonl
 *
 * One line an episode: {"id", "document", "superseded_by" (document), "same_document"}.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"

static void stop(const char *what, const base_error *err)
{
    fprintf(stderr, "closings: %s: %s\n", what, err->text);
    exit(1);
}

static bool print_one(void *argument, const store_view *view)
{
    store *s = argument;
    base_error err = {0};
    store_episode e, by;
    if (store_get(s, view->id, &e, &err)) {
        stop("cannot read an episode", &err);
    }
    bool closed = e.superseded_by != 0;
    if (closed && store_get(s, e.superseded_by, &by, &err)) {
        stop("cannot read a successor", &err);
    }
    json_t *line =
        json_pack("{s:I, s:s, s:o, s:b}", "id", (json_int_t)e.id, "document", e.external_id,
                  "superseded_by", closed ? json_string(by.external_id) : json_null(),
                  "same_document", closed && by.document == e.document);
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(line);
    store_episode_free(&e);
    if (closed) {
        store_episode_free(&by);
    }
    return true;
}

int main(int argc, char **argv)
{
    base_error err = {0};
    store *s;
    uint64_t damaged;
    store_options options = {.read_only = true};
    if (argc != 2) {
        fprintf(stderr, "usage: closings STORE\n");
        return 2;
    }
    if (store_open(argv[1], &options, &s, &err) || store_scan(s, 0, print_one, s, &damaged, &err)) {
        stop(argv[1], &err);
    }
    store_close(s);
    return 0;
}
