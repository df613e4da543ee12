/* cli/cmd_backup.c: backup, restore, export: the store in another place or form. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"
#include "ingest/ingest.h"

enum { WRITER_WAIT_MS = 10000, PATH_SIZE = 4096 };

static int print_backup(const cli_options *o, const char *done, const char *folder,
                        const store_backup_receipt *r)
{
    if (o->json) {
        return cli_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I}", "folder", folder, "episodes",
                                        (json_int_t)r->episodes, "documents",
                                        (json_int_t)r->documents, "last_commit",
                                        (json_int_t)r->last_commit, "bytes", (json_int_t)r->bytes));
    }
    printf("%s %s: %llu episodes of %llu documents, %.1f MB\n", done, folder,
           (unsigned long long)r->episodes, (unsigned long long)r->documents,
           (double)r->bytes / 1e6);
    return CLI_DONE;
}

int cmd_backup(const cli_options *o)
{
    base_error err = {0};
    store *s = NULL;
    store_backup_receipt receipt = {0};
    store_options options = {.read_only = true}; /* takes no lock that a writer waits for */
    base_status status = store_open(cli_store_path(o), &options, &s, &err);
    if (!status) {
        status = store_backup(s, o->operands[0], &receipt, &err);
    }
    store_close(s);
    return status ? cli_fail(&err) : print_backup(o, "backed up to", o->operands[0], &receipt);
}

int cmd_restore(const cli_options *o)
{
    base_error err = {0};
    cli_memory memory = {0};
    store_backup_receipt receipt = {0};
    const char *path = cli_store_path(o);
    base_status status = store_restore(o->operands[0], path, &receipt, &err);
    if (!status && !(status = cli_open_memory(o, false, WRITER_WAIT_MS, &memory, &err))) {
        status = retrieval_flush(memory.retrieval, false, &err);
    }
    cli_close_memory(&memory);
    return status ? cli_fail(&err) : print_backup(o, "restored", path, &receipt);
}

/* --- export ----------------------------------------------------------------------------------- */

/* Beside its place first; durable and whole once it has its name. */
static base_status export_file(store *s, const char *path, ingest_export_counts *counts,
                               base_error *err)
{
    char partial[PATH_SIZE];
    if ((size_t)snprintf(partial, sizeof partial, "%s.partial", path) >= sizeof partial) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", path);
    }
    int fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!out) {
        base_fail_errno(err, errno, "cannot create %s", partial);
        if (fd >= 0) {
            close(fd);
        }
        return err->code;
    }
    base_status status = ingest_export(s, out, counts, err);
    if (!status && (fflush(out) != 0 || fsync(fd) != 0)) {
        status = base_fail_errno(err, errno, "cannot write %s", partial);
    }
    fclose(out);
    if (!status) {
        status = base_file_move(partial, path, err);
    }
    if (status) {
        unlink(partial);
    }
    return status;
}

int cmd_export(const cli_options *o)
{
    base_error err = {0};
    store *s = NULL;
    ingest_export_counts counts = {0};
    store_options options = {.read_only = true};
    bool to_stdout = !o->out || strcmp(o->out, "-") == 0;
    if (to_stdout && o->json) {
        return cli_usage("export writes its lines to stdout: with --json it needs --out FILE");
    }
    base_status status = store_open(cli_store_path(o), &options, &s, &err);
    if (!status) {
        status = to_stdout ? ingest_export(s, stdout, &counts, &err)
                           : export_file(s, o->out, &counts, &err);
    }
    store_close(s);
    if (status) {
        return cli_fail(&err);
    }
    if (o->json) {
        return cli_print_json(
            json_pack("{s:s, s:I, s:I, s:I, s:I}", "file", o->out, "documents",
                      (json_int_t)counts.documents, "versions", (json_int_t)counts.versions,
                      "episodes", (json_int_t)counts.episodes, "bytes", (json_int_t)counts.bytes));
    }
    fprintf(to_stdout ? stderr : stdout, "exported %llu documents in %llu versions, %.1f KB\n",
            (unsigned long long)counts.documents, (unsigned long long)counts.versions,
            (double)counts.bytes / 1e3);
    return CLI_DONE;
}
