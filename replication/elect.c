#include "replication/elect.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define MS ((int64_t)1000000)
#define YIELD_LEAST (100 * MS)
#define YIELD_MOST (500 * MS)
#define YIELD_BIRTH (1000 * MS)
#define YIELD_STAYS 2 /* lease times: a node that shall stay standby waits so long for another one */
#define ASK_MOST (150 * MS) /* for answers of nodes that were there a moment ago */
#define LOOK_LEAST (20 * MS)
#define HURRY 25u /* looks, LOOK_LEAST apart: who gives a lease back reaches one voter before another one, over new connections */
#define WORD_LEAST (500 * MS) /* a handover's word may have to be said twice */
#define WORD_OTHERS (100 * MS) /* so much later than whom the value names */
#define COME_LEAST (500 * MS) /* so long nodes that start together wait for each other: the lease time, between these */
#define COME_MOST (2000 * MS)

static int64_t between(int64_t least, int64_t value, int64_t most) {
    return MIN(MAX(value, least), most);
}

static void say(struct elect *elect, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct elect *elect, const char *format, ...) {
    va_list arguments;
    if (elect->why_count == ELECT_REASONS)
        return;
    va_start(arguments, format);
    vsnprintf(elect->why[elect->why_count++], ELECT_WHY, format, arguments);
    va_end(arguments);
}

void elect_start(struct elect *elect, int64_t lease, int64_t now) {
    *elect = (struct elect){.state = ELECT_SILENT, .lease = lease, .started = now, .heard = now};
    say(elect, "this node has just started and has heard no primary yet");
}

void elect_heard(struct elect *elect, int64_t now) {
    elect->heard = now;
    if (elect->freed && !elect->word_until)
        return; /* it may be its last word */
    elect->state = ELECT_FOLLOWS;
    elect->freed = elect->vacant = false;
    elect->yields_until = elect->word_until = 0;
    elect->why_count = 0;
}

void elect_value(struct elect *elect, bool own, bool began, int64_t now) {
    int64_t word = MAX(elect->lease / 2, WORD_LEAST), before = elect->word_until;
    elect->freed = false;
    elect->hurry = 0;
    elect_heard(elect, now);
    elect->word_until = !began ? before : now + word + (own ? 0 : WORD_OTHERS);
}

void elect_freed(struct elect *elect) {
    elect->freed = true;
    elect->hurry = HURRY;
    elect->not_before = 0;
}

void elect_serves(struct elect *elect) {
    elect->state = ELECT_FOLLOWS;
    elect->freed = elect->vacant = false;
    elect->yields_until = elect->not_before = elect->ceased_until = elect->word_until = 0;
    elect->why_count = 0;
}

void elect_ceased(struct elect *elect, const char *why, int64_t now) {
    elect->state = ELECT_SILENT;
    elect->heard = now;
    elect->freed = elect->vacant = false;
    elect->yields_until = 0;
    elect->ceased_until = now + elect->lease;
    elect->why_count = 0;
    say(elect, "this node has ceased to be primary (%s); for the lease time it lets others go first", why);
}

bool elect_due(struct elect *elect, bool own, int64_t now) {
    if (now < elect->word_until)
        return false;
    if (now < elect->not_before || now < elect->ceased_until || (elect->yields_until && now < elect->yields_until && !elect->freed))
        return false;
    if (elect->freed || elect->vacant || own || now - elect->heard >= elect->lease)
        return true;
    if (elect->state == ELECT_FOLLOWS && now - elect->heard >= elect->lease / 2) {
        elect->state = ELECT_SILENT;
        elect->why_count = 0;
        say(elect, "the primary has said nothing for a moment; after the lease time this node looks for itself");
    }
    return false;
}

/* Who has never been heard may be about to start, as this node has just done. */
int64_t elect_patience(const struct elect *elect, const struct elect_view *view, int64_t now) {
    int64_t coming = elect->started + between(COME_LEAST, elect->lease, COME_MOST) - now;
    int64_t patience = MIN(elect->lease / 8, ASK_MOST);
    for (unsigned i = 0; i < view->count; i++)
        if (i != view->self && !view->nodes[i].heard && view->nodes[i].named)
            patience = MAX(patience, coming);
    return patience;
}

bool elect_voters(struct elect *elect, int error, const char *holder, int64_t wait, int64_t now) {
    elect->why_count = 0;
    elect->vacant = error == 0;
    if (error == 0)
        return true;
    elect->freed = false;
    elect->yields_until = 0;
    if (error == -EBUSY) {
        elect->state = ELECT_HELD;
        if (holder[0])
            say(elect, "node %s holds the lease, or did a moment ago: the voters let nobody else in for %" PRId64 " ms more",
                holder, MAX(wait, 0) / MS);
        else
            say(elect, "voters have just started and do not know yet whether somebody holds the lease; they let nobody in for "
                       "%" PRId64 " ms more", MAX(wait, 0) / MS);
        elect->not_before = now + between(LOOK_LEAST, wait, elect->lease / 2);
        if (elect->hurry) {
            elect->hurry--;
            elect->freed = true;
            elect->not_before = now + LOOK_LEAST;
        }
    } else if (error == -ENOTCONN) {
        elect->state = ELECT_ALONE;
        say(elect, "no majority of the voters answers, so nobody can become primary from here; see which of them are down or cut "
                   "off");
        elect->not_before = now + MAX(elect->lease / 4, YIELD_LEAST);
    } else {
        elect->state = ELECT_ALONE;
        say(elect, "the voters cannot be asked: %s", strerror(-error));
        elect->not_before = now + MAX(elect->lease / 4, YIELD_LEAST);
    }
    return false;
}

/* ---- Who may, and who first ------------------------------------------------------------------------------------------ */

static bool further(const struct elect_node *a, const struct elect_node *b) {
    return a->epoch != b->epoch ? a->epoch > b->epoch : a->lsn > b->lsn;
}

/* Does `a` go before `b`? Both may. */
static bool goes_first(const struct elect_view *view, unsigned a, unsigned b) {
    const struct elect_node *first = &view->nodes[a], *second = &view->nodes[b];
    if (first->stays != second->stays)
        return second->stays;
    if (first->broken != second->broken)
        return second->broken;
    if (further(first, second) || further(second, first))
        return further(first, second);
    if (((int)a == view->preferred) != ((int)b == view->preferred))
        return (int)a == view->preferred;
    return a < b;
}

/* It holds on to a role whose lease has ended, or its disk does not answer: it is not about to run, and is not waited for. */
static bool is_out(const struct elect_view *view, unsigned node) {
    return (view->nodes[node].primary && (int)node == view->last_primary) || view->nodes[node].sick;
}

/* A store that may lack something that it acknowledged: only if all of the set is there, and nobody has more. */
static bool may_after_loss(struct elect *elect, const struct elect_view *view) {
    const struct elect_node *own = &view->nodes[view->self];
    bool may = own->named;
    if (!own->named)
        say(elect, "this store is not in the in-sync set: it may lack what was acknowledged since LSN %" PRIu64 "; a member of the set "
                   "has to come back, or promote this node with --force if that loss is accepted", own->lsn);
    else if (!view->reaches_start)
        say(elect, "this store (up to LSN %" PRIu64 ") lacks what the present epoch began with: it is another one than that in the "
                   "in-sync set", own->lsn);
    may = may && view->reaches_start;
    for (unsigned i = 0; i < view->count && may; i++) {
        const struct elect_node *node = &view->nodes[i];
        if (i == view->self)
            continue;
        if (node->named && !node->answered && !view->go) {
            say(elect, "this store may lack records that it had acknowledged (its incarnation is not in the in-sync set), and node %s, "
                       "which may have them, does not answer; start it, or promote this node with --force if they may be lost "
                       "(after-power-cut = go says so for good)", node->name);
            may = false;
        } else if (node->answered && (node->member || (node->named && further(node, own)))) {
            say(elect, "this store may lack records that it had acknowledged, and node %s has them: that one becomes primary",
                node->name);
            may = false;
        }
    }
    return may;
}

static bool may_be_born(struct elect *elect, const struct elect_view *view) {
    const struct elect_node *own = &view->nodes[view->self];
    if (own->lsn && !view->first) {
        say(elect, "the volume has no register yet, and this store has data (up to LSN %" PRIu64 "), but was not primary when it was "
                   "used last: the node that was has to start; or promote this one with --force", own->lsn);
        return false;
    }
    for (unsigned i = 0; i < view->count; i++) {
        const struct elect_node *node = &view->nodes[i];
        if (i == view->self || own->lsn)
            continue; /* it was primary: what others have it has */
        if (node->answered && node->lsn) {
            say(elect, "the volume has no register yet, and node %s has data (up to LSN %" PRIu64 "): that one has to begin it",
                node->name, node->lsn);
            return false;
        }
        if (!node->answered && (view->birth & 1u << i) && !view->first) {
            say(elect, "the volume is new, and begins when all of its nodes are there: node %s does not answer yet", node->name);
            return false;
        }
    }
    return true;
}

/* Who goes before this one, or -1. */
static int who_first(const struct elect_view *view) {
    int first = (int)view->self;
    bool member = view->nodes[view->self].member, born = view->version == 0;
    if (born && view->first)
        return -1;
    for (unsigned i = 0; i < view->count; i++) {
        const struct elect_node *node = &view->nodes[i];
        bool runs = born ? (view->birth & 1u << i) != 0 : member ? node->member : node->named;
        if (i != view->self && node->answered && runs && !is_out(view, i) && goes_first(view, i, (unsigned)first))
            first = (int)i;
    }
    return first == (int)view->self ? -1 : first;
}

static bool steps_back(const struct elect_node *own, const struct elect_node *first) {
    return (own->stays && !first->stays) || (own->broken && !first->broken);
}

static void bar(struct elect *elect, int64_t now) {
    elect->state = ELECT_BARRED;
    elect->freed = false;
    elect->yields_until = 0;
    elect->not_before = now + MAX(elect->lease / 4, YIELD_LEAST);
}

bool elect_judge(struct elect *elect, const struct elect_view *view, int64_t now) {
    const struct elect_node *own = &view->nodes[view->self];
    bool may = view->fit, born = view->version == 0;
    elect->why_count = 0;
    if (!may)
        say(elect, "this node's own store makes no progress: its disk does not answer");
    if (born)
        may = may_be_born(elect, view) && may;
    else if (!own->member)
        may = may_after_loss(elect, view) && may;
    if (!may) {
        bar(elect, now);
        return false;
    }
    int first = who_first(view);
    if (first >= 0 && !elect->yields_until) {
        int64_t moment = born                                                 ? YIELD_BIRTH
                         : steps_back(own, &view->nodes[first]) ? YIELD_STAYS * elect->lease
                                                                              : between(YIELD_LEAST, elect->lease / 4, YIELD_MOST);
        elect->state = ELECT_YIELDS;
        elect->freed = false;
        elect->yields_until = now + moment;
        say(elect, "node %s goes first: it %s", view->nodes[first].name,
            own->stays && !view->nodes[first].stays ? "is not meant to stay standby, as this one is"
            : own->broken && !view->nodes[first].broken ? "can serve the exports, which this one could not"
            : further(&view->nodes[first], own)     ? "has more records"
            : first == view->preferred              ? "is the preferred one"
                                                    : "comes first in the config");
        return false;
    }
    elect->state = ELECT_RUNS;
    elect->freed = false;
    elect->yields_until = 0;
    return true;
}

uint32_t elect_keeps(const struct elect_view *view) {
    uint32_t bits = 0;
    for (unsigned i = 0; i < view->count; i++)
        if (i != view->self && view->nodes[i].member && view->nodes[i].answered && !is_out(view, i))
            bits |= 1u << i;
    return bits;
}

void elect_failed(struct elect *elect, uint64_t random, int64_t now) {
    int64_t least = MAX(elect->lease / 16, LOOK_LEAST);
    elect->state = ELECT_PAUSES;
    elect->not_before = now + least + (int64_t)(random % (uint64_t)MAX(elect->lease / 4, 1));
}

const char *elect_state_name(enum elect_state state) {
    static const char *const names[] = {"follows", "silent", "held", "alone", "barred", "yields", "runs", "pauses"};
    return names[state];
}
