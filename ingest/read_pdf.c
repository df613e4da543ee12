/* ingest/read_pdf.c: a PDF file is one document: the text of its pages in order, a form feed
 * between two of them; its title from the file's own field, else the file's name. The only user of
 * poppler (and GLib).
 *
 * A PDF is a program for a large library, and files from anywhere drive it: the text is taken in a
 * child process. What the child cannot survive costs one skipped file. It sends "title NUL text"
 * through a pipe; only its exit code says that this is the whole. */
#include <errno.h>
#include <fcntl.h>
#include <poppler.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "ingest/ingest.h"

#define CHILD_CPU_S 300 /* chosen: some 10,000 pages take a minute */

enum { WHOLE = 0, ENCRYPTED = 3, DAMAGED = 4, TOO_LONG = 5 };

/* --- the child -------------------------------------------------------------------------------- */

static void child_begins(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS,  SIGFPE, SIGILL,
                                  SIGABRT, SIGXCPU, SIGINT, SIGTERM};
    struct rlimit cpu = {.rlim_cur = CHILD_CPU_S, .rlim_max = CHILD_CPU_S};
    struct rlimit no_core = {0};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        signal(signals[i], SIG_DFL);
    }
    setrlimit(RLIMIT_CPU, &cpu);
    setrlimit(RLIMIT_CORE, &no_core);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC); /* poppler comments on what it mends */
    if (null >= 0) {
        dup2(null, STDERR_FILENO);
        dup2(null, STDIN_FILENO);
    }
}

static void send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t put = write(fd, data, size);
        if (put < 0 && errno != EINTR) {
            _exit(DAMAGED);
        }
        if (put > 0) {
            data += put;
            size -= (size_t)put;
        }
    }
}

static int send_text(int fd, const void *bytes, size_t size)
{
    GError *problem = NULL;
    GBytes *file = g_bytes_new_static(bytes, size);
    PopplerDocument *document = poppler_document_new_from_bytes(file, NULL, &problem);
    if (!document) {
        bool encrypted = g_error_matches(problem, POPPLER_ERROR, POPPLER_ERROR_ENCRYPTED);
        if (problem && !encrypted) {
            send_all(fd, problem->message, strlen(problem->message));
        }
        return encrypted ? ENCRYPTED : DAMAGED;
    }
    char *title = poppler_document_get_title(document);
    size_t total = 0;
    if (title) {
        send_all(fd, title, strlen(title));
    }
    send_all(fd, "", 1);
    int pages = poppler_document_get_n_pages(document);
    for (int i = 0; i < pages; i++) {
        PopplerPage *page = poppler_document_get_page(document, i);
        char *text = page ? poppler_page_get_text(page) : NULL;
        if (i > 0) {
            send_all(fd, "\n\f\n", 3);
        }
        if (text) {
            total += strlen(text);
            if (total > INGEST_DOCUMENT_BYTES_MAX) {
                return TOO_LONG;
            }
            send_all(fd, text, strlen(text));
        }
        g_free(text);
        if (page) {
            g_object_unref(page);
        }
    }
    return WHOLE;
}

/* --- the parent ------------------------------------------------------------------------------- */

/* What the child sends until it ends. BASE_NO_MEMORY. */
static base_status receive(int fd, base_buffer *out)
{
    char step[1 << 14];
    base_status status = BASE_OK;
    for (;;) {
        ssize_t got = read(fd, step, sizeof step);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return status;
        }
        if (got > 0 && !status) {
            status = base_buffer_append(out, step, (size_t)got);
        }
    }
}

/* Run the child; *code: its exit code, or minus the signal that ended it. */
static base_status extract(const void *bytes, size_t size, base_buffer *out, int *code,
                           base_error *err)
{
    int ends[2], state = 0;
    if (pipe(ends) != 0) {
        return base_fail_errno(err, errno, "cannot make a pipe");
    }
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        child_begins();
        _exit(send_text(ends[1], bytes, size));
    }
    close(ends[1]);
    if (child < 0) {
        int problem = errno;
        close(ends[0]);
        return base_fail_errno(err, problem, "cannot start a child process");
    }
    base_status status = receive(ends[0], out);
    close(ends[0]);
    while (waitpid(child, &state, 0) < 0 && errno == EINTR) {
    }
    *code = WIFEXITED(state) ? WEXITSTATUS(state) : -WTERMSIG(state);
    return status ? base_fail(err, status, "no memory for %zu bytes of text", out->size) : BASE_OK;
}

/* Why there is no document, or NULL. */
static const char *pdf_problem(int code, const base_buffer *out)
{
    if (code == WHOLE) {
        return out->data && memchr(out->data, 0, out->size) ? NULL : "damaged PDF";
    }
    if (code == ENCRYPTED) {
        return "encrypted PDF: its text needs a password";
    }
    if (code == TOO_LONG) {
        return "its text is longer than a document may be";
    }
    if (code == -SIGXCPU || code == -SIGKILL) {
        return "PDF that takes too long to read";
    }
    return "damaged PDF";
}

base_status ingest_read_pdf(ingest *in, const char *path, const char *source, const void *bytes,
                            size_t size, int64_t file_time_us, base_error *err)
{
    base_buffer out = {.size_max = 2 * INGEST_DOCUMENT_BYTES_MAX};
    int code = 0;
    base_status status = extract(bytes, size, &out, &code, err);
    const char *problem = status ? NULL : pdf_problem(code, &out);
    if (problem) {
        bool told = code == DAMAGED && out.size > 0;
        ingest_problem(in, "%s: %s%s%s", path, problem, told ? ": " : "", told ? out.data : "");
    } else if (!status) {
        size_t title = strlen(out.data);
        status = ingest_add_file(in, path, source, out.data, out.data + title + 1,
                                 out.size - title - 1, file_time_us, err);
    }
    base_buffer_free(&out);
    return status;
}
