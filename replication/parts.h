/* The inside of the replicator: what its threads share. Not for other parts of Baton.
 *
 *   whoever applies   pushes the record and sends it on the records socket, if it is its turn        (primary.c)
 *   feeder            sends what is not in memory: journal, large payloads                            (primary.c)
 *   acknowledgements  takes them in, moves the lines                                                  (primary.c)
 *   receiver          takes records in, acknowledges                                                  (standby.c)
 *   talker            control: heartbeats, logins, answers                                            (talk.c),
 *                     seldom when nothing is under way                                                (calm.c)
 *   keeper            changes that take time: the in-sync set (set.c), roles (roles.c, handover.c, promote.c),
 *                     and, where the register's engine has a lease, standing for primary             (candidate.c);
 *                     what it has proposed is settled first                                           (proposed.c)
 *   provider          gives rows and blocks to nodes that build or mend their stores                  (provide.c),
 *                     and hashes of rows to those that compare theirs                                 (compare.c)
 *   opener            opens the states for those, which may take long                                 (provide.c)
 *   synchronizer      builds this node's store anew from such                                         (sync.c)
 *   mender            has single blocks that are bad here from such                                   (mender.c)
 *   verifier          compares this node's copy with another one's                                    (verify.c)
 *   pacer             gives answers that are due, while new work is slowed                            (slow.c)
 *
 * `lock` guards everything below it in struct replicator, the records socket too; it is held for microseconds, and never
 * while the store's engine lock is being asked for (whoever applies holds that one and then takes this one). `role_lock`
 * is held through a change of role or set. `ack_lock` guards the standby's acknowledgement socket.
 */
#ifndef BATON_REPLICATION_PARTS_H
#define BATON_REPLICATION_PARTS_H

#include "fs/import.h"
#include "fs/volume.h"
#include "membership/register.h"
#include "replication/acks.h"
#include "replication/awake.h"
#include "replication/catchup.h"
#include "replication/elect.h"
#include "replication/feed.h"
#include "replication/follow.h"
#include "replication/link.h"
#include "replication/reach.h"
#include "replication/replicator.h"

#include <pthread.h>

#define MS ((int64_t)1000000)
#define RING_ENTRIES 16384u       /* records in memory for peers that are a little behind… */
#define RING_BYTES (16u << 20)    /* …and bytes; who is further behind is fed from the journal */
#define SEND_NOW_BYTES (64u << 10) /* frames made under the lock are closed at this size */
#define FRAMES_AT_ONCE 1u /* with so many on their way a frame waits until it is full or one is acknowledged */
#define JOIN_LAG_RECORDS 4096u    /* a peer is proposed for the set when it is no further behind than this… */
#define JOIN_LAG_BYTES (1u << 20) /* …and this, or what it takes in the lease time */
#define JOIN_PATIENCE (5000 * MS)
#define JOIN_AGAIN (500 * MS) /* at first; a proposal makes everybody wait for the peer */
#define JOIN_AGAIN_MOST (10000 * MS)
#define JOIN_PROVED (30000 * MS) /* who has been in the set for so long begins with JOIN_AGAIN again */
#define STUCK_LEASES 10 /* lease times without any progress end a session, too; a large record on a slow line takes its time */
#define IN_VAIN_LEASES 2 /* a member that logs in anew and takes nothing of what it lacks leaves the set after so many */
#define OUTBOX 16u
#define PROVIDE_IDLE (600000 * MS) /* a node that has not asked for so long has given up: nothing is kept for it */
#define COMPARE_IDLE (60000 * MS) /* likewise, for comparing */
#define COMPARE_ROWS 4096u /* compared by one hash at first */
#define VERIFY_RENEW (300000 * MS) /* a comparison goes on at a newer record after so long */
#define COMPARE_OPENS (1000 * MS) /* a state that takes longer to open is not compared: another thread would have to */
#define PROVIDE_BYTES (256u << 10) /* of rows in an answer, or one row */

struct peer {
    const struct node_config *node;
    struct feed feed;
    struct link_route route; /* of the control connection on which it was heard last; empty: none */
    uint64_t last_durable; /* what it had durably when it was last fed */
    bool busy;    /* the feeder works for it, nobody else sends */
    bool blocked; /* its connection is not there (yet): tried again at the talker's tick */
    bool joining; /* the set with it is proposed, its durable position has to reach join_lsn */
    uint64_t join_lsn;
    int64_t join_since;
    int64_t join_again, join_wait; /* it came to nothing, or was soon over: not before then; twice as long after each time */
    int64_t joined; /* when it came into the set */
    int64_t left;  /* it said goodbye at this time: no need to wait for the lease time */
    int64_t heard; /* its last heartbeat, in any session */
    int64_t beat_due; /* this node's next one to it */
    bool known;
    struct wire_beat beat; /* what that said */
    uint32_t features;     /* that it offers */
    uint8_t version;       /* of the protocol, the newest that it speaks */
    char unfit[WIRE_TEXT]; /* why its words are not understood; empty: they are */
    int64_t took_at;       /* it acknowledged something new, or lacked nothing… */
    uint64_t took;         /* …up to here… */
    unsigned sessions_since; /* …and has logged in so often since */
    struct catchup catchup; /* of a session in which it is not in the set */
    void *dealer; /* the talker's */
    int64_t synced_since; /* without a break; 0: it is not in sync */
    int64_t away_since;   /* a spare may take its place; 0: it is not away */
};

struct letter { /* a control frame that another thread wants sent */
    unsigned node;
    struct frame frame;
};

struct copy_note { /* what a node that copies this store has been given, of the state that is kept for it */
    bool open;
    uint64_t lsn;
    uint64_t rows, blocks, bytes;
    int64_t last; /* question */
    int64_t mark; /* the rate was counted, at so many bytes */
    uint64_t mark_bytes, rate;
    uint64_t rows_of, blocks_of; /* about how many there are */
    uint64_t wanted; /* blocks, as the node says; UINT64_MAX: it does not */
    bool has_rows;   /* it asks for blocks */
    struct reach reach;
};

struct compare_note { /* a node compares its copy with this one */
    bool open;
    uint64_t lsn;   /* at which record */
    int64_t last;   /* question */
};

enum sync_phase { SYNC_IDLE, SYNC_ASKING, SYNC_ROWS, SYNC_BLOCKS, SYNC_FINISH, SYNC_DONE };
struct sync {  /* a full synchronization of this store */
    bool wanted;   /* `node`, the primary, cannot feed it from its journal */
    bool given_up; /* a person has to decide which copy stays, this one or that of `node` in `epoch` */
    epoch_t epoch;
    unsigned node;
    enum sync_phase phase;
    int64_t since, phase_since;
    uint64_t lsn;
    struct import_progress progress;
    uint64_t fetched_before; /* the phase */
    uint64_t rows, blocks;   /* about how many there are */
    char why[WIRE_TEXT];     /* why it does not go on */
    int64_t silent_since;    /* asked, and nothing has been answered; 0: it has been */
    bool silence_told;       /* in the log */
};

/* What a node goes through that becomes primary, each with the time that it took. */
enum takeover_phase {
    TAKEOVER_SILENCE = 0, /* of the primary, until it was noticed */
    TAKEOVER_VOTERS,      /* register and voters asked */
    TAKEOVER_NODES,       /* the other nodes asked */
    TAKEOVER_RECEIVER,    /* what was acknowledged is applied */
    TAKEOVER_DISK,        /* …and, where it has to be, on disk */
    TAKEOVER_BALLOT,
    TAKEOVER_LEASE,
    TAKEOVER_EPOCH,
    TAKEOVER_MOUNT,       /* the first change is let in */
    TAKEOVER_PHASES
};
struct takeover {
    epoch_t epoch; /* 0: there was none */
    const char *how;
    int64_t at;    /* clock_now, at its end */
    int64_t mark;  /* clock_boot: the last phase's end */
    int64_t phases[TAKEOVER_PHASES]; /* ns */
};

enum fencing_state { FENCING_IDLE = 0, FENCING_RUNS, FENCING_DONE, FENCING_FAILED };
struct fencing { /* the program that powers another node off */
    _Atomic int state; /* enum fencing_state */
    pthread_t thread;  /* unless it is idle */
    unsigned node;
    int64_t since, again;
    uint32_t off;      /* nodes that are off, and have not been heard since: bits */
    char why[256];
};

#define MEND_QUESTIONS 8u /* who comes then waits for room */
enum mend_question_state { MEND_FREE, MEND_ASKED, MEND_UNDER_WAY, MEND_LEFT, MEND_ANSWERED };
struct mend_question { /* a block that is bad here; LEFT: under way, but nobody waits for it any more */
    enum mend_question_state state;
    uint64_t data, block, checksum;
    int64_t deadline;
    int result;
    uint8_t bytes[BATON_BLOCK];
};

struct proposed { /* to the register: a value that names a primary, in an epoch of its own; see proposed.c */
    uint64_t over_version; /* in place of that one, which was chosen */
    epoch_t over_epoch;
    struct register_value next;
    int64_t again; /* not before then */
};

struct replicator {
    struct volume *volume;
    struct store *store;
    const struct config *config;
    unsigned self, count;
    int64_t lease, beat_every; /* ns */
    struct link *link;
    struct awake awake; /* the talker's */
    int wake; /* eventfd: the talker has something to send */
    int receive_wake; /* eventfd: the receiver's session is over, or it is to stop */
    pthread_t feeder, acknowledger, receiver, talker, keeper, provider, synchronizer, mender, verifier, pacer;
    unsigned threads;
    atomic_bool stopping;
    pthread_mutex_t role_lock;
    uint8_t incarnation[16];

    pthread_mutex_t lock;
    pthread_cond_t feed_work, keep_work, receive_work, sync_work, mend_work, verify_work, open_work,
        pace_work;
    pthread_cond_t news; /* broadcast: something that somebody may be waiting for has changed */
    struct peer peers[CONFIG_NODES_MAX];
    enum role role;
    bool changing; /* a change of role is under way */
    bool unsure;   /* …and has stopped: the register may have chosen `proposed`, or may yet */
    struct proposed proposed; /* by this process or the one before; role_lock */
    bool beat_now; /* the talker shall not wait for the next heartbeat's time */
    int64_t ack_due; /* the next acknowledgement that nobody asks for; the talker's */
    bool calm;       /* nothing is under way (calm.c) */
    uint64_t calm_lsn; /* the last record when that was looked at… */
    int64_t busy_at;   /* …and when there was something under way last */
    bool keep_asked; /* the keeper is to look again, though it may be at work just now */
    atomic_uint_fast64_t looks; /* so often talker and keeper have woken… */
    atomic_uint_fast64_t beats; /* …and so many heartbeats have been sent: for tests */
    int64_t primary_since;
    const struct lease_engine *elects; /* the register's: the cluster decides who is primary; NULL: a person does */
    struct elect elect;
    enum elect_state elect_told; /* the log */
    bool stays; /* a person wants this node to stay standby */
    bool service_broken;   /* exports did not serve when this node was primary: others go first (service.c) */
    int64_t service_again; /* the next attempt to hand over because of that */
    char service_why[200];
    epoch_t lease_lost;  /* the newest epoch of this node whose lease has ended */
    int64_t duty_again, hand_back_again, voters_again; /* not before then */
    int64_t voter_since[REGISTER_VOTERS_MAX]; /* one that has lost its state answers; as lease_view numbers them */
    atomic_int_fast64_t voters_looked; /* when the voters were asked for a status */
    int64_t behind_since, refresh_again;      /* a voter refuses the lease, as it has missed the present value */
    struct fencing fencing;
    bool primary_left;   /* it said goodbye, and has not been heard since */
    bool spare_wanted;   /* the spare is fed */
    int64_t go_after;    /* after-power-cut = go: the others have so long to come back; tests have less */
    bool leaving;        /* this node is about to stop: it does not stand any more */
    struct register_value born; /* what STORE.register had at the start, for a volume that has no other register yet */
    struct takeover taking, takeover; /* under way; the last one */
    struct register_value value; /* the register as this node knows it */
    bool set_heard; /* …and its set is what a primary said to this process in a session, or what it had as primary, and no record
                     * was refused since */
    struct wire_position position;
    uint64_t own_wanted, own_had; /* this node's disk is to have; had when it was looked at last… */
    int64_t own_at;   /* …and when it last had more, or all */
    int64_t looked;   /* at the feeds, last */
    uint64_t total; /* bytes of all records applied since the start, as a frame has them */
    uint64_t join_records, join_bytes; /* JOIN_LAG_RECORDS, JOIN_LAG_BYTES; tests have others */
    struct pace pace;
    atomic_bool slowing; /* pace.rate is not 0 */
    unsigned slow_for;   /* the peer for whose sake */
    int64_t slow_since, slow_until; /* until: it ended, after that */
    bool slow_copy;      /* …which copies the store, and does not catch up */
    int64_t slow_told;   /* the log */
    struct store_journal journal; /* the keeper's last look, while somebody copies */
    uint64_t slowed;     /* answers that waited, since then */
    struct acks acks;
    struct register_value proposal; /* while acks.pending */
    int64_t reassure_again; /* not before then */
    bool writing; /* …and it has been handed to the register: its outcome is unknown until that has answered */
    struct entry **ring; /* slot: lsn % RING_ENTRIES */
    uint64_t ring_first; /* oldest LSN in it; position.lsn + 1 if it is empty */
    uint64_t ring_bytes;
    struct follow follow;
    uint64_t receiving; /* the session that the receiver has sockets for */
    bool value_heard;   /* `heard_value` is newer than ours: the keeper takes it over */
    struct register_value heard_value;
    unsigned heard_from;
    bool behind;        /* …and could not be written down yet */
    bool heard_word;    /* …and a primary said it in the present session: see set_heard */
    uint64_t probe_session; /* rollback: the question that is open, and its answer */
    uint32_t probe_verdict;
    bool switch_heard;
    struct wire_switch switch_asked;
    unsigned switch_from;
    epoch_t switch_refused; /* said no to this handover (and all older ones): that stays so */
    epoch_t switch_told;    /* the handover whose answer is being waited for, and from whom */
    unsigned switch_to;
    bool switch_answered;
    struct wire_text switch_answer;
    struct letter outbox[OUTBOX];
    unsigned outbox_count;
    uint64_t hold_told;   /* every node had this much durably once: kept over restarts */
    uint64_t hold_saved;
    int64_t hold_saved_at;
    struct copy_note copies[CONFIG_NODES_MAX];
    int64_t copy_idle;  /* PROVIDE_IDLE, PROVIDE_BYTES; tests have others */
    uint32_t copy_bytes;
    struct compare_note compares[CONFIG_NODES_MAX];
    uint32_t compare_rows; /* COMPARE_ROWS, COMPARE_OPENS, VERIFY_RENEW; tests have others */
    int64_t compare_opens, verify_renew;
    struct verify *verify;
    struct sync sync;
    uint32_t sync_blocks; /* COPY_BLOCKS_MAX; tests have fewer in a question */
    struct mend_question mends[MEND_QUESTIONS];
    pthread_cond_t mend_news; /* broadcast: a question has been answered or given back */
    bool lacks_room;       /* the disk here refused a record: no login before there is room, or… */
    int64_t lacks_until;   /* …this time: it may be enough for a little */
    bool lacks_disk;       /* the disk here hangs, and this standby has left its session for that: no login before it answers */
    char refusal[WIRE_TEXT]; /* the last one that was logged */
    char trouble[WIRE_TEXT]; /* what status should say beside */

    pthread_mutex_t ack_lock;
    void *ack_socket;
    uint64_t ack_session;
    epoch_t ack_epoch;
    uint64_t ack_received; /* store_receive has returned for it */
    uint64_t ack_durable_told;
    uint64_t ack_wanted;
    _Atomic uint64_t durable; /* of the store */
};

static inline void repl_lock(struct replicator *r) {
    PROMISE(pthread_mutex_lock(&r->lock) == 0);
}
static inline void repl_unlock(struct replicator *r) {
    PROMISE(pthread_mutex_unlock(&r->lock) == 0);
}
/* Waits for news under the lock, up to `deadline` (clock_boot). False when that has passed or the replicator stops. */
bool repl_wait(struct replicator *r, pthread_cond_t *cond, int64_t deadline);
void repl_sleep(struct replicator *r, pthread_cond_t *cond, int64_t ns);

/* primary.c; lock held unless said otherwise */
void primary_pump(struct replicator *r);               /* sends what can go now; wakes the feeder for the rest */
void primary_lines(struct replicator *r, uint64_t lines[PARK_LINES]);
void primary_advance(struct replicator *r, const uint64_t lines[PARK_LINES]); /* without the lock */
void primary_end_session(struct replicator *r, unsigned node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void primary_ring_clear(struct replicator *r);
void primary_login(struct replicator *r, struct link_message *message); /* without the lock; the talker's */
struct login_ground { /* what a login is judged by, and as whom, in which epoch, this node read it */
    bool primary, known;
    epoch_t epoch;
    struct wire_position own;
    uint8_t chain[CHAIN_SIZE], fork_chain[CHAIN_SIZE]; /* known: at the last record of who logs in */
    uint64_t fork, average;
};
/* Its two steps. */
void primary_look_for_login(struct replicator *r, const struct wire_login *login, struct login_ground *ground);
void primary_answer_login(struct replicator *r, const struct link_message *message, const struct login_ground *ground);
void *primary_feeder(void *replicator);
void *primary_acknowledger(void *replicator);

/* rollback.c */
void rollback_consider(struct replicator *r);                                  /* the keeper's, role_lock held */
void rollback_answer(struct replicator *r, const struct frame *frame);         /* lock held */
/* Every node had what comes after `fork` durably once, so whoever lacks it is not the newest copy. Without the lock. */
bool rollback_had_by_all(struct replicator *r, uint64_t fork);
void rollback_probe(struct replicator *r, struct link_message *message);       /* without the lock; the talker's */
void replicator_read_position(struct replicator *r); /* from the store, after it went back; without the lock */

/* standby.c */
void standby_ack(struct replicator *r); /* tells received and durable; any thread, without the lock */
void *standby_receiver(void *replicator);
void standby_look_for_room(struct replicator *r); /* a full disk may have room again; the keeper's, without the lock */
void standby_kick(struct replicator *r); /* the receiver looks at its session; lock held */
void standby_look_at_disk(struct replicator *r);  /* one that hangs holds up no primary; the talker's, lock held */
void standby_quiesce(struct replicator *r); /* without the lock: the follower stops, and the receiver with it */

/* provide.c */
void *provide_thread(void *replicator);
json_t *provide_status(const struct replicator *r); /* lock held */

void provide_refuse(struct wire_copy *answer, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* reaching.c */
void reaching_begin(struct replicator *r, unsigned node); /* its copy_note is new; without the lock; the provider's */
void reaching_measure(struct replicator *r);              /* the keeper's, without the lock */
/* Bytes of records a second that new work may make for the sake of the node's copy; REACH_NEVER. The talker's, lock held. */
uint64_t reaching_limit(struct replicator *r, unsigned node, int64_t now);
void reaching_show(const struct replicator *r, unsigned node, json_t *shown); /* in its entry of status; lock held */

/* compare.c; the provider's */
struct compared;
struct compared *compared_create(struct replicator *r);
void compared_free(struct compared *compared);
void compared_close_idle(struct compared *compared);
/* Rows and hashes go to buffer + WIRE_COPY_HEAD. */
void compared_answer(struct compared *compared, unsigned node, const struct wire_ask_copy *ask, struct wire_copy *answer,
                     uint8_t *buffer);
json_t *compared_status(const struct replicator *r); /* lock held */

/* sync.c */
void *sync_thread(void *replicator);
/* The primary `node` says that its journal does not reach this store any more; lock held */
void sync_want(struct replicator *r, unsigned node);
void sync_unwant(struct replicator *r); /* it feeds it, or somebody else does, or nobody; lock held */
json_t *sync_status(const struct replicator *r); /* lock held; NULL: there is none */

/* slow.c */
void slow_begin(struct replicator *r, unsigned node, uint64_t average); /* a session begins; lock held */
uint64_t slow_average(struct replicator *r, uint64_t from, uint64_t to); /* bytes of a record of these; without the lock */
void slow_consider(struct replicator *r, int64_t now); /* the talker's, lock held */
/* New work is slowed no more, and whoever waits is let go. Without the lock. */
void slow_end(struct replicator *r);
bool slow_may_join(const struct replicator *r, unsigned node); /* what it lacks is soon there; lock held */
json_t *slow_status(const struct replicator *r); /* lock held; NULL: nothing is slowed */
json_t *slow_status_peer(const struct replicator *r, unsigned node); /* lock held; NULL: it does not catch up */
void *slow_thread(void *replicator);

/* mender.c */
void *mend_thread(void *replicator);

/* verify.c */
void *verify_thread(void *replicator);
struct verify *verify_create(struct replicator *r); /* NULL: no memory */
void verify_free(struct verify *verify);
json_t *verify_status(const struct replicator *r); /* lock held */

/* talk.c */
void *talk_thread(void *replicator);
void talk_wake(struct replicator *r);
void talk_post(struct replicator *r, unsigned node, const struct frame *frame); /* lock held */
void talk_beat(struct replicator *r, struct frame *frame, uint64_t session); /* fills a heartbeat; lock held */

/* calm.c; lock held */
bool calm_lasts(const struct replicator *r); /* nothing is under way just now */
void calm_look(struct replicator *r, int64_t now, bool busy); /* the talker's: it begins, or ends */
void calm_end(struct replicator *r, int64_t now);  /* there is something to do; before that is entered anywhere */
int64_t calm_beats(const struct replicator *r);    /* the time between two heartbeats to a node */
int64_t calm_until(const struct replicator *r, int64_t now); /* when the talker has to look next, if it lasts */

/* roles.c */
void keep_wake(struct replicator *r); /* the keeper looks at everything; lock held */
void *keeper_thread(void *replicator);
int roles_start(struct replicator *r, char *why, size_t why_room);
bool roles_in_set(const struct replicator *r, unsigned node); /* as the register has it; lock held */
/* A peer's position counts for the set unless the set, or the proposed one, has another incarnation of it; lock held. */
void roles_count_ack(struct replicator *r, unsigned node);
const char *roles_own_name(const struct replicator *r);
/* Asks the nodes of `bits` and waits for their answers, up to `patience`. Returns with the lock. */
void roles_ask_locked(struct replicator *r, uint32_t bits, int64_t patience);
/* A node that has said since then that it is primary, in an epoch that is not behind ours; -1: none. lock held */
int roles_answering_primary(const struct replicator *r, int64_t since);
/* The register has another value than this node knew. */
void roles_adopt(struct replicator *r, const struct register_value *found);
/* The value that names `node`, in a new epoch after `position`; lock held. */
void roles_next_epoch(struct replicator *r, const struct position *position, unsigned node, bool promoted,
                      struct register_value *next);
enum start { START_ANEW, START_PROMOTED, START_ELECTED, START_HANDED_OVER, START_AGAIN };
struct beginning {
    enum start start;
    const struct register_value *given; /* HANDED_OVER: the value that makes this node primary; else one is made */
    uint32_t keep; /* ELECTED: the members that stay in the set beside this node */
};
/* A promotion begins with this store as the only member, an election with those that are kept, another start with the set as
 * it is. AGAIN is after a handover that came to nothing: what waits for an acknowledgement goes on waiting. role_lock held. */
int roles_become_primary(struct replicator *r, const struct beginning *beginning, char *why, size_t why_room);
void roles_close_epoch(struct replicator *r); /* lock held */
/* A standby again, after a change of role that came to nothing, or to its end. */
void roles_resume_standby(struct replicator *r);
/* This node acknowledges nothing more. role_lock held. */
void roles_step_down(struct replicator *r, const char *why);
void roles_take_over_value(struct replicator *r); /* the keeper's, role_lock held */
void roles_takeover_begin(struct replicator *r, const char *how);       /* phases are counted from now on */
void roles_takeover_mark(struct replicator *r, enum takeover_phase phase); /* this one ends now */

/* proposed.c */
/* register_settle(), for a value that names a primary or begins an epoch. role_lock held. -EINPROGRESS: this node is unsure,
 * and neither follows nor becomes primary by somebody else's word until proposed_look_again has settled it. Another error:
 * this one was not made, but an older one may be open still. */
int proposed_write(struct replicator *r, struct register_value *expected, const struct register_value *next);
void proposed_look_again(struct replicator *r); /* the keeper's, role_lock held */
void proposed_load(struct replicator *r);       /* at the start: what the process before left open */

/* handover.c */
void handover_take(struct replicator *r); /* another node hands over to this one; the keeper's, role_lock held */

#define SICK_LEAST (2000 * MS) /* a disk that takes this long for one thing is slow, not sick */
#define ASK_PATIENCE (500 * MS)     /* for peers' answers when it matters whether they live */
/* Hands over to `node`, which has to be in sync; role_lock held. As replicator_switchover. */
int handover_to(struct replicator *r, unsigned node, int64_t patience, char *why, size_t room);
/* A member that is in sync, answers, and has nothing against being primary; -1. */
int handover_successor(struct replicator *r);

/* duty.c */
void duty_start(struct replicator *r);
void duty_consider(struct replicator *r); /* the keeper's, role_lock held */
void service_consider(struct replicator *r); /* the same */
bool duty_in_sync(const struct replicator *r, unsigned node); /* of the primary; lock held */
int duty_edit_voters(struct replicator *r, enum voters_edit edit, const char *name, bool even, char *why, size_t room);

/* fencing.c */
void fencing_consider(struct replicator *r); /* the keeper's, role_lock held */
bool fencing_lets_go(const struct replicator *r, unsigned node); /* a silent member may be put out of the set; lock held */
void fencing_heard(struct replicator *r, unsigned node); /* it lives; lock held */
void fencing_stop(struct replicator *r); /* the keeper has ended */
/* promote.c: the primary is off; role_lock held */
int promote_fenced(struct replicator *r, char *why, size_t why_room);

/* spare.c; lock held, but for the last one */
bool spare_refused(const struct replicator *r, unsigned node);
void spare_consider(struct replicator *r, int64_t now);
const char *spare_why_out(const struct replicator *r, unsigned node); /* of the set; NULL: it stays */
void spare_voters(struct replicator *r, const struct lease_view *view); /* role_lock held */

/* candidate.c; of an engine with a lease */
void candidate_start(struct replicator *r);
void candidate_consider(struct replicator *r); /* the keeper's, role_lock held */
bool candidate_holds(const struct replicator *r); /* the lease lasts; always, without one. Any lock */
int candidate_take_lease(struct replicator *r, const struct register_value *value, char *why, size_t why_room);
void candidate_give_up(struct replicator *r);
/* What is known of the nodes, those that have answered since then; lock held. */
void candidate_view(struct replicator *r, int64_t since, struct elect_view *view);
/* The value names where its epoch began: a store without that is another one. Takes the engine lock. */
bool candidate_reaches_start(struct replicator *r);
json_t *candidate_takeover(const struct replicator *r); /* the last one; lock held */
json_t *candidate_status(struct replicator *r, json_t *shown); /* adds to it; lock held */
json_t *candidate_lease_status(struct replicator *r, const struct lease_view *lease);

void set_consider(struct replicator *r); /* set.c: shrink, grow; the keeper's, role_lock held */
/* A proposal that has not been handed to the register is taken back; no-op if there is none. lock held */
void set_withdraw(struct replicator *r);
/* It is a member, and the set without it is on its way to the register; lock held */
bool set_puts_out(const struct replicator *r, unsigned node);
/* Only the members of `keep` stay, and names that the config no longer has. */
void set_keep(const struct replicator *r, uint32_t keep, struct register_value *value);
uint32_t set_bits(const struct replicator *r, const struct register_value *value);
void set_add_self(const struct replicator *r, struct register_value *value);
/* What nodes that are in the set or fed have durably; *absent: every node, those that are away as last heard. lock held */
uint64_t roles_hold(struct replicator *r, uint64_t *absent);
void roles_hold_load(struct replicator *r); /* at the start */

#endif
