#include "replication/follow.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

static void enter(struct follow *follow, enum follow_state state, int64_t now) {
    follow->state = state;
    follow->since = now;
}

void follow_start(struct follow *follow, int64_t patience, int64_t now) {
    *follow = (struct follow){.patience = patience};
    snprintf(follow->why, sizeof follow->why, "no primary has answered yet");
    enter(follow, FOLLOW_SEARCHING, now);
}

void follow_stop(struct follow *follow) {
    *follow = (struct follow){.state = FOLLOW_IDLE};
}

bool follow_primary(struct follow *follow, unsigned node, epoch_t epoch, int64_t now) {
    switch (follow->state) {
    case FOLLOW_SEARCHING:
        return true;
    case FOLLOW_LOGIN:
    case FOLLOW_STREAMING:
    case FOLLOW_REFUSED:
        if (node != follow->primary && epoch > follow->epoch) {
            follow_end(follow, now, "another node became primary");
            return true;
        }
        /* The same node in a new epoch: what it streamed before is void until a login says how it fits. */
        if (node == follow->primary && epoch > follow->epoch) {
            follow_end(follow, now, "the primary began a new epoch");
            return true;
        }
        return follow->state == FOLLOW_REFUSED && now - follow->since >= FOLLOW_REFUSED_AGAIN;
    case FOLLOW_IDLE:
        break;
    }
    return false;
}

void follow_login(struct follow *follow, unsigned node, epoch_t epoch, uint64_t session, uint64_t next, int64_t now) {
    PROMISE(follow->state != FOLLOW_IDLE && session);
    follow->primary = node;
    follow->epoch = epoch;
    follow->session = session;
    follow->next = next;
    follow->want = 0;
    follow->taking = false;
    follow->behind = 0;
    follow->verdict = 0; /* what was said in an older session, of another history perhaps */
    follow->heard = now;
    follow->login_sent = now;
    enter(follow, FOLLOW_LOGIN, now);
}

int follow_answer(struct follow *follow, unsigned node, uint64_t session, const struct wire_answer *answer,
                  int64_t now) {
    if (!follow_heard(follow, node, session, now))
        return -ESTALE;
    if (follow->state != FOLLOW_LOGIN)
        return 0; /* the answer to a repeated login */
    if (answer->verdict == VERDICT_STREAM) {
        follow->why[0] = 0;
        enter(follow, FOLLOW_STREAMING, now);
    } else if (answer->verdict == VERDICT_NOT_PRIMARY) {
        follow_end(follow, now, "%s", answer->text);
    } else {
        follow->verdict = answer->verdict;
        follow->fork = answer->fork;
        memcpy(follow->fork_chain, answer->fork_chain, CHAIN_SIZE);
        snprintf(follow->why, sizeof follow->why, "%s", answer->text);
        follow->session = 0;
        enter(follow, FOLLOW_REFUSED, now);
    }
    return 0;
}

int follow_records(struct follow *follow, uint64_t session, epoch_t epoch, const struct wire_records *records,
                   uint32_t *skip, int64_t now) {
    if ((follow->state != FOLLOW_LOGIN && follow->state != FOLLOW_STREAMING) || follow->session != session)
        return -ESTALE;
    if (epoch != follow->epoch) {
        follow_end(follow, now, "records of another epoch came");
        return -EPIPE;
    }
    if (follow->state == FOLLOW_LOGIN) { /* its answer travels on another socket */
        follow->why[0] = 0;
        enter(follow, FOLLOW_STREAMING, now);
    }
    follow->heard = now;
    if (records->first > follow->next) { /* a frame without records names the next one to come: it shows a gap as well */
        follow_end(follow, now, "records from LSN %" PRIu64 " were lost on the way", follow->next);
        return -EPIPE;
    }
    *skip = (uint32_t)MIN(follow->next - MIN(records->first, follow->next), records->count);
    follow->want = MAX(follow->want, records->want);
    follow->taking = records->count > 0;
    return 0;
}

void follow_received(struct follow *follow, uint64_t lsn, bool end) {
    follow->next = MAX(follow->next, lsn + 1);
    follow->taking = !end;
}

bool follow_heard(struct follow *follow, unsigned node, uint64_t session, int64_t now) {
    if ((follow->state != FOLLOW_LOGIN && follow->state != FOLLOW_STREAMING) || follow->session != session ||
        follow->primary != node)
        return false;
    follow->heard = now;
    return true;
}

void follow_behind(struct follow *follow, uint64_t lsn, int64_t now) {
    if (follow->state != FOLLOW_STREAMING || lsn < follow->next || follow->taking) {
        follow->behind = 0;
    } else if (follow->behind != follow->next) {
        follow->behind = follow->next;
        follow->behind_since = now;
        if (follow->behind_in_vain != follow->next)
            follow->behind_patience = FOLLOW_BEHIND_MAX;
    } else if (now - follow->behind_since > follow->behind_patience) {
        follow->behind = 0;
        follow->behind_in_vain = follow->next;
        follow->behind_patience = MIN(2 * follow->behind_patience, FOLLOW_BEHIND_MOST);
        follow_end(follow, now, "records from LSN %" PRIu64 " do not come", follow->next);
    }
}

void follow_end(struct follow *follow, int64_t now, const char *format, ...) {
    va_list arguments;
    char why[WIRE_TEXT];
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    memcpy(follow->why, why, sizeof why);
    follow->session = 0;
    enter(follow, FOLLOW_SEARCHING, now);
}

enum follow_todo follow_tick(struct follow *follow, int64_t now) {
    switch (follow->state) {
    case FOLLOW_LOGIN:
    case FOLLOW_STREAMING:
        if (now - follow->heard > follow->patience) {
            follow_end(follow, now, "the primary was silent for %" PRId64 " ms", (now - follow->heard) / 1000000);
            return FOLLOW_ASK;
        }
        if (follow->state == FOLLOW_LOGIN && now - follow->login_sent >= FOLLOW_LOGIN_EVERY) {
            follow->login_sent = now;
            return FOLLOW_SEND_LOGIN;
        }
        return FOLLOW_NOTHING;
    case FOLLOW_SEARCHING:
    case FOLLOW_REFUSED:
        return FOLLOW_ASK;
    case FOLLOW_IDLE:
        break;
    }
    return FOLLOW_NOTHING;
}

const char *follow_state_name(enum follow_state state) {
    static const char *const names[] = {"idle", "searching", "login", "streaming", "refused"};
    return names[state];
}
