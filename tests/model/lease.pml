/* The register and the lease: voters that are CASPaxos acceptors and grant the lease, two nodes that propose, serve, hand
 * over and take over. Of one volume whose list of voters does not change (that is voters.pml), beginning with node 0 as
 * the primary.
 *
 * Code: membership/voter.c (take_promise, take_accept, grant_lease, may_release), change.c and what its caller does
 * between CHANGE_READ and change_next() (has_read …), lease.c (serves), replication/roles.c (may_take).
 *
 * Size: three voters, two nodes, BALLOTS ballots, which belong to the nodes in turns (the environment's FIRST has the
 * lowest). Nothing else has a bound: processes of nodes and voters end and start again, grants run out and are renewed,
 * without end.
 *
 * Messages are lost, repeated, late and out of order: an accept that was sent may arrive as long as the voter takes it.
 * Answers of voters arrive at once or never; one that comes later is as if the question had come later, or the node had
 * looked later. Late renewals of one who has stopped are not there: they would only keep others away.
 *
 * Time. There are no clocks. A holder counts its lease from before it asked, a voter the longer time from when it
 * granted: so what a holder counts ends before, and with, what the voter has granted, and this order is all that is said
 * of time (grant_ends, quiet_ends). A grant or a silence by which nobody counts is over at once: it would only keep
 * others away.
 *
 * Shown, in all states:
 * - never two who serve under a lease at one time;
 * - who serves has the newest epoch that is chosen: an older epoch never acknowledges after a newer one has;
 * - of two values that were chosen, one was made from the other: the register has one history;
 * - each start as primary is an epoch of its own (begun grows).
 * Liveness is not: a model in which nothing happens is allowed.
 */
/* Rules that can be taken out, one at a time: pan reads the number from the environment, WITHOUT. */
#define NO_REFUSAL_WHILE_GRANTED 1        /* a voter lets others in while its grant lasts */
#define NO_QUIET 2                        /* a voter that has just started lets everybody in */
#define NO_STOP_BEFORE_HANDING_OVER 3     /* the holder stops when the handover is chosen, not before it asks (history 24) */
#define NO_STOP_BEFORE_COMPLETING 4       /* it completes a value of another that it has found, and serves on (23) */
#define NO_FOR_EVER 5                     /* it has stopped, and goes on in its epoch when no answer comes (24) */
#define NO_WAIT_FOR_ITS_OWN_PROPOSAL 6    /* it takes a handover while a proposal of its own may still be accepted */
#define NO_MAJORITY_OF_GRANTS 7           /* it serves because the register names it */
#define NO_COUNTING_FROM_BEFORE_IT_ASKED 8/* its lease outlasts the grant: a clock that stood still (27) */
#define NO_EPOCH_IN_RENEWALS 9            /* a voter grants by name, whatever the epoch */
#define NO_EPOCH_IN_RELEASES 10           /* a late release cancels the new lease (28) */
#define NO_LOOK_AT_WHAT_WAS_ACCEPTED 11   /* a proposer takes the value that it knew for the present one */
#define NO_DISK_FOR_PROMISES 12           /* a voter that starts again has forgotten what it promised (33) */
#define NO_NEWER_EPOCH_TO_END_SILENCE 13  /* one that has just started lets everybody in when it hears of any value that is chosen */
c_decl { \#include <stdlib.h>
}
hidden byte without;

#define VOTERS 3
#ifndef BALLOTS
#define BALLOTS 3
#endif
#define MAJORITY (VOTERS / 2 + 1)

hidden byte first; /* whose ballot the lowest one is: then they take turns */
#define OWNER(b) (((b) + 1 + first) & 1)
#define next_ballot(n) (used[n] + (used[n] > 0 || n != first) + 1)
#define EPOCH(counter, node) ((counter) * 2 + (node))
#define COUNTER(e) ((e) / 2)
#define NODE(e) ((e) & 1)

/* ---- Values. Ballot 0 is the birth: node 0 in its first epoch, accepted by all. ---- */
byte value[BALLOTS + 1];    /* that the ballot's accepts carry: the ballot in which it was made; NONE: no accept was sent */
byte epoch[BALLOTS + 1];    /* of the value that was made in this ballot */
byte before[BALLOTS + 1];   /* the value that it was made from */
byte version[BALLOTS + 1];
byte accepts[BALLOTS + 1];  /* by so many voters, ever */
#define NONE 255

/* ---- Voters ---- */
typedef voter_state {
    unsigned promised : 3;  /* durable */
    unsigned accepted : 3;  /* durable */
    unsigned grant : 5;     /* epoch; 0: none */
    bit quiet;
    bit promise[2];         /* to node N's present ballot; the answer has arrived */
    bit counted[2];         /* node N counts its lease by a grant of this voter */
};
voter_state voter[VOTERS];
#define VALUE(v) value[voter[v].accepted]
#define VALUE_EPOCH(v) epoch[VALUE(v)]

/* ---- Nodes ---- */
byte used[2];               /* the highest ballot that it has begun */
byte prepares[2];           /* ballot; 0: none */
byte met[2];                /* the highest ballot in which one of those that promised has accepted */
bit open[2];                /* an accept of its own may be on its way whose outcome it does not know */
byte settled[2];            /* epoch of the value in its own newest accept */
byte begun[2];              /* the last epoch that it began: in its store */
bit held[2];                /* it has not stopped in that epoch */

#define not_granted_but_to(v, n) (voter[v].grant == 0 || NODE(voter[v].grant) == n || without == NO_REFUSAL_WHILE_GRANTED)
#define free_for(v, n) (not_granted_but_to(v, n) && (!voter[v].quiet || NODE(VALUE_EPOCH(v)) == n))

hidden byte i, t, u; /* scratch */

#define grants(n) (voter[0].counted[n] + voter[1].counted[n] + voter[2].counted[n])
#define promises(n) (voter[0].promise[n] + voter[1].promise[n] + voter[2].promise[n])
#define serves(n) (held[n] && (grants(n) >= MAJORITY || without == NO_MAJORITY_OF_GRANTS))
#define chosen(b) (accepts[b] >= MAJORITY)
#define is_newer(b, e) (value[b] != NONE && chosen(b) && epoch[value[b]] > (e))
#if BALLOTS == 5
#define newer_is_chosen(e) (is_newer(1, e) || is_newer(2, e) || is_newer(3, e) || is_newer(4, e) || is_newer(5, e))
#elif BALLOTS == 4
#define newer_is_chosen(e) (is_newer(1, e) || is_newer(2, e) || is_newer(3, e) || is_newer(4, e))
#elif BALLOTS == 3
#define newer_is_chosen(e) (is_newer(1, e) || is_newer(2, e) || is_newer(3, e))
#else
#define newer_is_chosen(e) (is_newer(1, e) || is_newer(2, e))
#endif
inline check() {
    assert(!(serves(0) && serves(1)));
    assert(!serves(0) || !newer_is_chosen(begun[0]));
    assert(!serves(1) || !newer_is_chosen(begun[1]))
}

inline sort_voters() { /* they are alike: which is which does not matter */
    c_code {
        for (int at = 0; at < VOTERS; at++) {
            struct voter_state *v = &now.voter[at];
            if (v->grant && !(v->grant & 1 ? v->counted[1] : v->counted[0]))
                v->grant = 0;
            if (!v->counted[0] && !v->counted[1])
                v->quiet = 0;
        }
        for (int rounds = 1; rounds < VOTERS; rounds++)
            for (int at = 0; at + 1 < VOTERS; at++)
                if (memcmp(&now.voter[at], &now.voter[at + 1], sizeof now.voter[at]) > 0) {
                    struct voter_state other = now.voter[at];
                    now.voter[at] = now.voter[at + 1];
                    now.voter[at + 1] = other;
                }
    }
}

inline end_prepare(n) {
    prepares[n] = 0;
    met[n] = 0;
    voter[0].promise[n] = 0; voter[1].promise[n] = 0; voter[2].promise[n] = 0
}

inline begin_lease(n, e) {
    begun[n] = e;
    held[n] = 1;
    voter[0].counted[n] = 0; voter[1].counted[n] = 0; voter[2].counted[n] = 0
}

inline make_value(n, e) { /* from what it has read */
    value[prepares[n]] = prepares[n];
    epoch[prepares[n]] = e;
    before[prepares[n]] = value[met[n]];
    version[prepares[n]] = version[value[met[n]]] + 1;
}
inline send_accept(n) {
    settled[n] = epoch[value[prepares[n]]];
    open[n] = 1;
    end_prepare(n);
}
inline stop(n) {
    held[n] = 0;
    voter[0].counted[n] = 0; voter[1].counted[n] = 0; voter[2].counted[n] = 0
}

/* Ballot b is chosen: of two values that were chosen, one was made from the other. */
inline check_history(b) {
    for (i : 0 .. BALLOTS) {
        if
        :: value[i] != NONE && accepts[i] >= MAJORITY ->
            if
            :: version[value[i]] < version[value[b]] -> t = value[b]; u = value[i]
            :: else -> t = value[i]; u = value[b]
            fi;
            do
            :: version[t] > version[u] -> t = before[t]
            :: else -> break
            od;
            assert(t == u)
        :: else
        fi
    }
    i = 0; t = 0; u = 0;
}

#define READ_OF(n) value[met[n]]
#define has_read(n) (prepares[n] != 0 && promises(n) >= MAJORITY)

/* Its own newest ballot was chosen, and it knows: and what that had is older than the handover. So whoever grants by the
 * handover's value has accepted that in a higher ballot than its own, and nothing that it sent before can end such a grant
 * behind its back. */
#define nothing_open(n, e) (without == NO_WAIT_FOR_ITS_OWN_PROPOSAL || (!open[n] && e > settled[n]))
#define may_take(n, b) (value[b] != NONE && accepts[b] >= MAJORITY && NODE(epoch[value[b]]) == n && \
    epoch[value[b]] > begun[n] && nothing_open(n, epoch[value[b]]))

proctype node(byte n) {
end:
    do
    /* begins a change, and gives up the one before: prepares go out */
    :: d_step { next_ballot(n) <= BALLOTS ->
           end_prepare(n); used[n] = next_ballot(n); prepares[n] = used[n]; sort_voters() }
    /* has read: makes itself primary */
    :: d_step { has_read(n) ->
           make_value(n, EPOCH(COUNTER(epoch[READ_OF(n)]) + 2, n));
           stop(n);
           send_accept(n); sort_voters() }
    /* the holder hands over */
    :: d_step { has_read(n) && held[n] && epoch[READ_OF(n)] == begun[n] ->
           make_value(n, EPOCH(COUNTER(begun[n]) + 1, 1 - n));
           if
           :: without != NO_STOP_BEFORE_HANDING_OVER -> stop(n)
           :: else
           fi;
           send_accept(n); sort_voters() }
    /* the holder changes the set */
    :: d_step { has_read(n) && held[n] && epoch[READ_OF(n)] == begun[n] ->
           make_value(n, begun[n]);
           send_accept(n); sort_voters() }
    /* proposes again what it has read */
    :: d_step { has_read(n) ->
           value[prepares[n]] = READ_OF(n);
           if
           :: epoch[READ_OF(n)] != begun[n] && without != NO_STOP_BEFORE_COMPLETING -> stop(n)
           :: else
           fi;
           send_accept(n); sort_voters() }
    /* learns that its own ballot is chosen */
    :: d_step { open[n] && prepares[n] == 0 && used[n] != 0 && value[used[n]] != NONE && chosen(used[n]) ->
           open[n] = 0;
           if
           :: value[used[n]] == used[n] && NODE(settled[n]) == n && settled[n] > begun[n] -> begin_lease(n, settled[n])
           :: else
           fi;
           check(); sort_voters() }
    /* takes a handover that it was told of */
    :: d_step { may_take(n, 1) -> end_prepare(n); begin_lease(n, epoch[value[1]]); check(); sort_voters() }
    :: d_step { may_take(n, 2) -> end_prepare(n); begin_lease(n, epoch[value[2]]); check(); sort_voters() }
#if BALLOTS >= 3
    :: d_step { may_take(n, 3) -> end_prepare(n); begin_lease(n, epoch[value[3]]); check(); sort_voters() }
#endif
#if BALLOTS >= 4
    :: d_step { may_take(n, 4) -> end_prepare(n); begin_lease(n, epoch[value[4]]); check(); sort_voters() }
#endif
#if BALLOTS >= 5
    :: d_step { may_take(n, 5) -> end_prepare(n); begin_lease(n, epoch[value[5]]); check(); sort_voters() }
#endif
    /* the answer stays away, and it goes on in its epoch */
    :: d_step { without == NO_FOR_EVER && !held[n] && open[n] && prepares[n] == 0 && begun[n] != 0 -> held[n] = 1 }
    /* ends and starts again */
    :: d_step { stop(n); end_prepare(n); open[n] = 1; sort_voters() }
    od
}

#define accept_arrives(v, b) (value[b] != NONE && voter[v].accepted != b && voter[v].promised <= b && free_for(v, OWNER(b)))

inline take_promise(v, n) {
    voter[v].promised = prepares[n];
    voter[v].promise[n] = 1;
    if
    :: voter[v].accepted > met[n] && without != NO_LOOK_AT_WHAT_WAS_ACCEPTED -> met[n] = voter[v].accepted
    :: else
    fi;
    sort_voters()
}
inline take_accept(v, b) {
    voter[v].promised = b;
    voter[v].accepted = b;
    if
    :: voter[v].grant != epoch[value[b]] -> voter[v].grant = 0
    :: else
    fi;
    accepts[b] = accepts[b] + 1;
    if
    :: accepts[b] == MAJORITY -> check_history(b)
    :: else
    fi;
    check();
    sort_voters()
}
inline grant_lease(v, n) {
    voter[v].grant = begun[n];
    voter[v].counted[n] = 1;
    check();
    sort_voters()
}
#define may_renew(v, n) \
    (held[n] && NODE(VALUE_EPOCH(v)) == n && (begun[n] == VALUE_EPOCH(v) || without == NO_EPOCH_IN_RENEWALS))
/* Time passes: what this voter had granted is over, and who counted by it counts no more. */
inline grant_ends(v) {
    if
    :: without != NO_COUNTING_FROM_BEFORE_IT_ASKED -> voter[v].counted[NODE(voter[v].grant)] = 0
    :: else
    fi;
    voter[v].grant = 0;
    sort_voters()
}
inline quiet_ends(v) {
    voter[v].quiet = 0;
    if
    :: voter[v].grant == 0 || NODE(voter[v].grant) != 0 -> voter[v].counted[0] = 0
    :: else
    fi;
    if
    :: voter[v].grant == 0 || NODE(voter[v].grant) != 1 -> voter[v].counted[1] = 0
    :: else
    fi;
    sort_voters()
}
/* A release, maybe a late one: node n has stopped in epoch e. */
#define has_stopped_in(n, e) (e < begun[n] || (e == begun[n] && !held[n]))
#define may_release(v, n) (NODE(VALUE_EPOCH(v)) == n && \
    (without == NO_EPOCH_IN_RELEASES -> has_stopped_in(n, EPOCH(1, n)) : \
    (has_stopped_in(n, VALUE_EPOCH(v)) && (voter[v].grant == 0 || voter[v].grant == VALUE_EPOCH(v)))))

proctype voters(byte v) {
end:
    do
    :: d_step { prepares[0] > voter[v].promised && !has_read(0) && free_for(v, 0) -> take_promise(v, 0) }
    :: d_step { prepares[1] > voter[v].promised && !has_read(1) && free_for(v, 1) -> take_promise(v, 1) }
    :: d_step { accept_arrives(v, 1) -> take_accept(v, 1) }
    :: d_step { accept_arrives(v, 2) -> take_accept(v, 2) }
#if BALLOTS >= 3
    :: d_step { accept_arrives(v, 3) -> take_accept(v, 3) }
#endif
#if BALLOTS >= 4
    :: d_step { accept_arrives(v, 4) -> take_accept(v, 4) }
#endif
#if BALLOTS >= 5
    :: d_step { accept_arrives(v, 5) -> take_accept(v, 5) }
#endif
    :: d_step { may_renew(v, 0) -> grant_lease(v, 0) }
    :: d_step { may_renew(v, 1) -> grant_lease(v, 1) }
    :: d_step { voter[v].grant != 0 -> grant_ends(v) }
    :: d_step { voter[v].quiet -> quiet_ends(v) }
    /* it hears that a value of a newer epoch is chosen: what it may have granted was of the epoch of its own (voter.c, may_have_forgotten) */
    :: d_step { voter[v].quiet && (newer_is_chosen(VALUE_EPOCH(v)) || without == NO_NEWER_EPOCH_TO_END_SILENCE) ->
           voter[v].quiet = 0;
           sort_voters() }
    :: d_step { may_release(v, 0) -> voter[v].grant = 0; voter[v].quiet = 0; sort_voters() }
    :: d_step { may_release(v, 1) -> voter[v].grant = 0; voter[v].quiet = 0; sort_voters() }
    /* ends and starts again: it has forgotten what it granted */
    :: d_step { without == NO_DISK_FOR_PROMISES && voter[v].promised > voter[v].accepted ->
           voter[v].promised = voter[v].accepted; sort_voters() }
    :: d_step { voter[v].grant != 0 ->
           voter[v].grant = 0;
           voter[v].quiet = (without != NO_QUIET);
           sort_voters() }
    od
}

init {
    d_step {
        c_code {
            without = getenv("WITHOUT") ? atoi(getenv("WITHOUT")) : 0;
            first = getenv("FIRST") ? atoi(getenv("FIRST")) : 0;
        };
        for (i : 1 .. BALLOTS) { value[i] = NONE }
        epoch[0] = EPOCH(1, 0);
        version[0] = 1;
        accepts[0] = VOTERS;
        begun[0] = epoch[0];
        held[0] = 1;
        settled[0] = epoch[0];
        settled[1] = epoch[0];
        i = 0;
    }
    atomic { run node(0); run node(1); run voters(0); run voters(1); run voters(2) }
}
