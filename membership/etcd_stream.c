#include "membership/etcd_stream.h"
#include "membership/etcd_http.h"

#include <stdio.h>

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)

struct etcd_stream {
    struct etcd_access *access;
    char *body;
    CURLM *multi;
    struct etcd_http *watch, *probe;
    bool watching, probing;
    unsigned flags;
    char why[256];
    int64_t bytes_from; /* of what came in the last second */
    size_t bytes;
};

static void remove_handle(struct etcd_stream *stream, struct etcd_http *http) {
    curl_multi_remove_handle(stream->multi, http->easy);
}

/* ---- The watch ------------------------------------------------------------------------------------------------------- */

static void ended(struct etcd_stream *stream, const char *why) {
    if (!(stream->flags & ETCD_STREAM_ENDED))
        snprintf(stream->why, sizeof stream->why, "etcd at %s: %s",
                 etcd_access_config(stream->access)->endpoints[stream->watch->endpoint], why);
    stream->flags |= ETCD_STREAM_ENDED;
}

/* False: the watch is no good. */
static bool read_line(struct etcd_stream *stream, const char *line, size_t length) {
    char why[200];
    int kind = etcd_read_watch(line, length, why, sizeof why);
    if (kind == ETCD_WATCH_MADE || kind == ETCD_WATCH_EVENTS)
        stream->flags |= ETCD_STREAM_LOOK;
    if (kind < 0 || kind == ETCD_WATCH_ENDED)
        ended(stream, why);
    return !(stream->flags & ETCD_STREAM_ENDED);
}

/* A few changes in a day are normal; nobody has to listen to a member that talks without end. */
static bool too_much(struct etcd_stream *stream, size_t length) {
    int64_t now = clock_boot();
    if (now - stream->bytes_from > SECOND) {
        stream->bytes_from = now;
        stream->bytes = 0;
    }
    stream->bytes += length;
    return stream->bytes > 4 * ETCD_ANSWER_MAX;
}

/* An answer that is a stream of lines; the last one may not be whole yet. */
static size_t take_lines(char *bytes, size_t size, size_t count, void *context) {
    struct etcd_stream *stream = context;
    struct etcd_http *http = stream->watch;
    size_t length = size * count;
    if (etcd_http_status(http) != 200) {
        ended(stream, "it does not let the keys be watched");
        return 0;
    }
    if (too_much(stream, length) || length > ETCD_ANSWER_MAX - http->length) {
        ended(stream, "a watch brings more than etcd would send");
        return 0;
    }
    memcpy(http->text + http->length, bytes, length);
    http->length += length;
    size_t from = 0;
    for (char *end; (end = memchr(http->text + from, '\n', http->length - from)) != NULL; from = (size_t)(end - http->text) + 1)
        if (end != http->text + from && !read_line(stream, http->text + from, (size_t)(end - http->text) - from))
            return 0;
    http->length -= from;
    memmove(http->text, http->text + from, http->length);
    return length;
}

void etcd_stream_begin(struct etcd_stream *stream) {
    char token[ETCD_TOKEN_MAX];
    if (stream->watching)
        return;
    etcd_access_token(stream->access, token);
    stream->flags = 0;
    stream->bytes = 0;
    etcd_http_prepare(stream->watch, etcd_access_preferred(stream->access), ETCD_PATH_WATCH, stream->body, token, 0);
    curl_easy_setopt(stream->watch->easy, CURLOPT_WRITEFUNCTION, take_lines);
    curl_easy_setopt(stream->watch->easy, CURLOPT_WRITEDATA, stream);
    PROMISE(curl_multi_add_handle(stream->multi, stream->watch->easy) == CURLM_OK);
    stream->watching = true;
}

void etcd_stream_end(struct etcd_stream *stream) {
    if (stream->watching)
        remove_handle(stream, stream->watch);
    stream->watching = false;
}

bool etcd_stream_runs(const struct etcd_stream *stream) {
    return stream->watching;
}

unsigned etcd_stream_endpoint(const struct etcd_stream *stream) {
    return stream->watch->endpoint;
}

/* ---- The question ---------------------------------------------------------------------------------------------------- */

void etcd_stream_probe(struct etcd_stream *stream, unsigned endpoint) {
    char token[ETCD_TOKEN_MAX];
    if (stream->probing)
        return;
    etcd_access_token(stream->access, token);
    etcd_http_prepare(stream->probe, endpoint, ETCD_PATH_STATUS, "{}", token, SECOND);
    PROMISE(curl_multi_add_handle(stream->multi, stream->probe->easy) == CURLM_OK);
    stream->probing = true;
}

static void probed(struct etcd_stream *stream, CURLcode code) {
    struct etcd_http *http = stream->probe;
    char why[200] = "";
    if (code != CURLE_OK) {
        etcd_http_why(http, code, why, sizeof why);
    } else if (etcd_http_status(http) != 200) {
        /* Not let in is answered, too: what this user may do is found out by what it does. */
        enum etcd_refusal refusal = etcd_read_refusal(etcd_http_status(http), http->text, http->length, why, sizeof why);
        if (refusal != ETCD_REFUSED_RUBBISH && refusal != ETCD_REFUSED_NOW)
            why[0] = 0;
    } else {
        etcd_read_status(http->text, http->length, why, sizeof why);
    }
    etcd_access_heard(stream->access, http->endpoint, why[0] ? why : NULL);
}

/* ---- Both ------------------------------------------------------------------------------------------------------------ */

struct etcd_stream *etcd_stream_open(struct etcd_access *access, const struct etcd_keys *keys) {
    struct etcd_stream *stream = calloc(1, sizeof *stream);
    PROMISE(stream != NULL);
    stream->access = access;
    stream->body = etcd_ask_watch(keys);
    stream->watch = etcd_http_open(access);
    stream->probe = etcd_http_open(access);
    stream->multi = curl_multi_init();
    PROMISE(stream->multi != NULL);
    return stream;
}

void etcd_stream_close(struct etcd_stream *stream) {
    etcd_stream_end(stream);
    if (stream->probing)
        remove_handle(stream, stream->probe);
    etcd_http_close(stream->watch);
    etcd_http_close(stream->probe);
    curl_multi_cleanup(stream->multi);
    free(stream->body);
    free(stream);
}

static void finish(struct etcd_stream *stream) {
    char why[200];
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(stream->multi, &left)) != NULL;) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result;
        if (message->easy_handle == stream->watch->easy) {
            etcd_http_why(stream->watch, code, why, sizeof why);
            ended(stream, code == CURLE_OK ? "it has ended the watch" : why);
        } else {
            remove_handle(stream, stream->probe);
            stream->probing = false;
            probed(stream, code);
        }
    }
}

unsigned etcd_stream_wait(struct etcd_stream *stream, int64_t timeout, char *why, size_t why_room) {
    int running;
    curl_multi_perform(stream->multi, &running);
    finish(stream);
    if (!stream->flags) {
        curl_multi_poll(stream->multi, NULL, 0, (int)((MIN(MAX(timeout, 0), 60 * SECOND) + MS - 1) / MS), NULL);
        curl_multi_perform(stream->multi, &running);
        finish(stream);
    }
    unsigned flags = stream->flags;
    stream->flags = 0;
    if (flags & ETCD_STREAM_ENDED) {
        etcd_stream_end(stream);
        snprintf(why, why_room, "%s", stream->why);
    }
    return flags;
}

void etcd_stream_wake(struct etcd_stream *stream) {
    curl_multi_wakeup(stream->multi);
}
