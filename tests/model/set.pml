/* The in-sync set: acknowledgements, growth and shrinking, incarnations, promotion, handover with unknown outcome. Two
 * nodes, a register, no lease: both may take themselves for the primary, and what waits has to be safe all the same
 * (invariant 6).
 *
 * Code: replication/acks.c (received_line, durable_line, of_both), set.c (world's part "The set"), roles.c ("Becoming
 * primary", "Handing over", start_again), follow.c and feed.c ("Following"), register_settle() in membership/register.c
 * ("What it asked for was not chosen"). The register is one value that is compared and set at once; lease.pml shows how
 * that is made.
 *
 * Size: two nodes, VERSIONS values of the register, LENGTH records, CUTS power cuts of each node, two writes of the
 * register on their way. Processes end and start again without end; one that has ended and not yet started does nothing,
 * and so is not told from one that is slow. Node 0 is the primary in the beginning, and both are in the set.
 *
 * A record is its LSN and the epoch in which it was made. It is acknowledged as soon as it may be, and an acknowledgement
 * of the peer arrives at once: whatever came later would promise less. What is not durable goes with a power cut, which
 * makes the store another incarnation. A write of the register is done at any time after it was asked for, or never;
 * whoever asked may see that, or not. A session that has ended on one side goes on on the other.
 *
 * Shown, after each step:
 * - what is acknowledged is on every store of the in-sync set, and so on whoever is promoted: it survives into the next
 *   epoch;
 * - what is acknowledged as durable is on the disk of every store in the set, whatever that lost since;
 * - what a node alone in the set has acknowledged is on its disk;
 * - what is acknowledged is never taken back, nor acknowledged with another content (but where all that had it lost
 *   power);
 * - no two starts as primary have one epoch.
 * Liveness is not. Not here: a rollback that loses power (history 30), which needs what a disk has beside what the store
 * has; the simulator plays it.
 */
/* Rules that can be taken out, one at a time: pan reads the number from the environment, WITHOUT. */
#define NO_BOTH_SETS 1                    /* while a set is proposed the old one alone counts (history 20) */
#define NO_DISK_WHERE_ALONE 2             /* a node alone acknowledges what it has received */
#define NO_DISK_BEFORE_SHRINKING 3        /* the set shrinks while the last acknowledgements are in two memories (22) */
#define NO_DISK_BEFORE_PROMOTION 4        /* so does it by a promotion */
#define NO_DISK_TO_JOIN 5                 /* a peer joins when it has received, not when it has on its disk (21) */
#define NO_STAY_OF_WHAT_WAS_ASKED 6       /* a proposal is withdrawn after the register was asked */
#define NO_LOOK_AT_THE_SET 7              /* promotion of a node that is no member (18, 31) */
#define NO_STOP_OF_THE_RECEIVER 8         /* a node receives and acknowledges while it is promoted (29) */
#define NO_REFUSAL_OF_OLD_EPOCHS 9        /* it follows a primary of an older epoch (28) */
#define NO_NEW_INCARNATION 10             /* a store that lost power counts as the one that it was (18, 19) */
#define NO_WAIT_FOR_ALL_MEMBERS 11        /* such a store starts although not all members are there (18) */
#define NO_COMPARING 12                   /* the register is set without being compared */
#define NO_READ_THAT_SETTLES 13           /* no answer, the old value is read: taken for a no (24) */
#define NO_READ_AT_THE_START 14           /* a process follows before it has settled what the one before it had asked for */
#define NO_WAIT_FOR_ITS_OWN_PROPOSAL 15   /* it takes a handover while a proposal of its own may still be chosen */
c_decl { \#include <stdlib.h>
}
hidden byte without;

#ifndef VERSIONS
#define VERSIONS 4          /* of the register; the first is 1 */
#endif
#ifndef LENGTH
#define LENGTH 1            /* records */
#endif
#ifndef CUTS
#define CUTS 1              /* power cuts, of each node */
#endif

#define EPOCH(counter, node) ((counter) * 2 + (node))
#define COUNTER(e) ((e) / 2)
#define NODE(e) ((e) & 1)
#define PEER(n) (1 - (n))

/* ---- The register: one value, changed by compare-and-set (lease.pml shows how that is made). A write that was asked for
 * may be done at any later time, as long as the version is the one that it expects. ---- */
typedef value_state {
    unsigned version : 4;   /* of a write: that it makes; 0: none */
    unsigned epoch : 5;
    unsigned owner : 1;     /* of a write: who asked for it */
    unsigned member0 : 2;   /* incarnation of node 0's store in the set; 0: not in it */
    unsigned member1 : 2;
};
value_state reg;
#define WRITES 2
value_state asked[WRITES];
value_state told;           /* the last handover that its sender knows to be chosen, as told to the other */
unsigned told_length : 2;
byte told_record;

/* ---- Nodes ---- */
#define STANDBY 0
#define PRIMARY 1
#define PROMOTING 2         /* has asked the register, and follows nobody */
#define HANDING 3           /* has asked the register, and acknowledges nothing */
typedef node_state {
    unsigned role : 2;
    unsigned incarnation : 2;
    unsigned length : 2;    /* records: in the tail… */
    unsigned durable : 2;   /* …and on the disk */
    unsigned follows : 5;   /* epoch of the session in which it receives; 0: none */
    unsigned least : 5;     /* it lets in no older epoch's frames */
    unsigned begun : 5;     /* the last epoch that it began, by its store */
    /* the primary: */
    unsigned epoch : 5;     /* PRIMARY: its epoch; PROMOTING, HANDING: that it asked for */
    unsigned version : 4;   /* of the register, as it knows it */
    unsigned with : 2;      /* incarnation of the peer in the set as it knows it; 0: alone */
    bit pending;            /* another set is proposed: */
    bit writing;            /* …and the register was asked */
    unsigned proposed : 2;  /* …with the peer of that incarnation */
    unsigned join : 2;      /* …which has to have so many records durably before the register is asked */
    bit feeds;              /* it has a session with the peer… */
    unsigned peer : 2;      /* …of that incarnation… */
    unsigned received : 2;  /* …which has told so much in it */
    unsigned peer_durable : 2;
};
node_state node[2];
typedef log_state { byte record[LENGTH + 1] }; /* at each LSN the epoch in which it was made: both are the record */
log_state log[2];

/* ---- Ghosts ---- */
byte acknowledged[LENGTH + 1]; /* the record; 0: none */
unsigned durably : 2;       /* …up to here also as durable */
int started;                /* a bit for each epoch's counter and node in which somebody began */

#define ALONE_IN(peer_in_set) ((peer_in_set) == 0)
#define own_line(n) (without == NO_DISK_WHERE_ALONE -> node[n].length : node[n].durable)
#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define told_by(n, in_set, position) ((in_set) == node[n].peer && node[n].feeds -> (position) : 0)
#define received_line(n, in_set) (ALONE_IN(in_set) -> own_line(n) : \
    MIN(node[n].length, told_by(n, in_set, node[n].received)))
#define durable_line(n, in_set) (ALONE_IN(in_set) -> own_line(n) : \
    MIN(node[n].durable, told_by(n, in_set, node[n].peer_durable)))
#define of_both(n, line) (node[n].pending && without != NO_BOTH_SETS -> \
    MIN(line(n, node[n].with), line(n, node[n].proposed)) : line(n, node[n].with))

hidden byte i, j, line, new_epoch, new_version, new_peer;

/* A primary acknowledges what it may, at once: who does it later has acknowledged less. */
inline acknowledge(Q) {
    if
    :: node[Q].role == PRIMARY ->
        line = of_both(Q, received_line);
        for (i : 1 .. LENGTH) {
            if
            :: i <= line ->
                assert(acknowledged[i] == 0 || acknowledged[i] == log[Q].record[i]);
                acknowledged[i] = log[Q].record[i]
            :: else
            fi
        }
        line = of_both(Q, durable_line);
        if
        :: line > durably && acknowledged[line] != 0 -> durably = line
        :: else
        fi
    :: else
    fi;
    i = 0; line = 0
}

#define MEMBER(n) (n == 0 -> reg.member0 : reg.member1)
#define LIVE(n) (MEMBER(n) == node[n].incarnation)
#define ALONE(n) (LIVE(n) && MEMBER(1 - n) == 0)

inline check_node(Q) {
    for (i : 1 .. LENGTH) {
        if
        :: acknowledged[i] != 0 ->
            /* What is acknowledged is on every store of the in-sync set. */
            assert(!LIVE(Q) || (node[Q].length >= i && log[Q].record[i] == acknowledged[i]));
            /* A node alone in the set: on its disk. */
            assert(!ALONE(Q) || node[Q].durable >= i);
            /* What is acknowledged as durable is on the disk of every store in the set, whatever it lost since. */
            assert(i > durably || MEMBER(Q) == 0 || (node[Q].durable >= i && log[Q].record[i] == acknowledged[i]))
        :: else
        fi
    }
    i = 0
}

/* After each step. */
inline settle() {
    acknowledge(0);
    acknowledge(1);
    if
    :: !LIVE(0) && !LIVE(1) -> /* all that had it lost power: what was on no disk is lost, and nobody could help it */
        for (i : 1 .. LENGTH) {
            if
            :: i > durably -> acknowledged[i] = 0
            :: else
            fi
        }
    :: else
    fi;
    check_node(0);
    check_node(1);
    c_code {
        for (int w = 0; w < WRITES; w++)
            if (now.asked[w].version != now.reg.version + 1 && without != NO_COMPARING)
                memset(&now.asked[w], 0, sizeof now.asked[w]);
        if (memcmp(&now.asked[0], &now.asked[1], sizeof now.asked[0]) > 0) {
            struct value_state other = now.asked[0];
            now.asked[0] = now.asked[1];
            now.asked[1] = other;
        }
        if (now.told.epoch && now.told.epoch <= now.node[now.told.epoch & 1].begun)
            memset(&now.told, 0, sizeof now.told), now.told_length = now.told_record = 0;
    }
}

#define room_to_ask (asked[0].version == 0)
inline ask(Q, make_version, make_epoch, make_self, make_peer) {
    asked[0].version = make_version;
    asked[0].epoch = make_epoch;
    asked[0].owner = Q;
    if
    :: Q == 0 -> asked[0].member0 = make_self; asked[0].member1 = make_peer
    :: else -> asked[0].member1 = make_self; asked[0].member0 = make_peer
    fi
}
inline new_incarnation(Q) {
    if
    :: without != NO_NEW_INCARNATION -> node[Q].incarnation = node[Q].incarnation + 1
    :: else
    fi
}
/* Its own writes that are on their way will not be done. */
inline end_writes(Q) {
    if
    :: asked[0].owner == Q -> asked[0].version = 0
    :: else
    fi;
    if
    :: asked[1].owner == Q -> asked[1].version = 0
    :: else
    fi
}
inline end_feed(Q) {
    node[Q].feeds = 0;
    node[Q].peer = 0;
    node[Q].received = 0;
    node[Q].peer_durable = 0
}
inline end_role(R) {
    node[R].role = STANDBY;
    node[R].epoch = 0;
    node[R].version = 0;
    node[R].with = 0;
    node[R].pending = 0;
    node[R].writing = 0;
    node[R].proposed = 0;
    node[R].join = 0;
    end_feed(R)
}
inline begin_epoch(S) /* new_epoch, new_version, new_peer: the value */ {
    end_role(S);
    node[S].role = PRIMARY;
    node[S].follows = 0;
    node[S].epoch = new_epoch;
    node[S].begun = new_epoch;
    node[S].least = new_epoch;
    node[S].version = new_version;
    node[S].with = new_peer;
    assert((started & (1 << new_epoch)) == 0); /* each start is an epoch of its own */
    started = started | (1 << new_epoch);
    new_epoch = 0; new_version = 0; new_peer = 0
}

#define in_session(n) (node[n].follows != 0 && node[PEER(n)].role == PRIMARY && node[PEER(n)].epoch == node[n].follows)
/* What its peer has told when it received or flushed: the session is the present one. */
inline tell(Q) {
    if
    :: in_session(Q) && node[PEER(Q)].feeds ->
        node[PEER(Q)].received = node[Q].length;
        node[PEER(Q)].peer_durable = node[Q].durable
    :: else
    fi
}

#define may_propose(n) (node[n].role == PRIMARY && !node[n].pending && node[n].version < VERSIONS)
#define is_what_it_asked(n) (reg.version == node[n].version + 1 && reg.epoch == node[n].epoch && \
    MEMBER(n) == node[n].incarnation && MEMBER(1 - n) == node[n].proposed)
#define surely_not_chosen(n) (reg.version == node[n].version)

#define LAST(n) log[n].record[node[n].length]
#define not_behind(n) (LAST(n) > LAST(1 - n) || (LAST(n) == LAST(1 - n) && node[n].length >= node[1 - n].length))

#define lets_in(n, e) ((e) >= node[n].least || without == NO_REFUSAL_OF_OLD_EPOCHS)
#define receives(n) (node[n].role == STANDBY || (node[n].role == PROMOTING && without == NO_STOP_OF_THE_RECEIVER))
#define may_promote(n) (node[n].role == STANDBY && (LIVE(n) || without == NO_LOOK_AT_THE_SET))
#define all_present_and_not_behind(n) \
    (MEMBER(1 - n) == 0 || (node[1 - n].role == STANDBY && not_behind(n)) || without == NO_WAIT_FOR_ALL_MEMBERS)
#define has_to_join(n) (without == NO_DISK_TO_JOIN -> node[n].received : node[n].peer_durable)
#define may_withdraw(n) (node[n].pending && (!node[n].writing || without == NO_STAY_OF_WHAT_WAS_ASKED))
#define may_take(n) (node[n].role == STANDBY || (node[n].role == PROMOTING && without == NO_WAIT_FOR_ITS_OWN_PROPOSAL))

inline forget_beyond(Q, end) { /* records above LSN `end` */
    for (j : 1 .. LENGTH) {
        if
        :: j > end -> log[Q].record[j] = 0
        :: else
        fi
    }
    node[Q].length = end;
    node[Q].durable = MIN(node[Q].durable, end);
    j = 0
}
inline promote(S, which, others) {
    if
    :: without != NO_STOP_OF_THE_RECEIVER -> node[S].follows = 0
    :: else
    fi;
    node[S].role = PROMOTING;
    node[S].epoch = which;
    node[S].version = reg.version;
    node[S].proposed = others;
    ask(S, reg.version + 1, which, node[S].incarnation, others)
}
inline end_proposal(Q) {
    node[Q].pending = 0;
    node[Q].writing = 0;
    node[Q].proposed = 0;
    node[Q].join = 0
}
/* Its process ends, and starts again. It reads the register before it follows anybody; that is a change of the register like
 * any other, after which nothing that it had asked for before can be done. */
inline start_again(S) {
    end_role(S);
    node[S].follows = 0;
    if
    :: without == NO_READ_AT_THE_START -> node[S].least = LAST(S)
    :: else -> end_writes(S); node[S].least = reg.epoch
    fi;
    settle()
}

proctype world(byte n) {
end:
    do
    /* ---- Work ---- */
    :: d_step { node[n].role == PRIMARY && node[n].length < LENGTH ->
           node[n].length++; log[n].record[node[n].length] = node[n].epoch; settle() }
    :: d_step { node[n].durable < node[n].length -> node[n].durable = node[n].length; tell(n); settle() }

    /* ---- Following ---- */
    /* It logs in, and takes back what its primary does not have. */
    :: d_step { node[n].role == STANDBY && node[PEER(n)].role == PRIMARY && node[n].follows != node[PEER(n)].epoch &&
           lets_in(n, node[PEER(n)].epoch) ->
           i = 0;
           do
           :: i < node[n].length && i < node[PEER(n)].length ->
               if
               :: log[n].record[i + 1] == log[PEER(n)].record[i + 1] -> i++
               :: else -> break
               fi
           :: else -> break
           od;
           forget_beyond(n, i);
           node[n].follows = node[PEER(n)].epoch;
           node[n].least = node[PEER(n)].epoch;
           node[PEER(n)].feeds = 1;
           node[PEER(n)].peer = node[n].incarnation;
           node[PEER(n)].received = 0;
           node[PEER(n)].peer_durable = 0;
           tell(n);
           settle() }
    :: d_step { receives(n) && in_session(n) && node[n].length < node[PEER(n)].length ->
           node[n].length++;
           log[n].record[node[n].length] = log[PEER(n)].record[node[n].length];
           tell(n); settle() }

    /* ---- Becoming primary ---- */
    :: d_step { may_promote(n) && reg.version < VERSIONS && room_to_ask ->
           if
           :: without != NO_DISK_BEFORE_PROMOTION -> node[n].durable = node[n].length
           :: else
           fi;
           promote(n, EPOCH(COUNTER(reg.epoch) + 2, n), 0); settle() }
    /* The register names it: a new epoch of its own. */
    :: d_step { node[n].role == STANDBY && NODE(reg.epoch) == n && LIVE(n) && reg.version < VERSIONS && room_to_ask ->
           new_peer = MEMBER(PEER(n)); promote(n, EPOCH(COUNTER(reg.epoch) + 1, n), new_peer); new_peer = 0; settle() }
    /* Its store lost power, and was a member: all members are there, and it has the most. */
    :: d_step { node[n].role == STANDBY && MEMBER(n) != 0 && !LIVE(n) && all_present_and_not_behind(n) &&
           reg.version < VERSIONS && room_to_ask ->
           new_peer = MEMBER(PEER(n)); promote(n, EPOCH(COUNTER(reg.epoch) + 1, n), new_peer); new_peer = 0; settle() }
    :: d_step { node[n].role == PROMOTING && is_what_it_asked(n) ->
           new_epoch = reg.epoch; new_version = reg.version; new_peer = MEMBER(PEER(n)); begin_epoch(n); settle() }

    /* ---- The set ---- */
    :: d_step { may_propose(n) && node[n].with != 0 && room_to_ask ->
           node[n].pending = 1;
           node[n].writing = 1;
           if
           :: without != NO_DISK_BEFORE_SHRINKING -> node[n].durable = node[n].length
           :: else
           fi;
           ask(n, node[n].version + 1, node[n].epoch, node[n].incarnation, 0); settle() }
    :: d_step { may_propose(n) && node[n].feeds && node[n].peer != node[n].with ->
           node[n].pending = 1;
           node[n].proposed = node[n].peer;
           node[n].join = node[n].length; settle() }
    :: d_step { node[n].pending && !node[n].writing && node[n].feeds && node[n].peer == node[n].proposed &&
           has_to_join(n) >= node[n].join && room_to_ask ->
           node[n].writing = 1;
           node[n].join = 0;
           ask(n, node[n].version + 1, node[n].epoch, node[n].incarnation, node[n].proposed); settle() }
    :: d_step { may_withdraw(n) -> end_proposal(n); settle() }
    :: d_step { node[n].writing && is_what_it_asked(n) ->
           node[n].with = node[n].proposed;
           node[n].version = reg.version;
           end_proposal(n); settle() }
    /* The register has another set of its epoch, or another epoch. */
    :: d_step { node[n].role == PRIMARY && node[n].version < reg.version && reg.epoch == node[n].epoch &&
           !(node[n].writing && is_what_it_asked(n)) ->
           node[n].with = MEMBER(PEER(n));
           node[n].version = reg.version;
           end_proposal(n); settle() }

    /* ---- Handing over ---- */
    :: d_step { may_propose(n) && node[n].with != 0 && node[n].feeds && node[n].peer == node[n].with &&
           node[n].peer_durable == node[n].length && node[n].durable == node[n].length && room_to_ask ->
           node[n].role = HANDING;
           node[n].epoch = EPOCH(COUNTER(node[n].epoch) + 1, PEER(n));
           node[n].proposed = node[n].with;
           node[n].with = 0;
           end_feed(n);
           ask(n, node[n].version + 1, node[n].epoch, node[n].incarnation, node[n].proposed); settle() }
    :: d_step { node[n].role == HANDING && is_what_it_asked(n) ->
           told.version = reg.version;
           told.epoch = reg.epoch;
           told.member0 = reg.member0;
           told.member1 = reg.member1;
           told_length = node[n].length;
           told_record = LAST(n);
           end_role(n); settle() }
    :: d_step { may_take(n) && told.version != 0 && NODE(told.epoch) == n &&
           told.epoch > node[n].begun && told.epoch >= node[n].least &&
           (n == 0 -> told.member0 : told.member1) == node[n].incarnation &&
           node[n].length == told_length && LAST(n) == told_record ->
           new_epoch = told.epoch; new_version = told.version; new_peer = (n == 0 -> told.member1 : told.member0);
           begin_epoch(n); settle() }

    /* ---- What it asked for was not chosen ---- */
    /* It has read the register since, which is a change like any other: what it had asked for can be done no more. */
    :: d_step { (node[n].writing || node[n].role == PROMOTING || node[n].role == HANDING) && surely_not_chosen(n) ->
           if
           :: without != NO_READ_THAT_SETTLES -> end_writes(n)
           :: else
           fi;
           if
           :: node[n].role == PRIMARY -> end_proposal(n)
           :: else -> end_role(n)
           fi;
           settle() }
    :: d_step { node[n].version < reg.version && ((node[n].role == PRIMARY && reg.epoch != node[n].epoch) ||
           ((node[n].role == PROMOTING || node[n].role == HANDING) && !is_what_it_asked(n))) ->
           end_role(n); settle() }

    /* ---- Ends ---- */
    :: d_step { start_again(n) }
    :: d_step { node[n].incarnation <= CUTS -> /* without power, and nothing is lost */
           new_incarnation(n); start_again(n) }
    :: d_step { node[n].incarnation <= CUTS && node[n].durable < node[n].length ->
           forget_beyond(n, node[n].durable);
           node[n].begun = LAST(n);
           new_incarnation(n); start_again(n) }
    od
}

inline do_write(w) {
    reg.version = reg.version + 1;
    reg.epoch = asked[w].epoch;
    reg.member0 = asked[w].member0;
    reg.member1 = asked[w].member1;
    asked[w].version = 0;
    settle()
}
#define may_be_done(w) (asked[w].version != 0 && reg.version < VERSIONS && \
    (asked[w].version == reg.version + 1 || without == NO_COMPARING))
proctype register() {
end:
    do
    :: d_step { may_be_done(0) -> do_write(0) }
    :: d_step { may_be_done(1) -> do_write(1) }
    :: d_step { asked[0].version != 0 -> asked[0].version = 0; settle() } /* lost */
    :: d_step { asked[1].version != 0 -> asked[1].version = 0; settle() }
    od
}

init {
    d_step {
        c_code { without = getenv("WITHOUT") ? atoi(getenv("WITHOUT")) : 0; };
        node[0].incarnation = 1;
        node[1].incarnation = 1;
        node[0].role = PRIMARY;
        node[0].epoch = EPOCH(1, 0);
        node[0].begun = EPOCH(1, 0);
        node[0].least = EPOCH(1, 0);
        node[1].least = EPOCH(1, 0);
        node[0].version = 1;
        node[0].with = 1;
        started = 1 << EPOCH(1, 0);
        reg.version = 1;
        reg.epoch = EPOCH(1, 0);
        reg.member0 = 1;
        reg.member1 = 1;
    }
    atomic { run world(0); run world(1); run register() }
}
