/* The standby's side: takes records in, hands them to the store, acknowledges. One acknowledgement for all frames that
 * are there already, at once when there are no more, or when the records take long: the primary measures by it how fast this
 * node is, and that it is not stuck.
 */
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>

#define FRAMES_PER_ACK 16u
#define WAITING 64u /* frames, out of ZeroMQ's queue */
/* A primary has a window of frames on its way that have not been acknowledged, and lets one go whatever its size (feed.h). What
 * waits here has not been acknowledged: no primary that counts goes beyond this. */
#define WAITING_BYTES (FEED_WINDOW_BYTES + (uint64_t)WIRE_RECORDS_BYTES)
_Static_assert((uint64_t)LINK_RECORDS_WAITING * SEND_NOW_BYTES >= FEED_WINDOW_BYTES, "a window is not held back by TCP");
#define RECEIVE_TIMEOUT_MS 20
#define ACK_EVERY (50 * MS)
#define DIAL_AGAIN (1000 * MS)
#define QUIET_AFTER (1000 * MS)
#define QUIET_TIMEOUT_MS 10000

/* ---- Acknowledging --------------------------------------------------------------------------------------------------- */

static void send_ack(struct replicator *r) { /* ack_lock held */
    if (!r->ack_socket)
        return;
    uint64_t durable = MIN(atomic_load(&r->durable), r->ack_received);
    struct frame frame = {.head = {.type = WIRE_ACK, .session = r->ack_session, .epoch = r->ack_epoch},
                          .ack = {.received = r->ack_received, .durable = durable}};
    if (link_send_frame(r->link, r->ack_socket, NULL, &frame) == 0)
        r->ack_durable_told = durable;
}

void standby_ack(struct replicator *r) {
    PROMISE(pthread_mutex_lock(&r->ack_lock) == 0);
    /* Only if somebody waits for it: heartbeats tell it anyway. */
    if (r->ack_durable_told < r->ack_wanted)
        send_ack(r);
    PROMISE(pthread_mutex_unlock(&r->ack_lock) == 0);
}

static void ack_received(struct replicator *r, uint64_t lsn, uint64_t want) {
    PROMISE(pthread_mutex_lock(&r->ack_lock) == 0);
    bool news = lsn > r->ack_received;
    r->ack_received = MAX(r->ack_received, lsn);
    r->ack_wanted = MIN(want, r->ack_received);
    uint64_t durable = MIN(atomic_load(&r->durable), r->ack_received);
    if (news || (durable > r->ack_durable_told && r->ack_durable_told < r->ack_wanted))
        send_ack(r);
    PROMISE(pthread_mutex_unlock(&r->ack_lock) == 0);
}

/* ---- Sockets of a session -------------------------------------------------------------------------------------------- */

struct reception {
    void *records;
    int64_t came; /* the last of them */
    int64_t dial_again; /* it could not be dialled: not before then */
    uint64_t session;
    unsigned primary;
    struct link_message waiting[WAITING]; /* a ring */
    unsigned first, count;
    uint64_t bytes; /* in it, but for frames without records: a primary does not count those */
};

static uint64_t counted(const struct link_message *message) {
    size_t size = zmq_msg_size(&message->body);
    return size > WIRE_RECORDS_HEAD ? size : 0;
}

static void drop_first(struct reception *reception) {
    struct link_message *message = &reception->waiting[reception->first];
    reception->bytes -= counted(message);
    reception->first = (reception->first + 1) % WAITING;
    reception->count--;
    link_message_done(message);
}

static void hang_up(struct replicator *r, struct reception *reception) {
    PROMISE(pthread_mutex_lock(&r->ack_lock) == 0);
    link_hang_up(r->ack_socket);
    r->ack_socket = NULL;
    PROMISE(pthread_mutex_unlock(&r->ack_lock) == 0);
    while (reception->count)
        drop_first(reception);
    link_hang_up(reception->records);
    reception->records = NULL;
    reception->came = 0;
    reception->session = 0;
}

static void dial(struct replicator *r, struct reception *reception, uint64_t session, unsigned primary, epoch_t epoch,
                 uint64_t next) {
    reception->session = session;
    reception->primary = primary;
    if (clock_boot() < reception->dial_again)
        return;
    void *records = link_dial(r->link, primary, LINK_RECORDS, session, RECEIVE_TIMEOUT_MS);
    void *acks = records ? link_dial(r->link, primary, LINK_ACKS, 0, 0) : NULL;
    if (!acks) { /* no descriptors, say: in this session or another one, not at once again */
        int error = errno;
        link_hang_up(records);
        reception->dial_again = clock_boot() + DIAL_AGAIN;
        repl_lock(r);
        snprintf(r->trouble, sizeof r->trouble, "node %.60s cannot be dialled: %s", r->config->nodes[primary].name,
                 zmq_strerror(error));
        repl_unlock(r);
        return;
    }
    reception->records = records;
    if (reception->dial_again) {
        repl_lock(r);
        r->trouble[0] = 0;
        repl_unlock(r);
    }
    reception->dial_again = 0;
    PROMISE(pthread_mutex_lock(&r->ack_lock) == 0);
    r->ack_socket = acks;
    r->ack_session = session;
    r->ack_epoch = epoch;
    r->ack_received = next - 1;
    r->ack_durable_told = r->ack_wanted = 0;
    PROMISE(pthread_mutex_unlock(&r->ack_lock) == 0);
}

/* The sockets follow what the follower has decided. True if there is a session to receive in. */
static bool follow_session(struct replicator *r, struct reception *reception) {
    repl_lock(r);
    bool live = r->follow.state == FOLLOW_LOGIN || r->follow.state == FOLLOW_STREAMING;
    uint64_t session = live ? r->follow.session : 0;
    if (session != reception->session || (session && !reception->records)) {
        unsigned primary = r->follow.primary;
        epoch_t epoch = r->follow.epoch;
        uint64_t next = r->follow.next;
        if (session) /* from here on nobody undoes anything below `next` */
            r->receiving = session;
        repl_unlock(r);
        hang_up(r, reception);
        if (session)
            dial(r, reception, session, primary, epoch, next);
        repl_lock(r);
        r->receiving = session;
        r->beat_now = r->beat_now || r->follow.state == FOLLOW_SEARCHING;
        pthread_cond_broadcast(&r->news);
        talk_wake(r);
    }
    if (!session)
        repl_sleep(r, &r->receive_work, 10000 * MS);
    else if (!reception->records)
        repl_sleep(r, &r->receive_work, MAX(reception->dial_again - clock_boot(), 1 * MS));
    repl_unlock(r);
    return session && reception->records;
}

/* ---- Records --------------------------------------------------------------------------------------------------------- */

#define ROOM_PATIENCE (30000 * MS)

/* Says so: the primary is not to wait for the lease time, and its status is to tell. Who hears that goes on without this node,
 * at once: what was heard of who is in the set counts no more. lock held */
static void leave_session(struct replicator *r, const char *what) {
    struct frame bye = {.head = {.type = WIRE_BYE, .session = r->follow.session, .epoch = r->value.epoch}};
    snprintf(bye.bye.text, WIRE_TEXT, "%s", what);
    talk_post(r, r->follow.primary, &bye);
    r->set_heard = r->heard_word = false;
    follow_end(&r->follow, clock_boot(), "%s", r->trouble);
    /* Not at once again: what is wrong with it will be so in a moment, too. */
    r->follow.state = FOLLOW_REFUSED;
}

/* `what`: for the primary. lock held */
static void end_session(struct replicator *r, const char *trouble, const char *what) {
    char said[WIRE_TEXT];
    if (strcmp(r->trouble, trouble) != 0)
        log_warning("%s", trouble);
    snprintf(r->trouble, sizeof r->trouble, "%s", trouble);
    snprintf(said, sizeof said, "a record was not taken: %.200s", what);
    leave_session(r, said);
}

static void give_up_session(struct replicator *r, uint64_t session, uint64_t lsn, int error) {
    repl_lock(r);
    if (r->follow.session == session && r->follow.state != FOLLOW_IDLE) {
        const char *what = error == -ESTALE    ? "it does not follow on this store's history"
                           : error == -EBADMSG ? "it is damaged or contradicts this store's state"
                           : error == -ENOSPC  ? "the disk there is full; it goes on when there is room"
                           : error == -EPROTONOSUPPORT
                               ? "it is of a type that this program does not know: the primary's is newer; upgrade this node"
                                               : strerror(-error);
        char trouble[WIRE_TEXT];
        snprintf(trouble, sizeof trouble, "record %" PRIu64 " of the primary was not taken: %s", lsn,
                 error == -ENOSPC ? "the disk of this store is full; it goes on when there is room" : what);
        end_session(r, trouble, what);
        r->lacks_room = error == -ENOSPC;
        r->lacks_until = clock_boot() + ROOM_PATIENCE;
    }
    repl_unlock(r);
}

/* More than the reserve: or the next record would not be taken either. Asks the store now and then. */
void standby_look_for_room(struct replicator *r) {
    struct store_space space = {0};
    repl_lock(r);
    bool lacks = r->lacks_room;
    int64_t until = r->lacks_until;
    repl_unlock(r);
    if (!lacks || (clock_boot() < until && (store_space(r->store, &space) || space.free == 0)))
        return;
    repl_lock(r);
    r->lacks_room = false;
    repl_unlock(r);
}

/* Does the primary wait for what this disk does not take? */
static bool holds_up(const struct replicator *r) {
    const struct follow *follow = &r->follow;
    return follow->state == FOLLOW_STREAMING && (r->peers[follow->primary].beat.position.lsn >= follow->next || follow->taking ||
                                                 follow->want > atomic_load(&r->durable));
}

/* Where only silence is fenced, the primary could do nothing about a standby that lives and takes nothing. Anywhere else it puts
 * that out of the set itself, and judges better, for it knows its own disk. */
void standby_look_at_disk(struct replicator *r) {
    static const char sentence[] = "the disk of this store does not answer: this node has left the primary, which goes on alone";
    if (r->elects || !r->config->fence[0] || r->role != ROLE_STANDBY)
        return;
    bool stalled = store_stalled(r->store, MAX(r->lease, SICK_LEAST));
    if (!stalled) {
        if (r->lacks_disk && strcmp(r->trouble, sentence) == 0)
            r->trouble[0] = 0;
        r->lacks_disk = false;
    } else if (!r->lacks_disk && !r->changing && holds_up(r)) {
        r->lacks_disk = true;
        snprintf(r->trouble, sizeof r->trouble, "%s", sentence);
        log_error("%s", r->trouble);
        leave_session(r, "the disk there does not answer");
    }
}

/* Since the last acknowledgement, and what there is to be said in the next one. */
struct taken {
    int64_t told;
    uint64_t received, want;
};

static void tell_taken(struct replicator *r, struct taken *taken) {
    if (taken->want && MIN(taken->want, MAX(taken->received, r->ack_received)) > atomic_load(&r->durable))
        store_want_durable(r->store, MIN(taken->want, MAX(taken->received, r->ack_received)));
    ack_received(r, taken->received, taken->want);
    taken->told = clock_boot();
}

static void tell_follower(struct replicator *r, uint64_t session, uint64_t lsn, bool end, bool news) {
    repl_lock(r);
    if (r->follow.session == session)
        follow_received(&r->follow, lsn, end);
    if (news)
        r->trouble[0] = 0;
    repl_unlock(r);
}

/* 0, or an error that ended the session. */
static int take_records(struct replicator *r, const struct frame *frame, struct taken *taken) {
    const struct wire_records *records = &frame->records;
    uint32_t skip = 0;
    repl_lock(r);
    int rc = follow_records(&r->follow, frame->head.session, frame->head.epoch, records, &skip, clock_boot());
    if (rc == 0 && frame->head.epoch < r->value.epoch) {
        follow_end(&r->follow, clock_boot(), "the primary has an older epoch than this node has heard of");
        rc = -EPIPE;
    }
    if (rc == 0)
        taken->want = MAX(taken->want, r->follow.want);
    repl_unlock(r);
    if (rc)
        return rc;
    struct wire_record record;
    uint32_t at = 0, index = 0;
    while (wire_record_next(records, &at, &record) > 0) {
        if (index++ < skip)
            continue;
        rc = store_receive(r->store, record.bytes.data, record.bytes.length, record.payload.data, record.payload.length);
        if (rc && rc != -EEXIST) {
            give_up_session(r, frame->head.session, records->first + index - 1, rc);
            return rc;
        }
        taken->received = MAX(taken->received, records->first + index - 1);
        if (clock_boot() - taken->told > ACK_EVERY) {
            tell_follower(r, frame->head.session, taken->received, false, true);
            tell_taken(r, taken);
        }
    }
    if (index) /* not of an empty frame: what it names is still to come */
        tell_follower(r, frame->head.session, records->first + index - 1, true, index > skip);
    return 0;
}

static void refuse_flood(struct replicator *r, const struct reception *reception) {
    char trouble[WIRE_TEXT];
    repl_lock(r);
    if (r->follow.session == reception->session && r->follow.state != FOLLOW_IDLE) {
        snprintf(trouble, sizeof trouble, "node %.60s sent more than it may: %" PRIu64 " bytes wait here, where at most %" PRIu64
                 " may be on their way", r->config->nodes[reception->primary].name, reception->bytes, WAITING_BYTES);
        end_session(r, trouble, "more came than may be on its way");
    }
    repl_unlock(r);
}

/* Out of ZeroMQ's queue, which counts frames only, what has come. 0, or an error of link_receive; -EPIPE: the session has
 * ended, for too much has. */
static int gather(struct replicator *r, struct reception *reception, bool wait) {
    int rc = 0;
    while (rc == 0 && reception->count < WAITING) {
        struct link_message *message = &reception->waiting[(reception->first + reception->count) % WAITING];
        rc = link_receive(r->link, reception->records, (int)reception->primary, !wait || reception->count > 0, message);
        if (rc)
            break;
        reception->count++;
        reception->bytes += counted(message);
        reception->came = clock_boot();
        if (reception->bytes > WAITING_BYTES) {
            refuse_flood(r, reception);
            rc = -EPIPE;
        }
    }
    return rc;
}

/* As long as nothing comes, nobody wakes but for what comes then, or for the end of the session. While records come, that
 * is looked for after a short time-out: a call of the kernel's less for each of them. */
static int wait_for_some(struct replicator *r, struct reception *reception) {
    zmq_pollitem_t items[2] = {{.socket = reception->records, .events = ZMQ_POLLIN}, {.fd = r->receive_wake, .events = ZMQ_POLLIN}};
    uint64_t kicks;
    if (zmq_poll(items, 2, QUIET_TIMEOUT_MS) < 0)
        return errno == ETERM ? -ETERM : -EAGAIN;
    if (items[1].revents & ZMQ_POLLIN) {
        ssize_t done = read(r->receive_wake, &kicks, sizeof kicks);
        (void)done;
    }
    return items[0].revents & ZMQ_POLLIN ? 0 : -EAGAIN;
}

/* Takes in what is there, then acknowledges it. -ETERM: stopping. */
static int receive_some(struct replicator *r, struct reception *reception) {
    bool quiet = reception->count == 0 && clock_boot() - reception->came > QUIET_AFTER;
    int waited = quiet ? wait_for_some(r, reception) : 0;
    if (waited)
        return waited;
    struct taken taken = {.told = clock_boot()};
    int rc = 0;
    for (unsigned frames = 0; frames < FRAMES_PER_ACK && rc == 0; frames++) {
        rc = gather(r, reception, !quiet && frames == 0);
        if (rc == -ETERM || rc == -EPIPE || reception->count == 0)
            break;
        const struct frame *frame = &reception->waiting[reception->first].frame;
        rc = frame->head.type == WIRE_RECORDS ? take_records(r, frame, &taken) : 0;
        drop_first(reception);
    }
    if (taken.received || taken.want)
        tell_taken(r, &taken);
    return rc;
}

void *standby_receiver(void *argument) {
    struct replicator *r = argument;
    struct reception *reception = calloc(1, sizeof *reception);
    PROMISE(reception);
    while (!atomic_load(&r->stopping))
        if (follow_session(r, reception) && receive_some(r, reception) == -ETERM)
            break;
    hang_up(r, reception);
    free(reception);
    return NULL;
}

void standby_kick(struct replicator *r) {
    uint64_t one = 1;
    pthread_cond_signal(&r->receive_work);
    ssize_t done = write(r->receive_wake, &one, sizeof one); /* full only when it is readable already */
    (void)done;
}

void standby_quiesce(struct replicator *r) {
    repl_lock(r);
    follow_stop(&r->follow);
    standby_kick(r);
    while (r->receiving && !atomic_load(&r->stopping))
        repl_wait(r, &r->news, clock_boot() + 1000 * MS);
    repl_unlock(r);
}
