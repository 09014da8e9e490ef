/* Voters that are replaced while a lease is held: the list of voters is part of the value, and changes with it.
 *
 * Code: membership/change.c (take_promise is note_promise and look_at_promises, take_accept is note_acceptance), voter.c,
 * lease.c (serves: count; may_replace: lease_may_propose; learns: lease_voters). How the register works with a list that does not change, and the lease, is
 * lease.pml; what that shows in more detail is left out here: silent voters, releases, handovers, sets.
 *
 * Size: two nodes, a list of three voters, and one that is in no list yet; BALLOTS ballots, in turns (FIRST). A voter
 * that has lost its disk is another one, which is in no list, and the old one answers no more: that is one that is slow
 * for ever, and so among all the others.
 *
 * Messages and time as in lease.pml. A node knows of any value that is chosen, be it an old one, and before its proposer does:
 * it may have looked. A voter that has just become one is not silent: it may not know that it is one. The list is changed by
 * who holds the lease; without leases, by anybody.
 *
 * What a lease has reached stays, whatever the list (lease.c: until). It needs nothing here: a list is proposed when two of
 * its three grant all of it, and these are two of the list before, too. So majorities of both grant for as long.
 *
 * Shown, in all states:
 * - never two who serve under a lease at one time;
 * - who serves has the newest epoch that is chosen;
 * - of two values that were chosen, one was made from the other, whatever list its proposer knew.
 * Not found in this size: a third list that is proposed while a second one may be chosen (voter-test has that).
 */
/* Rules that can be taken out, one at a time: pan reads the number from the environment, WITHOUT. */
#define NO_LIST_IN_THE_VALUE 1           /* a proposer goes by the list that it knew, be it its config's (history 25) */
#define NO_MAJORITY_OF_THE_OLD_LIST 2    /* the next list alone has to accept */
#define NO_MAJORITY_OF_THE_NEXT_LIST 3   /* the list before alone has to accept */
#define NO_OTHER_VOTER_AFTER_A_LOSS 4    /* a voter that has lost its disk votes on */
#define NO_LEASE_BY_THE_NEXT_LIST 5      /* the holder counts by the list of its epoch's start */
#define NO_CHOSEN_LIST_TO_BEGIN_WITH 6   /* a proposer begins with a list that it has only met */
#define NO_GUARD_OF_THE_NEXT_LIST 7      /* it proposes one of which too few grant what it has reached */
#define NO_LEASE_BY_BOTH_LISTS 8         /* it counts by the old list alone until it knows that the next one is chosen */
c_decl {
\#include <stdbool.h>
\#include <stdlib.h>
}
hidden byte without, first, ballots, leases;

#define VOTERS 4
#define MAJORITY 2 /* of a list: they have three */
#ifndef BALLOTS
#define BALLOTS 3
#endif
#define OWNER(b) (((b) + 1 + first) & 1)
#define next_ballot(n) (used[n] + (used[n] > 0 || n != first) + 1)
#define EPOCH(counter, node) ((counter) * 2 + (node))
#define COUNTER(e) ((e) / 2)
#define NODE(e) ((e) & 1)

/* ---- Values. Ballot 0 is the birth: node 0 in its first epoch, accepted by its three voters. ---- */
byte value[BALLOTS + 1];    /* that the ballot's accepts carry: the ballot in which it was made; NONE: no accept was sent */
byte epoch[BALLOTS + 1];    /* of the value that was made in this ballot */
byte before[BALLOTS + 1];   /* the value that it was made from */
byte version[BALLOTS + 1];
byte needed[BALLOTS + 1];   /* bits: values of whose lists a majority has to accept in this ballot */
byte done;                  /* bits: ballots whose value is chosen */
byte known;                 /* bits: values that are chosen */
#define NONE 255

/* ---- Voters ---- */
typedef voter_state {
    unsigned promised : 3;
    unsigned accepted : 3;  /* ballot + 1; 0: nothing yet */
    unsigned grant : 5;     /* epoch; 0: none */
    bit promise[2];         /* to node N's present ballot */
    bit counted[2];         /* node N counts its lease by a grant of this voter */
    bit kept[2];            /* without a guard: what it had reached before its list changed it had by this voter */
    byte listed;            /* bits: values in whose lists it is */
    byte took;              /* bits: ballots in which it has accepted */
};
voter_state voter[VOTERS];
#define VALUE(v) value[voter[v].accepted - 1]
#define is_listed(v, which) ((voter[v].listed >> (which)) & 1)

/* ---- Nodes ---- */
byte used[2];               /* the highest ballot that it has begun */
byte prepares[2];           /* ballot; 0: none */
byte lists[2];              /* bits: values of whose lists a majority has to promise */
byte met[2];                /* the highest ballot + 1 in which one of those that promised has accepted */
bit has_read[2];            /* all these have promised: the value of that ballot is the present one */
bit open[2];                /* it waits for the outcome of its own newest ballot */
byte begun[2];              /* the last epoch that it began */
bit held[2];                /* it has not stopped in that epoch */
byte under[2];              /* the value by whose list it counts its lease… */
byte beside[2];             /* …and another one, of which it does not know whether it is chosen; NONE */

hidden byte i, t, u, asker; /* scratch */

#define free_for(v, n) (voter[v].grant == 0 || NODE(voter[v].grant) == n)
#define counts(v, n, list) (voter[v].counted[n] && is_listed(v, list))
#define grants(n, list) (counts(0, n, list) + counts(1, n, list) + counts(2, n, list) + counts(3, n, list) >= MAJORITY)
#define keeps(n) (voter[0].kept[n] || voter[1].kept[n] || voter[2].kept[n] || voter[3].kept[n])
#define serves(n) (held[n] && (keeps(n) || (grants(n, under[n]) && (beside[n] == NONE || grants(n, beside[n])))))
#define is_newer(b, e) (((done >> (b)) & 1) && epoch[value[b]] > (e))
#if BALLOTS == 4
#define newer_is_chosen(e) (is_newer(1, e) || is_newer(2, e) || is_newer(3, e) || is_newer(4, e))
#elif BALLOTS == 3
#define newer_is_chosen(e) (is_newer(1, e) || is_newer(2, e) || is_newer(3, e))
#else
#define newer_is_chosen(e) (is_newer(1, e) || is_newer(2, e))
#endif

inline sort_voters() { /* which is which does not matter, only in what lists they are */
    c_code {
        for (int at = 0; at < VOTERS; at++) {
            struct voter_state *v = &now.voter[at];
            if (v->grant && !(v->grant & 1 ? v->counted[1] || v->kept[1] : v->counted[0] || v->kept[0]))
                v->grant = 0;
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
/* After each step. */
inline settle() {
    assert(!(serves(0) && serves(1)));
    assert(!serves(0) || !newer_is_chosen(begun[0]));
    assert(!serves(1) || !newer_is_chosen(begun[1]));
    sort_voters()
}

inline end_prepare(n) {
    prepares[n] = 0;
    lists[n] = 0;
    met[n] = 0;
    has_read[n] = 0;
    voter[0].promise[n] = 0; voter[1].promise[n] = 0; voter[2].promise[n] = 0; voter[3].promise[n] = 0
}
inline forget_grants(n) {
    voter[0].counted[n] = 0; voter[1].counted[n] = 0; voter[2].counted[n] = 0; voter[3].counted[n] = 0
}
inline forget_kept(n) {
    voter[0].kept[n] = 0; voter[1].kept[n] = 0; voter[2].kept[n] = 0; voter[3].kept[n] = 0
}
inline stop(n) {
    held[n] = 0;
    under[n] = 0;
    beside[n] = NONE;
    forget_kept(n);
    forget_grants(n)
}
#define PRESENT(n) value[met[n] - 1]

/* From what it has read, with the same list. */
inline make_value(n, e) {
    t = prepares[n];
    value[t] = t;
    epoch[t] = e;
    before[t] = PRESENT(n);
    version[t] = version[PRESENT(n)] + 1;
    u = PRESENT(n);
    for (i : 0 .. VOTERS - 1) { voter[i].listed = voter[i].listed | (is_listed(i, u) << t) }
    i = 0; t = 0; u = 0
}
inline send_accept(n) {
    needed[prepares[n]] = lists[n];
    if
    :: without == NO_MAJORITY_OF_THE_OLD_LIST -> needed[prepares[n]] = 1 << value[prepares[n]]
    :: without == NO_MAJORITY_OF_THE_NEXT_LIST
    :: else -> needed[prepares[n]] = needed[prepares[n]] | (1 << value[prepares[n]])
    fi;
    open[n] = 1;
    end_prepare(n)
}
inline begin_change(n, start) {
    end_prepare(n);
    used[n] = next_ballot(n);
    prepares[n] = used[n];
    lists[n] = 1 << start;
    open[n] = 0;
    sort_voters()
}
#define may_begin(n, start) (next_ballot(n) <= ballots && (((known >> (start)) & 1) || \
    (without == NO_CHOSEN_LIST_TO_BEGIN_WITH && value[start] == start)))

proctype node(byte n) {
end:
    do
    :: d_step { may_begin(n, 0) -> begin_change(n, 0) }
    :: d_step { may_begin(n, 1) -> begin_change(n, 1) }
    :: d_step { may_begin(n, 2) -> begin_change(n, 2) }
    /* makes itself primary */
    :: d_step { has_read[n] -> make_value(n, EPOCH(COUNTER(epoch[PRESENT(n)]) + 1, n)); stop(n); send_accept(n); settle() }
    /* proposes again what it has read */
    :: d_step { has_read[n] ->
           value[prepares[n]] = PRESENT(n);
           if
           :: epoch[PRESENT(n)] != begun[n] -> stop(n)
           :: else
           fi;
           send_accept(n); settle() }
    /* learns that its own ballot is chosen */
    :: d_step { open[n] && ((done >> used[n]) & 1) ->
           open[n] = 0;
           t = value[used[n]];
           if
           :: leases && t == used[n] && NODE(epoch[t]) == n && epoch[t] > begun[n] ->
               begun[n] = epoch[t]; held[n] = 1; under[n] = t; beside[n] = NONE; forget_kept(n); forget_grants(n)
           :: held[n] && epoch[t] == begun[n] ->
               if
               :: beside[n] != NONE && version[t] >= version[beside[n]] -> beside[n] = NONE
               :: else
               fi;
               if
               :: without != NO_LEASE_BY_THE_NEXT_LIST && version[t] > version[under[n]] ->
                   under[n] = t;
                   for (i : 0 .. VOTERS - 1) {
                       voter[i].counted[n] = voter[i].counted[n] &&
                           (is_listed(i, t) || (beside[n] != NONE && is_listed(i, beside[n])))
                   }
                   i = 0
               :: else
               fi
           :: else
           fi;
           t = 0;
           settle() }
    /* ends and starts again */
    :: d_step { leases -> stop(n); end_prepare(n); open[n] = 0; sort_voters() }
    od
}

inline take_promise(v, n) {
    voter[v].promised = prepares[n];
    voter[v].promise[n] = 1;
    if
    :: voter[v].accepted > met[n] -> met[n] = voter[v].accepted
    :: else
    fi;
    asker = n;
    c_code {
        for (bool more = now.met[asker] > 0; more;) {
            int present = now.value[now.met[asker] - 1];
            for (int list = 0; list <= BALLOTS; list++) {
                int promises = 0;
                for (int at = 0; at < VOTERS; at++)
                    promises += now.voter[at].promise[asker] && now.voter[at].listed >> list & 1;
                if (now.lists[asker] >> list & 1 && promises < MAJORITY)
                    more = false;
            }
            if (more && (now.lists[asker] >> present & 1 || without == NO_LIST_IN_THE_VALUE)) {
                now.has_read[asker] = 1;
                more = false;
            } else if (more) {
                now.lists[asker] |= 1 << present; /* its voters have to promise, too */
            }
        }
    };
    asker = 0;
    sort_voters()
}
#define is_asked(v, n) \
    (prepares[n] > voter[v].promised && !has_read[n] && (voter[v].listed & lists[n]) != 0 && free_for(v, n))

/* Of two values that were chosen, one was made from the other. */
inline check_history(b) {
    for (i : 0 .. BALLOTS) {
        if
        :: (done >> i) & 1 ->
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
    i = 0; t = 0; u = 0
}
inline take_accept(v, b) {
    voter[v].promised = b;
    voter[v].accepted = b + 1;
    voter[v].took = voter[v].took | (1 << b);
    if
    :: voter[v].grant != epoch[value[b]] -> voter[v].grant = 0
    :: else
    fi;
    asker = b;
    c_code {
        bool chosen = true;
        for (int list = 0; list <= BALLOTS; list++) {
            int accepts = 0;
            for (int at = 0; at < VOTERS; at++)
                accepts += now.voter[at].took >> asker & 1 && now.voter[at].listed >> list & 1;
            if (now.needed[asker] >> list & 1 && accepts < MAJORITY)
                chosen = false;
        }
        if (chosen) {
            now.done |= 1 << asker;
            now.known |= 1 << now.value[asker];
        }
    };
    asker = 0;
    if
    :: (done >> b) & 1 -> check_history(b)
    :: else
    fi;
    settle()
}
#define accept_arrives(v, b) (value[b] != NONE && !((voter[v].took >> b) & 1) && voter[v].promised <= b && \
    (voter[v].listed & (needed[b] | (1 << value[b]))) != 0 && free_for(v, OWNER(b)))
#define may_renew(v, n) (held[n] && (is_listed(v, under[n]) || (beside[n] != NONE && is_listed(v, beside[n]))) && \
    voter[v].accepted != 0 && VALUE(v) != NONE && epoch[VALUE(v)] == begun[n])
inline grant_lease(v, n) {
    voter[v].grant = begun[n];
    voter[v].counted[n] = 1;
    settle()
}
/* Time passes: what this voter had granted is over, and who counted by it counts no more. */
inline grant_ends(v) {
    if
    :: voter[v].kept[NODE(voter[v].grant)] -> forget_kept(NODE(voter[v].grant))
    :: else
    fi;
    voter[v].counted[NODE(voter[v].grant)] = 0;
    voter[v].grant = 0;
    sort_voters()
}
/* Node n has read, and proposes a list with v instead of w. Any two of three keep the rest from a majority, and v has granted
 * nothing that counts. */
#define stays(u, n, w) (u != w && counts(u, n, PRESENT(n)))
#define guarded(n, w) (stays(0, n, w) + stays(1, n, w) + stays(2, n, w) + stays(3, n, w) >= MAJORITY)
#define may_propose(n, w) (!leases || (held[n] && epoch[PRESENT(n)] == begun[n] && beside[n] == NONE && \
    (!serves(n) || guarded(n, w) || without == NO_GUARD_OF_THE_NEXT_LIST)))
#define may_replace(n, v, w) (has_read[n] && !is_listed(v, PRESENT(n)) && is_listed(w, PRESENT(n)) && may_propose(n, w))
inline replace(n, v, w) {
    asker = prepares[n];
    if
    :: without == NO_GUARD_OF_THE_NEXT_LIST && serves(n) ->
        for (i : 0 .. VOTERS - 1) { voter[i].kept[n] = counts(i, n, under[n]) }
        i = 0
    :: else
    fi;
    make_value(n, epoch[PRESENT(n)]);
    voter[v].listed = voter[v].listed | (1 << asker);
    voter[w].listed = voter[w].listed & ~(1 << asker);
    if
    :: leases && without != NO_LEASE_BY_BOTH_LISTS -> beside[n] = asker
    :: else
    fi;
    asker = 0;
    send_accept(n);
    settle()
}

proctype voters(byte v) {
end:
    do
    :: d_step { is_asked(v, 0) -> take_promise(v, 0) }
    :: d_step { is_asked(v, 1) -> take_promise(v, 1) }
    :: d_step { accept_arrives(v, 1) -> take_accept(v, 1) }
    :: d_step { accept_arrives(v, 2) -> take_accept(v, 2) }
#if BALLOTS >= 3
    :: d_step { accept_arrives(v, 3) -> take_accept(v, 3) }
#endif
#if BALLOTS >= 4
    :: d_step { accept_arrives(v, 4) -> take_accept(v, 4) }
#endif
    :: d_step { may_renew(v, 0) -> grant_lease(v, 0) }
    :: d_step { may_renew(v, 1) -> grant_lease(v, 1) }
    :: d_step { voter[v].grant != 0 -> grant_ends(v) }
    :: d_step { may_replace(0, v, 0) -> replace(0, v, 0) }
    :: d_step { may_replace(0, v, 1) -> replace(0, v, 1) }
    :: d_step { may_replace(0, v, 2) -> replace(0, v, 2) }
    :: d_step { may_replace(0, v, 3) -> replace(0, v, 3) }
    :: d_step { may_replace(1, v, 0) -> replace(1, v, 0) }
    :: d_step { may_replace(1, v, 1) -> replace(1, v, 1) }
    :: d_step { may_replace(1, v, 2) -> replace(1, v, 2) }
    :: d_step { may_replace(1, v, 3) -> replace(1, v, 3) }
    /* its disk is lost, and with it what it promised, accepted and granted */
    :: d_step { without == NO_OTHER_VOTER_AFTER_A_LOSS && voter[v].promised != 0 ->
           voter[v].promised = 0; voter[v].accepted = 0; voter[v].grant = 0; sort_voters() }
    od
}

init {
    d_step {
        c_code {
            without = getenv("WITHOUT") ? atoi(getenv("WITHOUT")) : 0;
            first = getenv("FIRST") ? atoi(getenv("FIRST")) : 0;
            ballots = getenv("BALLOTS") ? atoi(getenv("BALLOTS")) : BALLOTS;
            leases = getenv("LEASES") ? atoi(getenv("LEASES")) : 1;
        };
        for (i : 1 .. BALLOTS) { value[i] = NONE }
        epoch[0] = EPOCH(1, 0);
        version[0] = 1;
        done = 1;
        known = 1;
        beside[0] = NONE;
        beside[1] = NONE;
        for (i : 0 .. 2) { voter[i].accepted = 1; voter[i].listed = 1; voter[i].took = 1 }
        begun[0] = epoch[0];
        held[0] = leases;
        i = 0;
        sort_voters()
    }
    atomic { run node(0); run node(1); run voters(0); run voters(1); run voters(2); run voters(3) }
}
