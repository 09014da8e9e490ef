/* baton status: the lease, the last takeover, and in words why a node is not primary or not in sync. */
#include "tools/status_parts.h"

#include <inttypes.h>
#include <stdio.h>

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "?";
}

static void show_voters(const json_t *voters) {
    size_t i, listed = 0, answering = 0;
    json_t *voter;
    json_array_foreach(voters, i, voter) {
        listed += json_is_true(json_object_get(voter, "listed"));
        answering += json_is_true(json_object_get(voter, "listed")) && json_is_true(json_object_get(voter, "answers"));
    }
    if (listed == 0)
        return;
    printf("; %zu of %zu voters answer", answering, listed);
    const char *between = ", not ";
    json_array_foreach(voters, i, voter) {
        if (!json_is_true(json_object_get(voter, "listed")) || json_is_true(json_object_get(voter, "answers")))
            continue;
        printf("%s%s", between, text_of(voter, "name"));
        between = " and ";
    }
}

void status_lease(const json_t *replication) {
    const json_t *lease = json_object_get(replication, "lease");
    if (lease == NULL)
        return;
    if (json_is_true(json_object_get(lease, "held")))
        printf("  lease     held here for %" PRId64 " ms more", (int64_t)json_integer_value(json_object_get(lease, "left_ms")));
    else
        fputs("  lease     not held here", stdout);
    show_voters(json_object_get(lease, "voters"));
    putchar('\n');
}

void status_takeover(const json_t *replication) {
    const json_t *takeover = json_object_get(replication, "takeover"), *phases = json_object_get(takeover, "phases");
    char age[32];
    const char *name;
    json_t *ms;
    if (takeover == NULL)
        return;
    age_text(clock_now() - (int64_t)json_integer_value(json_object_get(takeover, "time")), age, sizeof age);
    printf("  takeover  %s ago", age);
    if (json_object_get(takeover, "how") != NULL)
        printf(" (%s)", text_of(takeover, "how"));
    printf(": %" PRId64 " ms", (int64_t)json_integer_value(json_object_get(takeover, "total_ms")));
    const char *between = ", of them ";
    json_object_foreach((json_t *)phases, name, ms) {
        printf("%s%s %" PRId64, between, name, (int64_t)json_integer_value(ms));
        between = ", ";
    }
    putchar('\n');
}

void status_exports(const json_t *exports) {
    size_t i;
    json_t *one;
    json_array_foreach(exports, i, one) {
        const char *why = json_string_value(json_object_get(one, "why"));
        json_int_t restarts = json_integer_value(json_object_get(one, "restarts"));
        bool address = strcmp(text_of(one, "type"), "address") == 0;
        printf("  %-9s %s%s%s%s", address ? "address" : i == 0 ? "exports" : "", text_of(one, "name"), address ? ": " : " ",
               address && strcmp(text_of(one, "state"), "off") == 0 ? "not here" : text_of(one, "state"), why != NULL ? ": " : "");
        if (why != NULL)
            printf("%s", why);
        if (restarts > 0)
            printf(" (started again %" JSON_INTEGER_FORMAT " times)", restarts);
        putchar('\n');
    }
}

static unsigned list(const json_t *sentences) {
    size_t i;
    json_t *sentence;
    json_array_foreach(sentences, i, sentence)
        printf("  %s\n", json_string_value(sentence) != NULL ? json_string_value(sentence) : "?");
    return (unsigned)json_array_size(sentences);
}

void status_why(const json_t *answer) {
    const json_t *replication = json_object_get(answer, "replication");
    const json_t *register_now = json_object_get(replication, "register");
    const char *node = text_of(answer, "node"), *trouble = json_string_value(json_object_get(replication, "trouble"));
    bool primary = strcmp(text_of(answer, "role"), "primary") == 0;
    size_t i;
    json_t *peer;
    if (replication == NULL) {
        printf("Node %s is primary: volume %s has no other node.\n", node, text_of(answer, "volume"));
        return;
    }
    if (primary)
        printf("Node %s is primary.\n", node);
    else
        printf("Node %s is not primary:\n", node);
    if (list(json_object_get(json_object_get(replication, "election"), "why")) == 0 && !primary) {
        const char *other = json_string_value(json_object_get(register_now, "primary"));
        if (other != NULL && *other != '\0' && strcmp(other, node) != 0)
            printf("  node %s is primary, as far as this node knows\n", other);
        else
            puts("  no node is primary, as far as this node knows; \"baton promote\" makes one");
    }
    if (json_is_true(json_object_get(json_object_get(replication, "election"), "stays")))
        printf("  it is kept as standby as long as another node can be primary, until \"baton standby --end\"\n");
    const char *failed = json_string_value(json_object_get(replication, "exports_failed"));
    if (failed != NULL)
        printf("  when it was primary last, %s: other nodes go first, until it is started again or serves again\n", failed);
    if (trouble != NULL)
        printf("  %s\n", trouble);
    if (!primary)
        printf("Node %s is %s.\n", node,
               json_is_true(json_object_get(replication, "in_set")) ? "in the in-sync set"
                                                                    : "not in the in-sync set: it may lack what was acknowledged "
                                                                      "since it was");
    json_array_foreach(json_object_get(replication, "peers"), i, peer) {
        bool in_set = json_is_true(json_object_get(peer, "in_set")), connected = json_is_true(json_object_get(peer, "connected"));
        const char *why = json_string_value(json_object_get(peer, "why"));
        if (in_set && connected)
            printf("Node %s is in sync.\n", text_of(peer, "node"));
        else
            printf("Node %s is %s%s%s.\n", text_of(peer, "node"),
                   in_set ? "in the in-sync set, and away" : connected ? "connected, not in sync yet" : "not in sync, and away",
                   why != NULL ? ": " : "", why != NULL ? why : "");
    }
    const json_t *voters = json_object_get(json_object_get(replication, "lease"), "voters");
    json_array_foreach(voters, i, peer) {
        const char *why = json_string_value(json_object_get(peer, "why"));
        if (!json_is_true(json_object_get(peer, "answers")) || (why != NULL && *why != '\0'))
            printf("Voter %s %s%s%s.\n", text_of(peer, "name"),
                   json_is_true(json_object_get(peer, "answers")) ? "answers" : "does not answer",
                   why != NULL && *why != '\0' ? ": " : "", why != NULL ? why : "");
    }
}
