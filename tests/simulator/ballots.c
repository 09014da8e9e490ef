/* Questions and answers between nodes and voters: the few calls of ZeroMQ that membership/ makes, and
 * membership/voter_door.h.
 *
 * A message is on its way for a while of its own, so that messages overtake each other, as they do over connections that
 * break and are made again; it may get lost, or come twice. A cut line loses it, or holds it back until it is mended. What
 * has come to a process that stands still waits there.
 */
#include "membership/voter_door.h"
#include "tests/simulator/voting.h"

#include <pthread.h>
#include <stdio.h>

#define INBOX 256u /* more are lost */
#define HELD_AGAIN (20 * SIM_MS)
#define CONNECT_LOW (1 * SIM_MS)
#define CONNECT_HIGH (100 * SIM_MS)

struct letter {
    struct letter *next;
    unsigned from, to; /* places */
    bool answer;
    uint64_t dealer;   /* whose question it is */
    size_t length;
    uint8_t bytes[];
};

struct mailbox {
    const void *tag; /* &the_tag: no socket of link.c's begins like that */
    struct mailbox *next;
    bool closed, connected;
    bool is_door;
    unsigned place, peer; /* peer: of a dialled one */
    uint64_t number;
    struct letter *first, **end;
    unsigned count;
    struct fiber *waiter;
};

struct door {
    struct mailbox *box;
    struct desk *desk;
    int wake;
    atomic_bool stop;
    pthread_t thread;
};

static const char the_tag;
static struct mailbox *boxes; /* that are not closed */
static uint64_t next_number;
static bool cuts[SIM_PLACES][SIM_PLACES];
static int64_t slow[SIM_PLACES][SIM_PLACES];
static unsigned loss_one_in, late_one_in;

void ballots_begin(void) {
    loss_one_in = sim_chance(3) ? 0 : 4u << sim_below(6);
    late_one_in = sim_chance(3) ? 0 : 4u << sim_below(6);
}

void ballots_trouble(unsigned loss, unsigned lateness) {
    loss_one_in = loss;
    late_one_in = lateness;
}

void ballots_cut(unsigned from, unsigned to, bool cut) {
    cuts[from][to] = cut;
}

void ballots_slow(unsigned from, unsigned to, int64_t ns) {
    slow[from][to] = ns;
}

/* ---- Boxes ----------------------------------------------------------------------------------------------------------- */

static struct mailbox *box_make(bool is_door, unsigned peer) {
    struct mailbox *box = sim_alloc(sizeof *box);
    *box = (struct mailbox){.tag = &the_tag, .next = boxes, .is_door = is_door, .place = sim_node_here(), .peer = peer,
                            .number = ++next_number, .end = &box->first};
    boxes = box;
    return box;
}

static void box_close(struct mailbox *box) {
    struct mailbox **at = &boxes;
    while (*at != box)
        at = &(*at)->next;
    *at = box->next;
    box->closed = true;
    for (struct letter *letter = box->first, *next; letter; letter = next) {
        next = letter->next;
        sim_free(letter);
    }
    box->first = NULL;
}

static struct mailbox *door_at(unsigned place) {
    struct mailbox *box = boxes;
    while (box && !(box->is_door && box->place == place))
        box = box->next;
    return box;
}

static struct mailbox *dealer_of(uint64_t number) {
    struct mailbox *box = boxes;
    while (box && box->number != number)
        box = box->next;
    return box;
}

static void box_wake(struct mailbox *box) {
    struct fiber *waiter = box->waiter;
    box->waiter = NULL;
    sim_wake(waiter);
}

static struct letter *box_take(struct mailbox *box) {
    struct letter *letter = box->first;
    if (!letter)
        return NULL;
    box->first = letter->next;
    box->count--;
    if (!box->first)
        box->end = &box->first;
    return letter;
}

bool mailbox_is(const void *socket) {
    return socket && *(const void *const *)socket == &the_tag;
}

bool mailbox_ready(const void *socket, short events, short *found) {
    const struct mailbox *box = socket;
    *found = (short)((box->first ? ZMQ_POLLIN : 0) | (box->connected ? ZMQ_POLLOUT : 0));
    *found &= events;
    return *found != 0;
}

void mailbox_wait(void *socket, struct fiber *fiber) {
    ((struct mailbox *)socket)->waiter = fiber;
}

/* ---- Connections ----------------------------------------------------------------------------------------------------- */

static void connect_later(struct mailbox *box);

static void try_to_connect(void *argument, uint64_t nothing) {
    struct mailbox *box = argument;
    (void)nothing;
    if (box->closed || box->connected)
        return;
    if (!door_at(box->peer) || cuts[box->place][box->peer] || cuts[box->peer][box->place]) {
        connect_later(box);
        return;
    }
    box->connected = true;
    box_wake(box);
}

static void connect_later(struct mailbox *box) {
    sim_at(sim_now() + sim_between(CONNECT_LOW, CONNECT_HIGH), try_to_connect, box, 0);
}

void ballots_kill(unsigned place) {
    for (struct mailbox *box = boxes, *next; box; box = next) {
        next = box->next;
        if (box->place == place) {
            box->waiter = NULL;
            box_close(box);
        } else if (box->peer == place && box->connected) {
            box->connected = false;
            connect_later(box);
        }
    }
}

/* ---- Under way ------------------------------------------------------------------------------------------------------- */

static void arrive(void *argument, uint64_t held) {
    struct letter *letter = argument;
    if (cuts[letter->from][letter->to]) {
        if (held || sim_chance(2)) /* held back, or lost with its connection */
            sim_at(sim_now() + HELD_AGAIN, arrive, letter, 1);
        else
            sim_free(letter);
        return;
    }
    struct mailbox *box = letter->answer ? dealer_of(letter->dealer) : door_at(letter->to);
    if (!box || box->count >= INBOX) {
        sim_free(letter);
        return;
    }
    letter->next = NULL;
    *box->end = letter;
    box->end = &letter->next;
    box->count++;
    box_wake(box);
}

static void post(unsigned from, unsigned to, bool answer, uint64_t dealer, const void *bytes, size_t length) {
    unsigned copies = world->calm ? 1 : sim_chance(loss_one_in) ? 0 : sim_chance(32) ? 2 : 1;
    world->counts.ballots++;
    for (; copies > 0; copies--) {
        struct letter *letter = sim_alloc(sizeof *letter + length);
        *letter = (struct letter){.from = from, .to = to, .answer = answer, .dealer = dealer, .length = length};
        memcpy(letter->bytes, bytes, length);
        bool late = !world->calm && sim_chance(late_one_in);
        int64_t takes = late ? sim_between(20 * SIM_MS, 3000 * SIM_MS)
                             : sim_between(world->network_low, world->network_high);
        sim_at(sim_now() + takes + slow[from][to], arrive, letter, 0);
    }
}

int mailbox_send(void *socket, const void *bytes, size_t length) {
    struct mailbox *box = socket;
    if (box->closed)
        sim_fail("a socket is used after it was closed");
    if (!box->connected) {
        errno = EAGAIN;
        return -1;
    }
    post(box->place, box->peer, false, box->number, bytes, length);
    chosen_look();
    sim_point();
    return (int)length;
}

/* ---- What membership/ calls of ZeroMQ -------------------------------------------------------------------------------- */

void *zmq_ctx_new(void) {
    return sim_alloc(1);
}

int zmq_ctx_term(void *context) {
    sim_free(context);
    return 0;
}

void *zmq_socket(void *context, int type) {
    (void)context;
    PROMISE(type == ZMQ_DEALER);
    return box_make(false, 0);
}

int zmq_setsockopt(void *socket, int option, const void *value, size_t length) {
    (void)socket, (void)option, (void)value, (void)length;
    return 0;
}

int zmq_getsockopt(void *socket, int option, void *value, size_t *length) {
    (void)socket;
    PROMISE(option == ZMQ_RCVMORE && *length == sizeof(int));
    memset(value, 0, sizeof(int)); /* a message has one part */
    return 0;
}

/* tcp://ADDRESS:0;10.0.0.N:PORT, of place N - 1 */
int zmq_connect(void *socket, const char *endpoint) {
    struct mailbox *box = socket;
    const char *other = strrchr(endpoint, ';');
    PROMISE(other && sscanf(other, ";10.0.0.%u:", &box->peer) == 1);
    box->peer--;
    connect_later(box);
    return 0;
}

int zmq_recv(void *socket, void *bytes, size_t room, int flags) {
    struct letter *letter = box_take(socket);
    sim_point();
    if (!letter) {
        PROMISE(flags == ZMQ_DONTWAIT);
        errno = EAGAIN;
        return -1;
    }
    int length = (int)letter->length;
    memcpy(bytes, letter->bytes, MIN(room, letter->length));
    sim_free(letter);
    chosen_look();
    return length;
}

int zmq_close(void *socket) {
    box_close(socket);
    sim_point();
    return 0;
}

const char *zmq_strerror(int error) {
    return strerror(error);
}

/* ---- membership/voter_door.h ----------------------------------------------------------------------------------------- */

static void take_question(struct door *door, const struct letter *letter) {
    struct ask_question question;
    struct ask_answer answer;
    struct desk_reply reply = {.route_length = sizeof letter->dealer + 1};
    char who[64];
    memcpy(reply.route, &letter->dealer, sizeof letter->dealer);
    reply.route[sizeof letter->dealer] = (uint8_t)letter->from;
    snprintf(who, sizeof who, "10.0.0.%u", letter->from + 1);
    if (ask_decode_question(letter->bytes, letter->length, &question) != 0)
        sim_fail("a voter was sent a question that cannot be");
    if (desk_ask(door->desk, &question, who, &reply, &answer) == DESK_ANSWERED)
        door_send(door, &reply, &answer);
}

static long patience(const struct door *door) {
    int64_t next;
    while ((next = desk_tell(door->desk)) == 0)
        ;
    if (next == INT64_MAX)
        return -1;
    return (long)MAX((next - clock_boot()) / SIM_MS + 1, 0);
}

static void *door_thread(void *argument) {
    struct door *door = argument;
    while (!atomic_load(&door->stop)) {
        zmq_pollitem_t items[2] = {{.socket = door->box, .events = ZMQ_POLLIN}, {.fd = door->wake, .events = ZMQ_POLLIN}};
        zmq_poll(items, 2, patience(door));
        uint64_t count;
        PROMISE(read(door->wake, &count, sizeof count) == sizeof count);
        for (struct letter *letter; (letter = box_take(door->box)) != NULL;) {
            take_question(door, letter);
            sim_free(letter);
            chosen_look();
        }
    }
    box_close(door->box);
    return NULL;
}

int door_open(const struct voter_host_options *options, struct desk *desk, int wake, struct door **out, char *why,
              size_t room) {
    (void)options, (void)why, (void)room;
    struct door *door = sim_alloc(sizeof *door);
    door->desk = desk;
    door->wake = wake;
    door->box = box_make(true, 0);
    PROMISE(pthread_create(&door->thread, NULL, door_thread, door) == 0);
    pthread_setname_np(door->thread, "voter-door");
    *out = door;
    return 0;
}

void door_send(struct door *door, const struct desk_reply *reply, const struct ask_answer *answer) {
    uint8_t bytes[ASK_BYTES];
    uint64_t dealer;
    memcpy(&dealer, reply->route, sizeof dealer);
    post(door->box->place, reply->route[sizeof dealer], true, dealer, bytes, ask_encode_answer(answer, bytes));
}

void door_counts(struct door *door, struct voter_host_counts *counts) {
    (void)door;
    counts->strangers = counts->garbage = 0;
}

void door_close(struct door *door) {
    uint64_t one = 1;
    atomic_store(&door->stop, true);
    PROMISE(write(door->wake, &one, sizeof one) == sizeof one);
    pthread_join(door->thread, NULL);
    sim_free(door);
}
