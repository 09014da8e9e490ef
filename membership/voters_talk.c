/* The thread that has the sockets: a DEALER to each voter that is asked anything, dialled when it is asked first. A round is
 * sent to its seats, and again to those that have not answered; an answer counts for the round, or the renewal, whose number it
 * carries, once, if that was sent to the voter from whose connection it came.
 *
 * A connection on which nothing comes back is given up for a new one: TCP waits longer and longer before it tries a line again
 * that was cut, and what a voter that hung finds waiting for it should be of now. How long that takes bounds nothing: ZeroMQ
 * gives up by itself what is not received in time (ZMQ_TCP_MAXRT) and dials once a second, so a voter is reached about two
 * seconds after it has come back, at most, also when the patience of dial() has grown (cut off, stopped, killed for 3 to 33 s:
 * 0.1 to 2.1 s).
 */
#include "membership/voters_parts.h"

#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <zmq.h>

#define PAUSE_LEAST (30 * MS) /* before a question is sent again; doubled each time */
#define PAUSE_FIRST_MOST (250 * MS)
#define PAUSE_MOST (500 * MS)
#define REDIAL_LEAST (1000 * MS)
#define REDIALS_LONGER 3u /* each of so many waits twice as long */
#define GLANCE_AGAIN (2000 * MS)
#define ANSWERS_AT_ONCE 64u
#define MESSAGES_WAITING 64

/* ---- Sockets --------------------------------------------------------------------------------------------------------- */

static void set_int(void *socket, int option, int value) {
    PROMISE(zmq_setsockopt(socket, option, &value, sizeof value) == 0);
}

void *voters_dial(const struct config *config, const struct node_config *self, const char *secret, void *context,
                  const struct node_config *to) {
    char at[VOTER_ADDRESS] = "", via[VOTER_ADDRESS + 80], host[64];
    uint16_t ignored;
    bool six = strchr(to->address, '[') != NULL, own_six = strchr(self->address, '[') != NULL;
    int64_t duration = (int64_t)config->lease_ms * MS;
    bool secured = config->transport == TRANSPORT_CURVE;
    void *socket = zmq_socket(context, ZMQ_DEALER);
    if (!socket) {
        log_error("no socket for the voter %s: %s", to->name, zmq_strerror(errno));
        return NULL;
    }
    int64_t most = ASK_BYTES;
    PROMISE(zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof most) == 0);
    set_int(socket, ZMQ_LINGER, 0);
    set_int(socket, ZMQ_IMMEDIATE, 1); /* nothing piles up for a voter that is away */
    set_int(socket, ZMQ_SNDHWM, MESSAGES_WAITING);
    set_int(socket, ZMQ_RCVHWM, MESSAGES_WAITING);
    set_int(socket, ZMQ_IPV6, six);
    /* No heartbeats of ZeroMQ's: see replication/link.c. */
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, VOTER_KEEPALIVE_S);
    set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, 2);
    set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, 4);
    set_int(socket, ZMQ_TCP_MAXRT, (int)(MAX(duration, 2000 * MS) / MS));
    set_int(socket, ZMQ_CONNECT_TIMEOUT, 1000);
    set_int(socket, ZMQ_HANDSHAKE_IVL, 3000);
    set_int(socket, ZMQ_RECONNECT_IVL, 50);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, 200);
    int rc = 0;
    if (secured)
        rc = zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, to->public_key, KEY_TEXT) < 0 ||
             zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, self->public_key, KEY_TEXT) < 0 ||
             zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret, KEY_TEXT) < 0;
    if (voter_address(config, to->name, at) != 0)
        rc = -1;
    /* From the address that the other end expects. */
    if (!secured && six == own_six && config_address(self->address, host, &ignored) == 0)
        snprintf(via, sizeof via, six ? "tcp://[%s]:0;%s" : "tcp://%s:0;%s", host, at + strlen("tcp://"));
    else
        snprintf(via, sizeof via, "%s", at);
    if (rc || zmq_connect(socket, via) < 0) {
        log_error("the voter %s cannot be dialled at %s: %s", to->name, via, zmq_strerror(errno));
        zmq_close(socket);
        return NULL;
    }
    return socket;
}

static void hang_up(struct seat *seat) {
    if (seat->socket)
        zmq_close(seat->socket);
    seat->socket = NULL;
}

static void dial(struct voters *v, struct seat *seat, int64_t now) {
    int64_t patience = MAX(v->duration / 2, REDIAL_LEAST) << MIN(seat->redials, REDIALS_LONGER);
    if (seat->socket && seat->silent_since != INT64_MAX && now - MAX(seat->silent_since, seat->dialled) > patience) {
        hang_up(seat);
        seat->redials++;
    }
    if (!seat->socket && (seat->dialled == INT64_MIN || now - seat->dialled > PAUSE_FIRST_MOST)) {
        seat->socket = voters_dial(v->config, v->self, v->secret, v->context, seat->at);
        seat->dialled = now;
    }
}

static void send_to(struct voters *v, unsigned number, const struct ask_question *question, int64_t now) {
    uint8_t bytes[ASK_BYTES];
    struct seat *seat = &v->seats[number];
    if ((int)number == v->own) { /* when the lock is given back; what has no room is sent again */
        if (v->own_count < OWN_QUESTIONS)
            v->own_questions[v->own_count++] = *question;
        return;
    }
    dial(v, seat, now);
    size_t length = ask_encode_question(question, bytes);
    if (seat->silent_since == INT64_MAX)
        seat->silent_since = now;
    seat->missed = !seat->socket || zmq_send(seat->socket, bytes, length, ZMQ_DONTWAIT) < 0;
}

/* ---- Rounds ---------------------------------------------------------------------------------------------------------- */

int seat_named(const struct voters *v, const char *name) {
    for (unsigned i = 0; i < v->seat_count; i++)
        if (strcmp(v->seats[i].name, name) == 0)
            return (int)i;
    return -1;
}

unsigned seats_of(const struct voters *v, const struct register_voter *voters, unsigned count) {
    unsigned seats = 0;
    for (unsigned i = 0; i < count; i++) {
        int seat = seat_named(v, voters[i].name);
        if (seat >= 0)
            seats |= 1u << seat;
    }
    return seats;
}

static void fill_head(struct voters *v, struct ask_question *question) {
    memcpy(question->volume, v->config->volume_id, sizeof question->volume);
    snprintf(question->from, sizeof question->from, "%s", v->self->name);
    question->number = v->number++;
}

void round_begin(struct voters *v, struct round *round, unsigned to) {
    fill_head(v, &round->question);
    round->to = round->fresh = to;
    round->answered = 0;
    round->pause = MIN(MAX(v->duration / 16, PAUSE_LEAST), PAUSE_FIRST_MOST);
    round->due = clock_boot() + round->pause; /* the first time it goes as `fresh` */
    round->until = INT64_MAX;
    round->next = v->rounds;
    v->rounds = round;
    asker_kick(v);
}

void round_more(struct voters *v, struct round *round, unsigned to) {
    unsigned more = to & ~round->to;
    round->to |= more;
    round->fresh |= more;
    if (more)
        asker_kick(v);
}

void round_end(struct voters *v, struct round *round) {
    for (struct round **at = &v->rounds; *at; at = &(*at)->next)
        if (*at == round) {
            *at = round->next;
            return;
        }
}

static int64_t send_round(struct voters *v, struct round *round, unsigned ready, int64_t now) {
    unsigned open = round->to & ~round->answered, send = open & (now >= round->due ? open : ready | round->fresh);
    for (unsigned i = 0; i < v->seat_count; i++) {
        if (!(send & 1u << i))
            continue;
        v->seats[i].unanswered += (round->fresh & 1u << i) != 0;
        send_to(v, i, &round->question, now);
    }
    round->fresh &= ~send;
    if (now >= round->due) {
        round->due = now + round->pause;
        round->pause = MIN(2 * round->pause, PAUSE_MOST);
    }
    return open ? MIN(round->due, round->until) : round->until;
}

static int64_t send_rounds(struct voters *v, unsigned ready, int64_t now) {
    int64_t next = INT64_MAX;
    for (struct round *round = v->rounds, *following; round; round = following) {
        following = round->next;
        bool over = now >= round->until || (round->until != INT64_MAX && !(round->to & ~round->answered));
        if (over)
            round_end(v, round);
        else
            next = MIN(next, send_round(v, round, ready, now));
    }
    return next;
}

/* ---- Renewals -------------------------------------------------------------------------------------------------------- */

static void send_renewal(struct voters *v, unsigned to, int64_t now) {
    struct ask_question question = {.type = ASK_RENEW, .epoch = v->holding.lease.epoch, .session = v->holding.lease.session,
                                    .lease_ms = v->config->lease_ms};
    fill_head(v, &question);
    holding_renewal(v, question.number, now);
    for (unsigned i = 0; i < v->seat_count; i++)
        if (to & 1u << i) {
            v->seats[i].unanswered++;
            send_to(v, i, &question, now);
        }
}

/* `fit`: what the watch said, if it was asked. */
static int64_t renew(struct voters *v, bool asked, bool fit, unsigned ready, int64_t now) {
    struct holding *holding = &v->holding;
    if (!holding->asked)
        return INT64_MAX;
    if (asked) {
        holding->unfit = !fit;
        holding->next_renewal = now + holding_pause(v);
    }
    if (!holding->unfit && (asked || (holding_seats(v) & ready)))
        send_renewal(v, holding_seats(v) & (asked ? ~0u : ready), now);
    return holding->held ? MIN(holding->next_renewal, atomic_load(&v->shared->until)) : holding->next_renewal;
}

/* A voter that has not answered is asked on when nobody waits for it any more: when it is needed next, in a failover, its
 * connection is a good one, and need not be given up first. Returns when to look again. */
static int64_t glance_at_silent(struct voters *v, int64_t now) {
    unsigned silent = 0;
    for (unsigned i = 0; i < v->seat_count; i++)
        silent |= (int)i != v->own && v->seats[i].silent_since != INT64_MAX ? 1u << i : 0;
    if (!silent || v->stopping)
        return INT64_MAX;
    if (now >= v->glance_again && now >= v->glance.until) {
        v->glance_again = now + MAX(v->duration, GLANCE_AGAIN);
        voters_glance(v, silent);
    }
    return MAX(v->glance_again, v->glance.until);
}

static void own_answered(void *context, const struct ask_answer *answer) {
    struct voters *v = context;
    asker_answer(v, (unsigned)v->own, answer);
}

/* Without the lock: it may answer before it returns. The questions are the talker's. */
static void ask_own(struct voters *v) {
    for (unsigned i = 0; i < v->own_count; i++)
        if (voter_host_ask(v->host, &v->own_questions[i], own_answered, v) != 0)
            log_debug("too many questions wait for the disk of this node's voter; they are asked again");
    v->own_count = 0;
}

/* Sends what is due. Returns when something will be. */
static int64_t step(struct voters *v, unsigned ready) {
    bool fit = true;
    voters_lock(v);
    int64_t now = clock_boot();
    holding_look(v, now);
    bool due = v->holding.asked && now >= v->holding.next_renewal;
    voters_unlock(v);
    if (due && v->watch.fit)
        fit = v->watch.fit(v->watch.context);
    voters_lock(v);
    now = clock_boot(); /* that took time; the lease counts from here, before the sending */
    holding_look(v, now);
    int64_t next = renew(v, due, fit, ready, now);
    next = MIN(next, glance_at_silent(v, now));
    next = MIN(next, send_rounds(v, ready, now));
    voters_unlock(v);
    ask_own(v);
    return next;
}

/* ---- Answers --------------------------------------------------------------------------------------------------------- */

static const char *words_of(const struct voters *v, const struct ask_answer *answer, char text[128]) {
    const struct voter_answer *given = &answer->answer;
    switch (answer->status) {
    case ASK_UNKNOWN:
        return "it does not serve this volume, or does not know this node: see its config and log";
    case ASK_FAILED:
        snprintf(text, 128, "its state cannot be read or written: %.80s", answer->why);
        return text;
    default:
        break;
    }
    if (given->verdict == VOTER_HELD) {
        snprintf(text, 128, "it has granted the lease to %s", given->holder[0] ? given->holder : "somebody else");
        return text;
    }
    if (given->verdict == VOTER_QUIET)
        return "it has started, or become a voter, a moment ago, and waits for as long as a lease that it forgot could last";
    if (answer->type == ASK_RENEW && given->verdict == VOTER_STALE && v->holding.asked)
        return "the value that it has accepted names another primary, or an earlier epoch";
    return "";
}

static void note_voice(const struct voters *v, struct seat *seat, const struct ask_answer *answer, int64_t now) {
    char text[128];
    seat->heard = now;
    seat->silent_since = INT64_MAX;
    seat->unanswered = seat->redials = 0;
    seat->status = answer->status;
    if (answer->status == ASK_ANSWERED) {
        seat->verdict = answer->answer.verdict;
        memcpy(seat->id, answer->answer.id, sizeof seat->id);
        memcpy(seat->holder, answer->answer.holder, sizeof seat->holder);
        seat->free_at = now + answer->answer.wait;
    }
    snprintf(seat->why, sizeof seat->why, "%s", words_of(v, answer, text));
}

static bool is_renewal(const struct voters *v, uint64_t number) {
    for (unsigned i = 0; i < RENEWALS; i++)
        if (v->holding.renewals[i].number == number && v->holding.renewals[i].sent != INT64_MIN)
            return true;
    return false;
}

static struct round *round_asked(const struct voters *v, unsigned seat, const struct ask_answer *answer) {
    for (struct round *round = v->rounds; round; round = round->next)
        if (round->question.number == answer->number)
            return round->question.type == answer->type && (round->to & ~round->answered & 1u << seat) ? round : NULL;
    return NULL;
}

void asker_answer(struct voters *v, unsigned seat_number, const struct ask_answer *answer) {
    struct seat *seat = &v->seats[seat_number];
    if (memcmp(answer->volume, v->config->volume_id, sizeof answer->volume) != 0 ||
        (answer->status == ASK_ANSWERED && strcmp(answer->voter, seat->name) != 0))
        return;
    voters_lock(v);
    int64_t now = clock_boot();
    struct round *round = round_asked(v, seat_number, answer);
    bool renewal = answer->type == ASK_RENEW && is_renewal(v, answer->number);
    if (round || renewal) {
        const struct voter_answer *given = &answer->answer;
        note_voice(v, seat, answer, now);
        if (answer->status == ASK_ANSWERED) { /* else it is asked again */
            if (ballot_compare(given->promised, v->seen) > 0)
                v->seen = given->promised;
            voters_note(v, &given->known, true);
            if (renewal && given->verdict == VOTER_YES)
                holding_granted(v, seat->name, given->id, answer->number, now);
            if (round) {
                round->answered |= 1u << seat_number;
                if (round->answer)
                    round->answer(round, seat_number, answer);
            }
        }
        PROMISE(pthread_cond_broadcast(&v->changed) == 0);
    }
    voters_unlock(v);
}

static void take_in(struct voters *v, unsigned seat) {
    uint8_t bytes[ASK_BYTES];
    struct ask_answer answer;
    for (unsigned i = 0; i < ANSWERS_AT_ONCE; i++) {
        int n = zmq_recv(v->seats[seat].socket, bytes, sizeof bytes, ZMQ_DONTWAIT), more = 0;
        if (n < 0)
            return;
        bool whole = (size_t)n <= sizeof bytes;
        size_t size = sizeof more;
        while (zmq_getsockopt(v->seats[seat].socket, ZMQ_RCVMORE, &more, &size) == 0 && more) {
            whole = false;
            if (zmq_recv(v->seats[seat].socket, bytes, sizeof bytes, ZMQ_DONTWAIT) < 0)
                return;
        }
        if (whole && ask_decode_answer(bytes, (size_t)n, &answer) == 0)
            asker_answer(v, seat, &answer);
    }
}

/* ---- The thread ------------------------------------------------------------------------------------------------------ */

void asker_kick(struct voters *v) {
    uint64_t one = 1;
    ssize_t n = write(v->wake, &one, sizeof one);
    PROMISE(n == sizeof one || errno == EAGAIN); /* EAGAIN: it has been kicked often enough */
}

/* Waits, and takes in what has come. Returns the seats to which something can be sent now that could not before. */
static unsigned wait_for_answers(struct voters *v, int64_t until) {
    zmq_pollitem_t items[SEATS_MAX + 1] = {{.fd = v->wake, .events = ZMQ_POLLIN}};
    unsigned of[SEATS_MAX + 1], count = 1, ready = 0;
    for (unsigned i = 0; i < v->seat_count; i++) {
        const struct seat *seat = &v->seats[i];
        if (!seat->socket)
            continue;
        items[count] = (zmq_pollitem_t){.socket = seat->socket, .events = (short)(ZMQ_POLLIN | (seat->missed ? ZMQ_POLLOUT : 0))};
        of[count++] = i;
    }
    int64_t left = until == INT64_MAX ? -1 : MAX(until - clock_boot(), 0);
    int rc = zmq_poll(items, (int)count, left < 0 ? -1 : (long)MIN((left + MS - 1) / MS, 60000));
    if (rc <= 0)
        return 0;
    uint64_t kicks;
    if (items[0].revents & ZMQ_POLLIN)
        PROMISE(read(v->wake, &kicks, sizeof kicks) == sizeof kicks || errno == EAGAIN);
    for (unsigned i = 1; i < count; i++) {
        if (items[i].revents & ZMQ_POLLIN)
            take_in(v, of[i]);
        if (items[i].revents & ZMQ_POLLOUT) {
            v->seats[of[i]].missed = false;
            ready |= 1u << of[i];
        }
    }
    return ready;
}

static void *talk(void *argument) {
    struct voters *v = argument;
    unsigned ready = 0;
    for (;;) {
        int64_t next = step(v, ready);
        voters_lock(v);
        bool ended = v->ended;
        voters_unlock(v);
        if (ended)
            break;
        ready = wait_for_answers(v, next);
    }
    for (unsigned i = 0; i < v->seat_count; i++)
        hang_up(&v->seats[i]);
    return NULL;
}

void asker_start(struct voters *v) {
    v->context = zmq_ctx_new();
    v->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    PROMISE(v->context && v->wake >= 0);
    PROMISE(pthread_create(&v->talker, NULL, talk, v) == 0);
    pthread_setname_np(v->talker, "voters");
}

void asker_stop(struct voters *v) {
    asker_kick(v);
    PROMISE(pthread_join(v->talker, NULL) == 0);
    while (zmq_ctx_term(v->context) < 0 && errno == EINTR)
        ;
    close(v->wake);
}
