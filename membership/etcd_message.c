#include "membership/etcd_message.h"
#include "fs/text.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

#define BASE64_ROOM(bytes) (((bytes) + 2) / 3 * 4 + 1)

static void cleanup_json(json_t **json) {
    json_decref(*json);
}
#define AUTO_JSON __attribute__((cleanup(cleanup_json)))

__attribute__((format(printf, 3, 4))) static int refuse(char *why, size_t why_room, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, why_room, format, arguments);
    va_end(arguments);
    text_mend(why);
    return -EBADMSG;
}

/* ---- base64 ---------------------------------------------------------------------------------------------------------- */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void base64(const void *bytes, size_t length, char *text) {
    const uint8_t *at = bytes;
    for (; length; at += 3, length -= MIN(length, 3)) {
        uint32_t group = (uint32_t)at[0] << 16 | (length > 1 ? (uint32_t)at[1] << 8 : 0) | (length > 2 ? at[2] : 0);
        *text++ = digits[group >> 18];
        *text++ = digits[group >> 12 & 63];
        *text++ = length > 1 ? digits[group >> 6 & 63] : '=';
        *text++ = length > 2 ? digits[group & 63] : '=';
    }
    *text = 0;
}

/* The number of bytes, or -1. */
static ssize_t unbase64(const char *text, size_t length, uint8_t *bytes, size_t room) {
    size_t count = 0;
    if (length % 4)
        return -1;
    for (size_t i = 0; i < length; i += 4) {
        uint32_t group = 0;
        unsigned pad = 0;
        for (unsigned j = 0; j < 4; j++) {
            const char *digit = text[i + j] ? strchr(digits, text[i + j]) : NULL;
            bool padding = text[i + j] == '=' && i + 4 == length && j >= 2;
            if (padding ? false : !digit || pad)
                return -1;
            pad += padding;
            group = group << 6 | (padding ? 0 : (uint32_t)(digit - digits));
        }
        if (count + 3 - pad > room || group & ((1u << 8 * pad) - 1))
            return -1;
        for (unsigned j = 0; j < 3 - pad; j++)
            bytes[count++] = (uint8_t)(group >> (16 - 8 * j));
    }
    return (ssize_t)count;
}

static json_t *json_bytes(const void *bytes, size_t length) {
    char text[BASE64_ROOM(REGISTER_BYTES)];
    PROMISE(length <= REGISTER_BYTES);
    base64(bytes, length, text);
    return json_string(text);
}

static json_t *json_text(const char *text) {
    return json_bytes(text, strlen(text));
}

static json_t *json_number(int64_t number) {
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, number);
    return json_string(text);
}

/* ---- Requests -------------------------------------------------------------------------------------------------------- */

/* Takes `json`, which is NULL if memory has run out somewhere. */
static char *print(json_t *json) {
    PROMISE(json != NULL);
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    PROMISE(text != NULL);
    return text;
}

void etcd_keys_make(const char *prefix, const uint8_t volume_id[16], struct etcd_keys *keys) {
    char id[33];
    size_t length = strnlen(prefix, 127);
    while (length > 0 && prefix[length - 1] == '/')
        length--;
    for (unsigned i = 0; i < 16; i++)
        snprintf(id + 2 * i, 3, "%02x", volume_id[i]);
    snprintf(keys->folder, sizeof keys->folder, "%.*s/%s/", (int)length, prefix, id);
    snprintf(keys->register_key, sizeof keys->register_key, "%sregister", keys->folder);
    snprintf(keys->holder_key, sizeof keys->holder_key, "%sholder", keys->folder);
}

static json_t *compare(const char *key, int64_t mod) {
    return json_pack("{s:o, s:s, s:s, s:o}", "key", json_text(key), "target", "MOD", "result", "EQUAL", "mod_revision",
                     json_number(mod));
}

/* Reads of a transaction are linearizable unless they are asked not to be. */
static json_t *range(const char *key) {
    return json_pack("{s:{s:o}}", "request_range", "key", json_text(key));
}

static json_t *put(const char *key, const void *value, size_t length, int64_t lease) {
    return json_pack("{s:{s:o, s:o, s:o}}", "request_put", "key", json_text(key), "value", json_bytes(value, length), "lease",
                     json_number(lease));
}

static json_t *both_ranges(const struct etcd_keys *keys) {
    return json_pack("[o, o]", range(keys->register_key), range(keys->holder_key));
}

char *etcd_ask_look(const struct etcd_keys *keys) {
    return print(json_pack("{s:o}", "success", both_ranges(keys)));
}

char *etcd_ask_write(const struct etcd_keys *keys, const struct etcd_write *write) {
    uint8_t bytes[REGISTER_BYTES];
    char text[ETCD_HOLDER_TEXT];
    json_t *done = json_array();
    if (write->value)
        json_array_append_new(done, put(keys->register_key, bytes, register_encode(write->value, bytes), 0));
    if (write->holder_write == ETCD_HOLDER_PUT) {
        etcd_holder_print(write->holder, text);
        json_array_append_new(done, put(keys->holder_key, text, strlen(text), write->lease));
    } else if (write->holder_write == ETCD_HOLDER_DELETE) {
        json_array_append_new(done, json_pack("{s:{s:o}}", "request_delete_range", "key", json_text(keys->holder_key)));
    }
    json_array_append_new(done, range(keys->register_key));
    json_array_append_new(done, range(keys->holder_key));
    return print(json_pack("{s:[o, o], s:o, s:o}", "compare", compare(keys->register_key, write->register_mod),
                           compare(keys->holder_key, write->holder_mod), "success", done, "failure", both_ranges(keys)));
}

char *etcd_ask_grant(int64_t ttl) {
    return print(json_pack("{s:o}", "TTL", json_number(ttl)));
}

char *etcd_ask_lease(int64_t lease) {
    return print(json_pack("{s:o}", "ID", json_number(lease)));
}

char *etcd_ask_login(const char *user, const char *password) {
    json_t *json = json_pack("{s:s, s:s}", "name", user, "password", password);
    return json ? print(json) : NULL;
}

/* All keys of the volume: a role that may read them by their common beginning may watch them so. */
char *etcd_ask_watch(const struct etcd_keys *keys) {
    char end[sizeof keys->folder];
    memcpy(end, keys->folder, sizeof end);
    end[strlen(end) - 1]++; /* the first text that does not begin so */
    return print(json_pack("{s:{s:o, s:o, s:b}}", "create_request", "key", json_text(keys->folder), "range_end", json_text(end),
                           "progress_notify", 1));
}

/* ---- Answers --------------------------------------------------------------------------------------------------------- */

static json_t *parse(const char *text, size_t length, char *why, size_t why_room) {
    json_error_t error;
    json_t *json = length <= ETCD_ANSWER_MAX ? json_loadb(text, length, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (!json_is_object(json)) {
        json_decref(json);
        refuse(why, why_room, "its answer is no JSON object; is that an etcd with the v3 API (3.4 or later)?");
        return NULL;
    }
    return json;
}

/* A number stands in a string, and is left out if it is 0. */
static bool get_unsigned(const json_t *json, const char *name, uint64_t *number) {
    const json_t *field = json_object_get(json, name);
    *number = 0;
    if (!field)
        return true;
    if (json_is_integer(field)) {
        *number = (uint64_t)json_integer_value(field);
        return json_integer_value(field) >= 0;
    }
    const char *text = json_string_value(field);
    if (!text || !*text || strlen(text) > 20 || text[strspn(text, "0123456789")])
        return false;
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0;
}

static bool get_number(const json_t *json, const char *name, int64_t *number) {
    uint64_t value;
    bool good = get_unsigned(json, name, &value) && value <= INT64_MAX;
    *number = good ? (int64_t)value : 0;
    return good;
}

static bool get_header(const json_t *json, uint64_t *cluster, int64_t *revision) {
    const json_t *header = json_object_get(json, "header");
    return json_is_object(header) && get_unsigned(header, "cluster_id", cluster) && get_number(header, "revision", revision);
}

/* The bytes of a field in base64; -1: it is none, or has more than `room`. */
static ssize_t get_bytes(const json_t *json, const char *name, uint8_t *bytes, size_t room) {
    const json_t *field = json_object_get(json, name);
    if (!json_is_string(field))
        return field ? -1 : 0;
    return unbase64(json_string_value(field), json_string_length(field), bytes, room);
}

/* One key's range: 1: it is there, 0: it is not, -1: that is no answer. */
static int get_range(const json_t *response, const char *key, int64_t *mod, int64_t *lease, uint8_t value[REGISTER_BYTES],
                     size_t *length) {
    const json_t *answer = json_object_get(response, "response_range");
    const json_t *list = json_object_get(answer, "kvs"), *entry = json_array_get(list, 0);
    uint8_t name[256];
    *mod = *lease = 0;
    if (!json_is_object(answer) || (list && !json_is_array(list)) || json_array_size(list) > 1)
        return -1;
    if (json_array_size(list) == 0)
        return 0;
    ssize_t named = get_bytes(entry, "key", name, sizeof name), valued = get_bytes(entry, "value", value, REGISTER_BYTES);
    if (!json_is_object(entry) || named != (ssize_t)strlen(key) || memcmp(name, key, strlen(key)) != 0 || valued < 0 ||
        !get_number(entry, "mod_revision", mod) || *mod <= 0 || !get_number(entry, "lease", lease))
        return -1;
    *length = (size_t)valued;
    return 1;
}

int etcd_read_answer(const struct etcd_keys *keys, const char *text, size_t length, bool *written, struct etcd_seen *seen,
                     char *why, size_t why_room) {
    AUTO_JSON json_t *json = parse(text, length, why, why_room);
    uint8_t value[REGISTER_BYTES];
    size_t value_length;
    int64_t none;
    memset(seen, 0, sizeof *seen);
    if (!json)
        return -EBADMSG;
    const json_t *responses = json_object_get(json, "responses"), *succeeded = json_object_get(json, "succeeded");
    size_t count = json_array_size(responses);
    if (!get_header(json, &seen->cluster, &seen->revision) || seen->revision <= 0 || count < 2 || count > 4 ||
        (succeeded && !json_is_boolean(succeeded)))
        return refuse(why, why_room, "its answer is not what a transaction of etcd answers");
    *written = json_is_true(succeeded);

    int there = get_range(json_array_get(responses, count - 2), keys->register_key, &seen->register_mod, &none, value,
                          &value_length);
    if (there < 0)
        return refuse(why, why_room, "its answer tells nothing of the key %s", keys->register_key);
    if (there && (register_decode(value, value_length, &seen->value) != 0 || seen->value.version == 0))
        return refuse(why, why_room, "what stands in the key %s is no register of this version of Baton", keys->register_key);
    there = get_range(json_array_get(responses, count - 1), keys->holder_key, &seen->holder_mod, &seen->holder_lease, value,
                      &value_length);
    if (there < 0)
        return refuse(why, why_room, "its answer tells nothing of the key %s", keys->holder_key);
    if (there && etcd_holder_parse((const char *)value, value_length, &seen->holder) != 0)
        return refuse(why, why_room, "what stands in the key %s is no holder of this version of Baton", keys->holder_key);
    if (seen->register_mod > seen->revision || seen->holder_mod > seen->revision)
        return refuse(why, why_room, "its answer has keys of a later revision than its own");
    return 0;
}

int etcd_read_grant(const char *text, size_t length, int64_t *lease, int64_t *ttl, char *why, size_t why_room) {
    AUTO_JSON json_t *json = parse(text, length, why, why_room);
    if (!json)
        return -EBADMSG;
    if (!get_number(json, "ID", lease) || *lease <= 0 || !get_number(json, "TTL", ttl) || *ttl <= 0)
        return refuse(why, why_room, "its answer grants no lease");
    return 0;
}

int etcd_read_keep_alive(const char *text, size_t length, int64_t lease, int64_t *ttl, char *why, size_t why_room) {
    AUTO_JSON json_t *json = parse(text, length, why, why_room);
    int64_t id;
    if (!json)
        return -EBADMSG;
    const json_t *result = json_object_get(json, "result");
    if (!json_is_object(result) || !get_number(result, "ID", &id) || id != lease || !get_number(result, "TTL", ttl))
        return refuse(why, why_room, "its answer is none to a keep-alive of lease %" PRId64, lease);
    return 0;
}

int etcd_read_any(const char *text, size_t length, char *why, size_t why_room) {
    AUTO_JSON json_t *json = parse(text, length, why, why_room);
    if (json && !json_is_object(json_object_get(json, "header")))
        return refuse(why, why_room, "its answer has no header of etcd's");
    return json ? 0 : -EBADMSG;
}

int etcd_read_status(const char *text, size_t length, char *why, size_t why_room) {
    AUTO_JSON json_t *json = parse(text, length, why, why_room);
    uint64_t leader;
    if (!json)
        return -EBADMSG;
    if (!json_is_object(json_object_get(json, "header")) || !get_unsigned(json, "leader", &leader))
        return refuse(why, why_room, "its answer is none about its status");
    if (leader)
        return 0;
    snprintf(why, why_room, "it knows no leader of its cluster");
    return -EAGAIN;
}

int etcd_read_login(const char *text, size_t length, char token[ETCD_TOKEN_MAX], char *why, size_t why_room) {
    AUTO_JSON json_t *json = parse(text, length, why, why_room);
    if (!json)
        return -EBADMSG;
    const json_t *field = json_object_get(json, "token");
    const char *given = json_string_value(field);
    size_t size = json_string_length(field);
    if (!given || size == 0 || size >= ETCD_TOKEN_MAX)
        return refuse(why, why_room, "its answer to a login has no token");
    for (size_t i = 0; i < size; i++) /* it goes into a header of HTTP */
        if (given[i] <= ' ' || given[i] > '~')
            return refuse(why, why_room, "the token in its answer to a login has characters that no token has");
    memcpy(token, given, size + 1);
    return 0;
}

int etcd_read_watch(const char *text, size_t length, char *why, size_t why_room) {
    AUTO_JSON json_t *json = parse(text, length, why, why_room);
    if (!json)
        return -EBADMSG;
    const json_t *result = json_object_get(json, "result"), *events = json_object_get(result, "events");
    if (!json_is_object(result) || !json_is_object(json_object_get(result, "header")) || (events && !json_is_array(events))) {
        etcd_read_refusal(200, text, length, why, why_room);
        return json_object_get(json, "error") ? ETCD_WATCH_ENDED : -EBADMSG;
    }
    if (json_is_true(json_object_get(result, "canceled"))) {
        refuse(why, why_room, "it has ended the watch");
        return ETCD_WATCH_ENDED;
    }
    if (json_array_size(events))
        return ETCD_WATCH_EVENTS;
    return json_is_true(json_object_get(result, "created")) ? ETCD_WATCH_MADE : ETCD_WATCH_IDLE;
}

/* ---- Errors ---------------------------------------------------------------------------------------------------------- */

/* Codes of gRPC. */
enum { INVALID_ARGUMENT = 3, NOT_FOUND = 5, PERMISSION_DENIED = 7, FAILED_PRECONDITION = 9, OUT_OF_RANGE = 11,
       UNAUTHENTICATED = 16 };

static enum etcd_refusal refusal_of(int64_t code, const char *message) {
    /* These have the code of a wrong argument in some versions; the words are the API's (its own clients compare them). */
    if (code == UNAUTHENTICATED || strstr(message, "invalid auth token") || strstr(message, "auth store is old") ||
        strstr(message, "user name is empty"))
        return ETCD_REFUSED_TOKEN;
    if (code == PERMISSION_DENIED || strstr(message, "authentication failed"))
        return ETCD_REFUSED_RIGHT;
    if (strstr(message, "authentication is not enabled"))
        return ETCD_REFUSED_NO_USERS;
    if (code == NOT_FOUND)
        return ETCD_REFUSED_GONE;
    if (code == INVALID_ARGUMENT || code == FAILED_PRECONDITION || code == OUT_OF_RANGE)
        return ETCD_REFUSED_REQUEST;
    return ETCD_REFUSED_NOW;
}

enum etcd_refusal etcd_read_refusal(long http_status, const char *text, size_t length, char *why, size_t why_room) {
    char scratch[8], printable[161];
    AUTO_JSON json_t *json = parse(text, length, scratch, sizeof scratch);
    const json_t *error = json_object_get(json, "error"), *inner = json_is_object(error) ? error : json;
    const char *message = json_string_value(json_object_get(inner, "message"));
    int64_t code;
    if (!message)
        message = json_string_value(error);
    const char *code_name = json_is_object(error) ? "grpc_code" : "code";
    if (!message || !get_number(inner, code_name, &code)) {
        if (http_status >= 300 && http_status < 400)
            refuse(why, why_room, "it sends elsewhere (HTTP status %ld), which is not followed; name etcd's own address",
                   http_status);
        else
            refuse(why, why_room, "it answers with HTTP status %ld and no word of etcd; is that an etcd with the v3 API (3.4 or "
                                  "later)?", http_status);
        return ETCD_REFUSED_RUBBISH;
    }
    text_escape(message, strlen(message), printable, sizeof printable);
    refuse(why, why_room, "%s", printable);
    return refusal_of(code, message);
}
