/* What is asked of etcd, and that nothing but etcd's answers is taken for one; and the rules of who may change what, when. */
#include "fs/config.h"
#include "membership/ask.h"
#include "membership/etcd_message.h"
#include "tests/tap.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#define SECOND INT64_C(1000000000)

static const uint8_t volume[16] = {0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static struct etcd_keys keys;
static char why[200];

static struct register_value some_value(const char *primary, unsigned counter) {
    struct register_value value = {.version = 7, .epoch = EPOCH_MAKE(counter, 3), .member_count = 1, .start_lsn = 99};
    snprintf(value.primary, sizeof value.primary, "%s", primary);
    snprintf(value.members[0].node, sizeof value.members[0].node, "%s", primary);
    return value;
}

static struct etcd_holder some_holder(enum etcd_holder_state state, const char *node, unsigned counter) {
    struct etcd_holder holder = {.state = state, .epoch = EPOCH_MAKE(counter, 3), .session = 0xfedcba9876543210};
    snprintf(holder.node, sizeof holder.node, "%s", node);
    return holder;
}

/* ---- Requests -------------------------------------------------------------------------------------------------------- */

static void test_keys(void) {
    struct etcd_keys others;
    etcd_keys_make("fleet/baton//", volume, &keys);
    is_string("fleet/baton/ab0102030405060708090a0b0c0d0e0f/register", keys.register_key, "the register's key");
    is_string("fleet/baton/ab0102030405060708090a0b0c0d0e0f/holder", keys.holder_key, "the holder's");
    char longest[128];
    memset(longest, 'x', sizeof longest);
    longest[127] = 0;
    etcd_keys_make(longest, volume, &others);
    is_int(127 + 34, strlen(others.folder), "the longest prefix fits");
    etcd_keys_make("b", volume, &keys);
}

static json_t *requested(char *text) {
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    ok(json != NULL, "a request is JSON");
    free(text);
    return json;
}

static void test_requests(void) {
    struct register_value value = some_value("a", 5);
    struct etcd_holder holder = some_holder(ETCD_HOLDER_HELD, "a", 5);
    struct etcd_write write = {.register_mod = 12, .holder_mod = 0, .value = &value, .holder_write = ETCD_HOLDER_PUT,
                               .holder = &holder, .lease = INT64_MAX};
    const char *key, *mod, *target;
    json_t *json = requested(etcd_ask_write(&keys, &write));
    json_t *compare = json_object_get(json, "compare"), *success = json_object_get(json, "success");
    is_int(2, json_array_size(compare), "a write compares both keys");
    ok(json_unpack(json_array_get(compare, 0), "{s:s, s:s, s:s}", "key", &key, "target", &target, "mod_revision", &mod) == 0 &&
       strcmp(target, "MOD") == 0 && strcmp(mod, "12") == 0, "the register's modification");
    ok(json_unpack(json_array_get(compare, 1), "{s:s, s:s}", "target", &target, "mod_revision", &mod) == 0 &&
       strcmp(mod, "0") == 0, "and that the holder's key is not there");
    is_int(4, json_array_size(success), "it writes both, and reads both");
    ok(json_unpack(json_array_get(success, 1), "{s:{s:s, s:s}}", "request_put", "key", &key, "lease", &mod) == 0 &&
       strcmp(mod, "9223372036854775807") == 0, "the holder's key has a lease");
    ok(json_unpack(json_array_get(success, 0), "{s:{s:s}}", "request_put", "lease", &mod) == 0 && strcmp(mod, "0") == 0,
       "the register has none");
    is_int(2, json_array_size(json_object_get(json, "failure")), "and if it does not write, it reads both");
    json_decref(json);

    write = (struct etcd_write){.register_mod = 3, .holder_mod = 4, .value = &value, .holder_write = ETCD_HOLDER_DELETE};
    json = requested(etcd_ask_write(&keys, &write));
    ok(json_object_get(json_array_get(json_object_get(json, "success"), 1), "request_delete_range") != NULL,
       "a new reign takes the holder's key away");
    json_decref(json);

    json = requested(etcd_ask_look(&keys));
    is_int(0, json_array_size(json_object_get(json, "compare")), "a look compares nothing");
    is_int(2, json_array_size(json_object_get(json, "success")), "and reads both keys");
    json_decref(json);

    json = requested(etcd_ask_watch(&keys));
    ok(json_unpack(json, "{s:{s:s, s:s}}", "create_request", "key", &key, "range_end", &mod) == 0, "a watch has a range");
    is_string("Yi9hYjAxMDIwMzA0MDUwNjA3MDgwOTBhMGIwYzBkMGUwZi8=", key, "from what both keys begin with");
    is_string("Yi9hYjAxMDIwMzA0MDUwNjA3MDgwOTBhMGIwYzBkMGUwZjA=", mod, "to what does not begin so any more");
    json_decref(json);
    json = requested(etcd_ask_login("u", "p\"\\"));
    ok(json_unpack(json, "{s:s, s:s}", "name", &key, "password", &mod) == 0 && strcmp(mod, "p\"\\") == 0, "a password is escaped");
    json_decref(json);
    ok(etcd_ask_login("u", "\xff\xfe") == NULL, "one that is no UTF-8 cannot be sent");
}

/* ---- Answers --------------------------------------------------------------------------------------------------------- */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static char *encode(const void *bytes, size_t length) {
    static char text[4][4096];
    static unsigned turn;
    char *at = text[++turn % 4], *start = at;
    const uint8_t *from = bytes;
    for (size_t i = 0; i < length; i += 3) {
        uint32_t group = 0;
        for (size_t j = 0; j < 3; j++)
            group = group << 8 | (i + j < length ? from[i + j] : 0u);
        for (size_t j = 0; j < 4; j++)
            *at++ = i + j > length ? '=' : alphabet[group >> (18 - 6 * j) & 63];
    }
    *at = 0;
    return start;
}

static const char *answer_with(const char *register_key, const char *register_text, const char *holder_text,
                               const char *header) {
    static char text[12000];
    uint8_t bytes[REGISTER_BYTES];
    struct register_value value = some_value("a", 5);
    char *own = encode(bytes, register_encode(&value, bytes));
    snprintf(text, sizeof text,
             "{%s,\"succeeded\":true,\"responses\":[{\"response_range\":{\"header\":{\"revision\":\"9\"},\"kvs\":[{\"key\":\"%s\","
             "\"create_revision\":\"2\",\"mod_revision\":\"7\",\"version\":\"1\",\"value\":\"%s\"}],\"count\":\"1\"}},"
             "{\"response_range\":{\"kvs\":[{\"key\":\"%s\",\"mod_revision\":\"9\",\"value\":\"%s\",\"lease\":\"77\"}]}}]}",
             header ? header : "\"header\":{\"cluster_id\":\"18446744073709551615\",\"revision\":\"9\"}",
             register_key ? register_key : encode(keys.register_key, strlen(keys.register_key)),
             register_text ? register_text : own, encode(keys.holder_key, strlen(keys.holder_key)), holder_text);
    return text;
}

static int read_text(const char *text, bool *written, struct etcd_seen *seen) {
    why[0] = 0;
    int rc = etcd_read_answer(&keys, text, strlen(text), written, seen, why, sizeof why);
    if (rc && !why[0])
        ok(false, "a refusal has a sentence");
    return rc;
}

static void test_answers(void) {
    struct etcd_seen seen;
    bool written;
    struct etcd_holder holder = some_holder(ETCD_HOLDER_HELD, "a", 5);
    char held[ETCD_HOLDER_TEXT];
    etcd_holder_print(&holder, held);
    is_string("held a 5.3 fedcba9876543210", held, "a holder, to be read by a person");
    const char *good = encode(held, strlen(held));
    is_int(0, read_text(answer_with(NULL, NULL, good, NULL), &written, &seen), "an answer is read");
    ok(written && seen.cluster == UINT64_MAX && seen.revision == 9 && seen.register_mod == 7 && seen.holder_mod == 9 &&
       seen.holder_lease == 77 && seen.value.version == 7 && seen.value.start_lsn == 99 &&
       seen.holder.state == ETCD_HOLDER_HELD && seen.holder.session == holder.session, "with all that is in it");
    is_int(0, read_text("{\"header\":{\"cluster_id\":\"5\",\"revision\":\"1\"},\"responses\":[{\"response_range\":{\"header\":{}}},"
                        "{\"response_range\":{}}]}", &written, &seen), "keys that are not there");
    ok(!written && seen.register_mod == 0 && seen.value.version == 0 && seen.holder.state == ETCD_HOLDER_ABSENT, "are not there");

    const char *bad[] = {
        "", "{", "null", "[]", "{}", "\"x\"", "{\"header\":{}}",
        "{\"header\":{\"cluster_id\":\"5\",\"revision\":\"1\"},\"responses\":[]}",
        "{\"header\":{\"cluster_id\":\"5\",\"revision\":\"1\"},\"responses\":[{\"response_range\":{}}]}",
        "{\"header\":{\"cluster_id\":\"5\",\"revision\":\"1\"},\"responses\":{\"0\":{\"response_range\":{}}}}",
        "{\"header\":{\"cluster_id\":\"5\",\"revision\":\"1\"},\"responses\":[{\"response_put\":{}},{\"response_range\":{}}]}",
        "{\"header\":{\"cluster_id\":\"5\",\"revision\":\"-1\"},\"responses\":[{\"response_range\":{}},{\"response_range\":{}}]}",
        "{\"header\":{\"cluster_id\":\"5\",\"revision\":\"99999999999999999999\"},\"responses\":[{\"response_range\":{}},"
        "{\"response_range\":{}}]}",
        "{\"header\":{\"cluster_id\":\"5\",\"revision\":\"1\"},\"succeeded\":\"yes\",\"responses\":[{\"response_range\":{}},"
        "{\"response_range\":{}}]}",
        "{\"header\":{\"cluster_id\":\"5\",\"revision\":\"1\"},\"responses\":[{\"response_range\":{\"kvs\":{}}},"
        "{\"response_range\":{}}]}",
        "{\"header\":{\"cluster_id\":\"5\",\"revision\":\"1\"},\"responses\":[{\"response_range\":{\"kvs\":[5]}},"
        "{\"response_range\":{}}]}",
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        is_int(-EBADMSG, read_text(bad[i], &written, &seen), "refused: %s", bad[i]);
    is_int(-EBADMSG, read_text(answer_with("eA==", NULL, good, NULL), &written, &seen), "another key's value is refused");
    is_int(-EBADMSG, read_text(answer_with(NULL, "eA==", good, NULL), &written, &seen), "what is no register is refused");
    is_int(-EBADMSG, read_text(answer_with(NULL, "e$==", good, NULL), &written, &seen), "so is what is no base64");
    is_int(-EBADMSG, read_text(answer_with(NULL, "eA=", good, NULL), &written, &seen), "or half of it");
    is_int(-EBADMSG, read_text(answer_with(NULL, "eB==", good, NULL), &written, &seen), "or has bits too many");
    is_int(-EBADMSG, read_text(answer_with(NULL, "e=A=", good, NULL), &written, &seen), "or ends early");
    is_int(-EBADMSG, read_text(answer_with(NULL, NULL, "eA==", NULL), &written, &seen), "what is no holder is refused");
    const char *old = "\"header\":{\"cluster_id\":\"5\",\"revision\":\"8\"}";
    is_int(-EBADMSG, read_text(answer_with(NULL, NULL, good, old), &written, &seen), "a key that is newer than the answer is refused");
    char *huge = malloc(ETCD_ANSWER_MAX + 2);
    memset(huge, ' ', ETCD_ANSWER_MAX + 1);
    memcpy(huge, "{}", 2);
    huge[ETCD_ANSWER_MAX + 1] = 0;
    is_int(-EBADMSG, read_text(huge, &written, &seen), "an answer that is too long is refused");
    memset(huge, '[', ETCD_ANSWER_MAX);
    huge[ETCD_ANSWER_MAX] = 0;
    is_int(-EBADMSG, read_text(huge, &written, &seen), "so is one that is all depth");
    free(huge);
}

/* A good answer with bytes changed at random, and cut: read or refused, with a sentence, and nothing else. */
static void test_damaged_answers(uint64_t *state) {
    char held[ETCD_HOLDER_TEXT], text[12000];
    struct etcd_holder holder = some_holder(ETCD_HOLDER_FREE, "a", 5);
    struct etcd_seen seen;
    bool written;
    unsigned refused = 0, silent = 0;
    etcd_holder_print(&holder, held);
    const char *good = answer_with(NULL, NULL, encode(held, strlen(held)), NULL);
    size_t length = strlen(good);
    for (unsigned i = 0; i < 20000; i++) {
        memcpy(text, good, length);
        for (uint64_t changes = 1 + test_random(state) % 3; changes > 0; changes--)
            text[test_random(state) % length] = (char)test_random(state);
        why[0] = 0;
        size_t cut = test_random(state) % 4 ? length : test_random(state) % length;
        if (etcd_read_answer(&keys, text, cut, &written, &seen, why, sizeof why) != 0) {
            refused++;
            silent += !why[0];
        }
        etcd_read_watch(text, cut, why, sizeof why);
        etcd_read_refusal(500, text, cut, why, sizeof why);
    }
    ok(refused > 15000 && silent == 0, "damaged answers are refused with a sentence: %u of 20000", refused);
}

static void test_small_answers(void) {
    int64_t lease, ttl;
    char token[ETCD_TOKEN_MAX];
#define READ(function, text, ...) function(text, strlen(text), __VA_ARGS__, why, sizeof why)
    is_int(0, READ(etcd_read_grant, "{\"header\":{},\"ID\":\"12\",\"TTL\":\"2\"}", &lease, &ttl), "a lease is granted");
    ok(lease == 12 && ttl == 2, "as it says");
    is_int(-EBADMSG, READ(etcd_read_grant, "{\"ID\":\"0\",\"TTL\":\"2\"}", &lease, &ttl), "not one without a number");
    is_int(-EBADMSG, READ(etcd_read_grant, "{\"ID\":\"12\"}", &lease, &ttl), "or without a time");
    is_int(0, READ(etcd_read_keep_alive, "{\"result\":{\"ID\":\"12\",\"TTL\":\"2\"}}\n", 12, &ttl), "a lease is kept alive");
    is_int(2, ttl, "for a time");
    is_int(0, READ(etcd_read_keep_alive, "{\"result\":{\"ID\":\"12\"}}", 12, &ttl), "a lease that is gone");
    is_int(0, ttl, "has no time");
    is_int(-EBADMSG, READ(etcd_read_keep_alive, "{\"result\":{\"ID\":\"13\",\"TTL\":\"2\"}}", 12, &ttl), "another lease's answer");
    is_int(0, READ(etcd_read_login, "{\"token\":\"abc.12\"}", token), "a token");
    is_string("abc.12", token, "is told");
    is_int(-EBADMSG, READ(etcd_read_login, "{\"token\":\"abc\\r\\nX: y\"}", token), "one that would be a header is refused");
    is_int(-EBADMSG, READ(etcd_read_login, "{\"token\":5}", token), "so is a number");
    is_int(0, etcd_read_status("{\"header\":{},\"leader\":\"5\"}", 26, why, sizeof why), "a member knows its leader");
    is_int(-EAGAIN, etcd_read_status("{\"header\":{}}", 13, why, sizeof why), "or not");
    is_int(ETCD_WATCH_MADE, etcd_read_watch("{\"result\":{\"header\":{},\"created\":true}}", 39, why, sizeof why), "a watch begins");
    const char *line = "{\"result\":{\"header\":{},\"events\":[{}]}}";
    is_int(ETCD_WATCH_EVENTS, etcd_read_watch(line, strlen(line), why, sizeof why), "tells of a change");
    is_int(ETCD_WATCH_IDLE, etcd_read_watch("{\"result\":{\"header\":{}}}", 24, why, sizeof why), "or that it lives");
    line = "{\"result\":{\"header\":{},\"canceled\":true}}";
    is_int(ETCD_WATCH_ENDED, etcd_read_watch(line, strlen(line), why, sizeof why), "and ends");
    line = "{\"error\":{\"grpc_code\":14,\"http_code\":503,\"message\":\"no leader\"}}";
    is_int(ETCD_WATCH_ENDED, etcd_read_watch(line, strlen(line), why, sizeof why), "or fails");
    is_string("no leader", why, "with what it says");
    is_int(-EBADMSG, etcd_read_watch("{\"result\":5}", 12, why, sizeof why), "what is none is refused");
}

static void refusal(enum etcd_refusal expected, long status, const char *text) {
    is_int(expected, etcd_read_refusal(status, text, strlen(text), why, sizeof why), "HTTP status %ld: %s", status, text);
    ok(why[0] != 0, "in words: %s", why);
}

static void test_refusals(void) {
    refusal(ETCD_REFUSED_TOKEN, 401, "{\"error\":\"etcdserver: invalid auth token\",\"code\":16}");
    refusal(ETCD_REFUSED_TOKEN, 400, "{\"error\":\"x\",\"message\":\"etcdserver: user name is empty\",\"code\":3}");
    refusal(ETCD_REFUSED_TOKEN, 400, "{\"message\":\"etcdserver: revision of auth store is old\",\"code\":3}");
    refusal(ETCD_REFUSED_RIGHT, 403, "{\"message\":\"etcdserver: permission denied\",\"code\":7}");
    refusal(ETCD_REFUSED_RIGHT, 400, "{\"message\":\"etcdserver: authentication failed, invalid user ID or password\",\"code\":3}");
    refusal(ETCD_REFUSED_NO_USERS, 412, "{\"message\":\"etcdserver: authentication is not enabled\",\"code\":9}");
    refusal(ETCD_REFUSED_GONE, 404, "{\"message\":\"etcdserver: requested lease not found\",\"code\":5}");
    refusal(ETCD_REFUSED_REQUEST, 400, "{\"message\":\"unexpected EOF\",\"code\":3}");
    refusal(ETCD_REFUSED_NOW, 503, "{\"message\":\"etcdserver: request timed out\",\"code\":14}");
    refusal(ETCD_REFUSED_NOW, 500, "{\"message\":\"mvcc: database space exceeded\",\"code\":8}");
    refusal(ETCD_REFUSED_RUBBISH, 404, "Not Found\n");
    refusal(ETCD_REFUSED_RUBBISH, 302, "<html>");
    refusal(ETCD_REFUSED_RUBBISH, 500, "{\"message\":5}");
    refusal(ETCD_REFUSED_NOW, 500, "{\"message\":\"a\\u0007\\nb\",\"code\":2}");
    is_string("a\\x07\\x0ab", why, "what cannot be printed is escaped");
}

static void test_holders(void) {
    struct etcd_holder holder;
    const char *good[] = {"held a 5.3 0000000000000001", "free node-b.x 8388607.65535 ffffffffffffffff"};
    const char *bad[] = {"", "held", "held a 5.3 1", "hold a 5.3 0000000000000001", "held a 5.3 0000000000000001 ",
                         " held a 5.3 0000000000000001", "held  a 5.3 0000000000000001", "held a 05.3 0000000000000001",
                         "held a -5.3 0000000000000001", "held a 5.65536 0000000000000001", "held a 8388608.3 0000000000000001",
                         "held /a 5.3 0000000000000001", "held a 5.3 000000000000000G", "held a 5.3 0000000000000001\n"};
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++)
        is_int(0, etcd_holder_parse(good[i], strlen(good[i]), &holder), "a holder: %s", good[i]);
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        is_int(-EBADMSG, etcd_holder_parse(bad[i], strlen(bad[i]), &holder), "no holder: \"%s\"", bad[i]);
    is_int(-EBADMSG, etcd_holder_parse("held a 5.3 0000000000000001\0x", 29, &holder), "nor with a NUL");
}

/* ---- Rules ----------------------------------------------------------------------------------------------------------- */

static void test_rules(void) {
    const int64_t lease = 2 * SECOND, wait_all = etcd_absence_wait(lease);
    struct etcd_seen seen = {.revision = 9, .value = some_value("a", 5), .register_mod = 7};
    struct etcd_absence absence = {0};
    char holder[64];
    int64_t wait;
    ok(wait_all == lease + ask_margin(lease), "a challenger waits for the lease time and a margin");
    is_int(2, etcd_ttl(SECOND / 10), "etcd's leases have 2 s at least");
    is_int(2, etcd_ttl(4 * SECOND), "else half the lease time");
    is_int(3, etcd_ttl(4 * SECOND + 2), "rounded up");

    seen.holder = some_holder(ETCD_HOLDER_HELD, "a", 5);
    seen.holder_mod = 8;
    etcd_absence_note(&absence, &seen, 0);
    is_int(-EBUSY, etcd_let_in(&seen, &absence, "b", lease, 100 * SECOND, holder, &wait), "a holder's key keeps others out");
    is_string("a", holder, "by its name");
    is_int(0, etcd_let_in(&seen, &absence, "a", lease, 0, holder, &wait), "but not itself");

    seen.holder = (struct etcd_holder){0};
    seen.holder_mod = 0;
    is_int(-EBUSY, etcd_let_in(&seen, &absence, "b", lease, 100 * SECOND, holder, &wait), "a key that nobody knows to be gone");
    ok(wait == wait_all, "keeps others out for all of the time");
    etcd_absence_note(&absence, &seen, 100 * SECOND);
    is_int(-EBUSY, etcd_let_in(&seen, &absence, "b", lease, 100 * SECOND + wait_all - 1, holder, &wait), "one that is gone, for");
    is_int(1, wait, "what is left of it");
    etcd_absence_note(&absence, &seen, 100 * SECOND + wait_all);
    is_int(0, etcd_let_in(&seen, &absence, "b", lease, 100 * SECOND + wait_all, holder, &wait), "then others are let in");
    is_int(0, etcd_let_in(&seen, &absence, "a", lease, 100 * SECOND, holder, &wait), "the node that is named need not wait");

    seen.register_mod = 10; /* somebody was the holder in between, unseen */
    is_int(-EBUSY, etcd_let_in(&seen, &absence, "b", lease, 200 * SECOND, holder, &wait), "with another register it begins anew");
    etcd_absence_note(&absence, &seen, 200 * SECOND);
    is_int(-EBUSY, etcd_let_in(&seen, &absence, "b", lease, 200 * SECOND, holder, &wait), "also when that is known");

    seen.holder = some_holder(ETCD_HOLDER_FREE, "a", 5);
    is_int(0, etcd_let_in(&seen, &absence, "b", lease, 200 * SECOND, holder, &wait), "a lease that was given back: at once");
    seen.holder = some_holder(ETCD_HOLDER_FREE, "a", 4);
    is_int(-EBUSY, etcd_let_in(&seen, &absence, "b", lease, 200 * SECOND, holder, &wait), "but not one of an earlier epoch");
    seen.holder = some_holder(ETCD_HOLDER_FREE, "c", 5);
    is_int(-EBUSY, etcd_let_in(&seen, &absence, "b", lease, 200 * SECOND, holder, &wait), "or of another node");

    seen.holder = some_holder(ETCD_HOLDER_HELD, "a", 5);
    struct register_value next = seen.value;
    next.version++;
    is_int(0, etcd_may_change(&seen, &absence, "a", &next, lease, 0), "a holder changes the set");
    is_int(-EBUSY, etcd_may_change(&seen, &absence, "b", &next, lease, 0), "nobody else does, while it holds");
    seen.value.primary[0] = 0;
    seen.holder = (struct etcd_holder){0};
    is_int(0, etcd_let_in(&seen, &absence, "b", lease, 0, holder, &wait), "where nobody is primary nobody holds");
    for (uint32_t ms = 100; ms <= 600000; ms = ms * 3 / 2) {
        int64_t each = etcd_interval((int64_t)ms * 1000000);
        if (each <= 0 || each > (int64_t)ms * 500000)
            ok(false, "renewals of %u ms are %" PRId64 " ns apart", ms, each);
    }
}

int main(void) {
    uint64_t state = test_seed();
    plan_lazy();
    test_keys();
    test_requests();
    test_answers();
    test_damaged_answers(&state);
    test_small_answers();
    test_refusals();
    test_holders();
    test_rules();
    return 0;
}
