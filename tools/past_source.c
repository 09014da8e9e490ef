#include "tools/past_source.h"

#include "fs/control.h"
#include "fs/history_request.h"
#include "fs/tree_wire.h"
#include "tools/tree_remote.h"

#include <inttypes.h>
#include <stdio.h>

#define SHOW_NS 200000000

struct way { /* back */
    int64_t shown;
};

static bool show_progress(void *context, uint64_t done, uint64_t of) {
    struct way *way = context;
    if (isatty(STDERR_FILENO) == 1 && clock_boot() - way->shown > SHOW_NS) {
        way->shown = clock_boot();
        fprintf(stderr, "\r\033[Kgoing back: %" PRIu64 " of %" PRIu64 " records", done, of);
        fflush(stderr);
    }
    return false;
}

static void end_progress(const struct way *way) {
    if (way->shown > 0)
        fputs("\r\033[K", stderr);
}

/* The daemon's lines until it is ready: that one, or NULL with *status. */
static json_t *wait_ready(int fd, const json_t *request, int *status) {
    struct way way = {0};
    json_t *line = NULL;
    int error = control_request(fd, request);

    while (error == 0) {
        error = control_receive(fd, &line, -1);
        if (error)
            break;
        const char *sentence = json_string_value(json_object_get(line, "error"));
        if (sentence != NULL || json_is_true(json_object_get(line, "ready"))) {
            end_progress(&way);
            if (sentence != NULL)
                *status = fail("%s", sentence);
            else if (json_integer_value(json_object_get(line, "version")) == TREE_WIRE_VERSION)
                return line;
            else
                *status = fail("batond is of another version than baton; restart it");
            json_decref(line);
            return NULL;
        }
        show_progress(&way, (uint64_t)json_integer_value(json_object_get(line, "done")),
                      (uint64_t)json_integer_value(json_object_get(line, "of")));
        json_decref(line);
    }
    end_progress(&way);
    *status = fail("batond ended the connection (%s); see its log and: baton status", strerror(-error));
    return NULL;
}

static int from_daemon(int fd, const json_t *request,
                       int (*use)(void *context, const struct tree *tree, const json_t *ready), void *context) {
    struct tree_remote remote;
    struct tree tree;
    int status = EXIT_FAILURE;

    json_t *ready = wait_ready(fd, request, &status);
    if (ready == NULL)
        return status;
    if (tree_remote_begin(&remote, fd, &tree) == 0)
        status = use(context, &tree, ready);
    else
        status = fail("out of memory");
    tree_remote_end(&remote);
    json_decref(ready);
    return status;
}

static int from_store(const struct tool *tool, const json_t *request,
                      int (*use)(void *context, const struct tree *tree, const json_t *ready), void *context) {
    struct store *store, *past = NULL;
    struct way way = {0};
    json_t *ready = NULL;
    char why[1024] = "";

    int status = tool_open(tool, &store);
    if (status)
        return status;
    int error = history_request(store, request, show_progress, &way, &past, &ready, why, sizeof why);
    end_progress(&way);
    if (error) {
        status = fail("%s", why);
    } else {
        struct tree tree = tree_of_store(past);
        status = use(context, &tree, ready);
        json_decref(ready);
        history_close(past);
    }
    store_close(store);
    return status;
}

int with_past(const struct tool *tool, json_t *request,
              int (*use)(void *context, const struct tree *tree, const json_t *ready), void *context) {
    int fd, status;
    int error = control_connect(tool_store(tool), &fd);

    if (error == -ECONNREFUSED || error == -ENOENT)
        return from_store(tool, request, use, context);
    if (error)
        return fail("batond cannot be asked: %s", strerror(-error));
    json_object_set_new(request, "command", json_string("history"));
    status = from_daemon(fd, request, use, context);
    close(fd);
    return status;
}
