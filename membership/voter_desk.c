#include "membership/voter_desk_parts.h"

#include <arpa/inet.h>
#include <stdio.h>

#define WAITING_MAX 8u /* of one node, for the disk, in one volume */

/* ---- Identities -------------------------------------------------------------------------------------------------------- */

/* An address as ZeroMQ writes it. */
static int address_of(const char *address, char text[64]) {
    char host[64];
    uint8_t binary[16];
    uint16_t port;
    if (config_address(address, host, &port) != 0)
        return -EINVAL;
    int family = strchr(host, ':') ? AF_INET6 : AF_INET;
    return inet_pton(family, host, binary) == 1 && inet_ntop(family, binary, text, 64) ? 0 : -EINVAL;
}

static int take_nodes(struct entry *entry, enum transport transport, const struct config *config, char *why, size_t why_room) {
    struct desk_node nodes[CONFIG_NODES_MAX] = {0};
    for (unsigned i = 0; i < config->node_count; i++) {
        const struct node_config *node = &config->nodes[i];
        snprintf(nodes[i].name, sizeof nodes[i].name, "%s", node->name);
        if (transport == TRANSPORT_CURVE && config_key_valid(node->public_key)) {
            snprintf(nodes[i].identity, sizeof nodes[i].identity, "%s", node->public_key);
        } else if (transport == TRANSPORT_CURVE || address_of(node->address, nodes[i].identity)) {
            snprintf(why, why_room, "volume %s, node %s: there is no %s", config->volume, node->name,
                     transport == TRANSPORT_CURVE ? "public-key" : "address tcp://IP:PORT");
            return -EINVAL;
        }
    }
    for (struct desk_waiting *each = entry->first; each; each = each->next) {
        unsigned now = each->node < CONFIG_NODES_MAX ? 0 : CONFIG_NODES_MAX;
        while (now < config->node_count && strcmp(nodes[now].name, entry->nodes[each->node].name) != 0)
            now++;
        each->node = now < config->node_count ? now : CONFIG_NODES_MAX;
        if (each->node < CONFIG_NODES_MAX)
            nodes[each->node].waiting++;
    }
    memcpy(entry->nodes, nodes, sizeof nodes);
    entry->node_count = config->node_count;
    return 0;
}

static int node_of(const struct entry *entry, const char *from, const char *who) {
    for (unsigned i = 0; i < entry->node_count; i++)
        if (strcmp(entry->nodes[i].name, from) == 0)
            return !who || strcmp(entry->nodes[i].identity, who) == 0 ? (int)i : -1;
    return -1;
}

/* ---- The table --------------------------------------------------------------------------------------------------------- */

/* Where it is, or would be. */
static unsigned place_of(const struct desk *desk, const uint8_t volume[16], bool *found) {
    unsigned low = 0, high = desk->count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        int order = memcmp(desk->entries[middle]->volume, volume, 16);
        if (order == 0) {
            *found = true;
            return middle;
        }
        *(order < 0 ? &low : &high) = order < 0 ? middle + 1 : middle;
    }
    *found = false;
    return low;
}

struct entry *entry_find(const struct desk *desk, const uint8_t volume[16]) {
    bool found;
    unsigned at = place_of(desk, volume, &found);
    return found ? desk->entries[at] : NULL;
}

struct desk *desk_open(enum transport transport, int wake) {
    struct desk *desk = calloc(1, sizeof *desk);
    pthread_condattr_t attributes;
    if (!desk)
        return NULL;
    desk->transport = transport;
    desk->wake = wake;
    PROMISE(pthread_condattr_init(&attributes) == 0);
    PROMISE(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    PROMISE(pthread_mutex_init(&desk->lock, NULL) == 0 && pthread_cond_init(&desk->work, &attributes) == 0 &&
            pthread_cond_init(&desk->told, NULL) == 0);
    pthread_condattr_destroy(&attributes);
    return desk;
}

static void refuse(struct entry *entry, struct ask_answer *answer, enum ask_status status, const char *why) {
    answer->status = status;
    memset(&answer->answer, 0, sizeof answer->answer);
    snprintf(answer->why, sizeof answer->why, "%s", why);
    *(status == ASK_FAILED ? &entry->failed : &entry->refused) += 1;
}

/* All that wait, with a refusal. */
struct desk_waiting *entry_refuse_all(struct entry *entry, const char *why) {
    struct desk_waiting *list = entry->first;
    for (struct desk_waiting *each = list; each; each = each->next)
        refuse(entry, &each->answer, ASK_FAILED, why);
    entry->first = NULL;
    entry->end = &entry->first;
    for (unsigned i = 0; i < entry->node_count; i++)
        entry->nodes[i].waiting = 0;
    return list;
}

struct desk_waiting *desk_close(struct desk *desk) {
    struct desk_waiting *all = NULL, **end = &all;
    for (unsigned i = 0; i < desk->count; i++) {
        *end = entry_refuse_all(desk->entries[i], "this voter is stopping");
        while (*end)
            end = &(*end)->next;
        free(desk->entries[i]);
    }
    free(desk->entries);
    pthread_cond_destroy(&desk->told);
    pthread_cond_destroy(&desk->work);
    pthread_mutex_destroy(&desk->lock);
    free(desk);
    return all;
}

static void wait_told(struct desk *desk, struct entry *entry) {
    while (entry->telling)
        pthread_cond_wait(&desk->told, &desk->lock);
}

bool desk_durable(struct desk *desk, const uint8_t volume[16], struct voter_state *state) {
    pthread_mutex_lock(&desk->lock);
    const struct entry *entry = entry_find(desk, volume);
    if (entry)
        *state = entry->durable;
    pthread_mutex_unlock(&desk->lock);
    return entry != NULL;
}

static int insert(struct desk *desk, struct entry *entry) {
    bool found;
    if (desk->count == VOTER_HOST_VOLUMES_MAX)
        return -ENOSPC;
    if (desk->count == desk->room) {
        unsigned room = desk->room ? desk->room * 2 : 8;
        struct entry **more = realloc(desk->entries, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        desk->entries = more;
        desk->room = room;
    }
    unsigned at = place_of(desk, entry->volume, &found);
    memmove(desk->entries + at + 1, desk->entries + at, (desk->count - at) * sizeof *desk->entries);
    desk->entries[at] = entry;
    desk->count++;
    return 0;
}

/* While the watch waits for one moment, it looks again then: a later one need not wake anybody. */
void entry_note_free_at(const struct desk *desk, struct entry *entry) {
    int64_t grant = entry->voter.grant.node[0] ? entry->voter.grant.until : 0;
    bool waits = entry->free_at != entry->told_at && !entry->freed;
    entry->free_at = MAX(grant, entry->voter.quiet_until);
    if (entry->watch && !waits && (entry->freed || entry->free_at != entry->told_at)) {
        uint64_t one = 1;
        PROMISE(write(desk->wake, &one, sizeof one) == sizeof one || errno == EAGAIN);
    }
}

/* The process's own silence lasts for the longest lease time that an earlier one may have granted for. */
static void begin(const struct desk *desk, struct entry *entry, const char *voter, const struct voter_state *state, int64_t lease,
                  int64_t now) {
    int64_t noted = (int64_t)state->lease_ms * 1000000, longest = MAX(noted, lease);
    voter_start(&entry->voter, voter, state, longest, ask_margin(longest), now);
    entry->voter.lease = lease;
    entry->voter.margin = ask_margin(lease);
    entry->older_until = entry->voter.quiet_until;
    entry->durable = *state;
    entry->lease = lease;
    entry->end = &entry->first;
    entry_note_free_at(desk, entry);
}

static int take_config(struct desk *desk, struct entry *entry, const struct config *config, const struct register_watch *watch,
                       char *why, size_t why_room) {
    int rc = take_nodes(entry, desk->transport, config, why, why_room);
    if (rc == 0) {
        snprintf(entry->name, sizeof entry->name, "%s", config->volume);
        entry->watch = watch;
    }
    return rc;
}

static void lengthen(struct entry *entry, const struct voter_state *state, int64_t lease) {
    if (lease <= entry->lease)
        return;
    entry->durable.lease_ms = entry->voter.state.lease_ms = state->lease_ms;
    entry->lease = entry->voter.lease = lease;
    entry->voter.margin = ask_margin(lease);
}

int desk_serve(struct desk *desk, const struct config *config, const char *voter, const struct register_watch *watch,
               const struct voter_state *state, char *why, size_t why_room) {
    int64_t lease = (int64_t)config->lease_ms * 1000000;
    int rc;
    pthread_mutex_lock(&desk->lock);
    struct entry *entry = entry_find(desk, config->volume_id);
    if (entry) {
        wait_told(desk, entry);
        rc = take_config(desk, entry, config, watch, why, why_room);
        if (rc == 0)
            lengthen(entry, state, lease);
    } else {
        entry = calloc(1, sizeof *entry);
        rc = entry ? take_config(desk, entry, config, watch, why, why_room) : -ENOMEM;
        if (rc == 0) {
            memcpy(entry->volume, config->volume_id, 16);
            begin(desk, entry, voter, state, lease, clock_boot());
            rc = insert(desk, entry);
        }
        if (rc)
            free(entry);
        if (rc && rc != -EINVAL)
            snprintf(why, why_room, "volume %s cannot be served: %s", config->volume,
                     rc == -ENOSPC ? "there are too many" : strerror(-rc));
    }
    pthread_mutex_unlock(&desk->lock);
    return rc;
}

int desk_drop(struct desk *desk, const uint8_t volume[16], struct desk_waiting **waiting) {
    *waiting = NULL;
    pthread_mutex_lock(&desk->lock);
    struct entry *entry = entry_find(desk, volume);
    if (entry) {
        wait_told(desk, entry);
        bool found;
        unsigned at = place_of(desk, volume, &found);
        desk->count--;
        memmove(desk->entries + at, desk->entries + at + 1, (desk->count - at) * sizeof *desk->entries);
        *waiting = entry_refuse_all(entry, "this voter does not serve the volume any more");
        free(entry);
    }
    pthread_mutex_unlock(&desk->lock);
    return entry ? 0 : -ENOENT;
}

/* ---- Questions --------------------------------------------------------------------------------------------------------- */

bool desk_admits(struct desk *desk, const char *who) {
    bool found = false;
    pthread_mutex_lock(&desk->lock);
    for (unsigned i = 0; i < desk->count && !found; i++)
        for (unsigned k = 0; k < desk->entries[i]->node_count && !found; k++)
            found = strcmp(desk->entries[i]->nodes[k].identity, who) == 0;
    pthread_mutex_unlock(&desk->lock);
    return found;
}

static bool same_holder(const struct voter_state *a, const struct voter_state *b) {
    return a->value.epoch == b->value.epoch && strcmp(a->value.primary, b->value.primary) == 0;
}

static void voter_decides(struct voter *voter, const struct ask_question *question, int64_t now, struct voter_answer *answer) {
    switch (question->type) {
    case ASK_PREPARE:
        voter_prepare(voter, question->from, question->ballot, question->birth, now, answer);
        break;
    case ASK_ACCEPT:
        voter_accept(voter, question->from, question->ballot, &question->value, &question->known, now, answer);
        break;
    case ASK_RENEW:
        voter_renew(voter, question->from, question->epoch, question->session, now, answer);
        break;
    case ASK_RELEASE:
        voter_release(voter, question->from, question->epoch, question->session, now, answer);
        break;
    case ASK_LEARN:
        voter_learn(voter, &question->value, answer);
        break;
    default:
        voter_query(voter, question->from, now, answer);
    }
}

/* What is told at once is what the disk has: of what it may still lose, nobody may conclude anything. (A promise that is
 * being saved is told to those whom it refuses.) */
void entry_as_durable(const struct entry *entry, struct voter_answer *answer) {
    answer->accepted = entry->durable.accepted;
    answer->value = entry->durable.value;
    answer->known = entry->durable.known;
}

static void wait_for_disk(struct desk *desk, struct entry *entry, unsigned node, const struct ask_question *question,
                          const struct desk_reply *reply, const struct ask_answer *answer, struct desk_waiting *waiting) {
    *waiting = (struct desk_waiting){.needs = entry->changed, .node = node, .reply = *reply, .answer = *answer};
    if (question->type == ASK_RENEW) {
        waiting->again = true;
        memcpy(waiting->renewal.from, question->from, sizeof waiting->renewal.from);
        waiting->renewal.epoch = question->epoch;
        waiting->renewal.session = question->session;
    }
    *entry->end = waiting;
    entry->end = &waiting->next;
    entry->nodes[node].waiting++;
    if (!entry->to_save) {
        entry->to_save = true;
        pthread_cond_signal(&desk->work);
    }
}

/* A renewal whose grant would rest on a value that the disk need not have. */
static bool is_premature(const struct entry *entry, const struct ask_question *question) {
    const struct register_value *value = &entry->voter.state.value;
    return question->type == ASK_RENEW && entry->unsure && value->epoch == question->epoch &&
           strcmp(value->primary, question->from) == 0;
}

/* Also where this voter has missed the value whose lease is given back: it grants it to nobody, and others may be free now. */
static bool frees(const struct entry *entry, const struct ask_question *question, const struct voter_answer *given) {
    const struct voter *voter = &entry->voter;
    bool grants = voter->grant.node[0] && clock_boot() < voter->grant.until;
    return question->type == ASK_RELEASE && (given->verdict == VOTER_YES || (!grants && question->epoch > voter->state.value.epoch));
}

static void note_watch(const struct desk *desk, struct entry *entry, const struct ask_question *question, const struct voter_answer *given) {
    if (frees(entry, question, given))
        entry->freed = true;
    entry_note_free_at(desk, entry);
}

static enum desk_fate decide(struct desk *desk, struct entry *entry, unsigned node, const struct ask_question *question,
                             const struct desk_reply *reply, struct ask_answer *answer) {
    bool promises = question->type == ASK_PREPARE || question->type == ASK_ACCEPT || question->type == ASK_LEARN;
    bool premature = is_premature(entry, question);
    if (premature && entry->changed == entry->saved) {
        refuse(entry, answer, ASK_FAILED, entry->why);
        return DESK_ANSWERED;
    }
    if (question->type == ASK_RENEW && (int64_t)question->lease_ms * 1000000 > entry->lease) {
        refuse(entry, answer, ASK_FAILED, "this voter's config file has a shorter lease duration; give it the node's");
        return DESK_ANSWERED;
    }
    AUTO_FREE struct desk_waiting *waiting = NULL;
    if (promises || premature) {
        waiting = entry->nodes[node].waiting < WAITING_MAX ? malloc(sizeof *waiting) : NULL;
        if (!waiting) {
            desk->dropped++;
            return DESK_DROPPED;
        }
    }
    if (!premature) {
        voter_decides(&entry->voter, question, clock_boot(), &answer->answer);
        entry->changed += answer->answer.durable;
        if (!same_holder(&entry->voter.state, &entry->durable))
            entry->unsure = true;
        note_watch(desk, entry, question, &answer->answer);
    }
    /* What it has been told already may be on its way to the disk still. */
    bool unsaved = promises && answer->answer.verdict == VOTER_YES && entry->changed != entry->saved;
    if (premature || unsaved) {
        wait_for_disk(desk, entry, node, question, reply, answer, waiting);
        waiting = NULL;
        return DESK_LATER;
    }
    entry_as_durable(entry, &answer->answer);
    return DESK_ANSWERED;
}

enum desk_fate desk_ask(struct desk *desk, const struct ask_question *question, const char *who, const struct desk_reply *reply,
                        struct ask_answer *answer) {
    enum desk_fate fate = DESK_ANSWERED;
    memset(answer, 0, sizeof *answer);
    memcpy(answer->volume, question->volume, 16);
    answer->number = question->number;
    answer->type = question->type;
    answer->status = ASK_ANSWERED;
    pthread_mutex_lock(&desk->lock);
    struct entry *entry = entry_find(desk, question->volume);
    int node = entry ? node_of(entry, question->from, who) : -1;
    if (!entry) {
        desk->unknown++;
        answer->status = ASK_UNKNOWN;
        snprintf(answer->why, sizeof answer->why, "this voter does not serve the volume");
    } else if (node < 0) {
        refuse(entry, answer, ASK_UNKNOWN, "that is no node of the volume, or not with this key or address");
    } else {
        entry->asked++;
        memcpy(answer->voter, entry->voter.name, sizeof answer->voter);
        fate = decide(desk, entry, (unsigned)node, question, reply, answer);
    }
    pthread_mutex_unlock(&desk->lock);
    return fate;
}

void desk_counts(struct desk *desk, struct voter_host_counts *counts) {
    pthread_mutex_lock(&desk->lock);
    counts->unknown = desk->unknown;
    counts->dropped = desk->dropped;
    pthread_mutex_unlock(&desk->lock);
}

/* ---- Watches ----------------------------------------------------------------------------------------------------------- */

int64_t desk_tell(struct desk *desk) {
    int64_t next = INT64_MAX;
    pthread_mutex_lock(&desk->lock);
    for (unsigned i = 0; i < desk->count; i++) {
        struct entry *entry = desk->entries[i];
        if (!entry->watch)
            continue;
        bool over = entry->free_at != entry->told_at && clock_boot() >= entry->free_at;
        if (over || entry->freed) {
            const struct register_watch *watch = entry->watch;
            entry->freed = false;
            entry->told_at = entry->free_at;
            entry->telling = true;
            pthread_mutex_unlock(&desk->lock);
            if (watch->freed)
                watch->freed(watch->context);
            pthread_mutex_lock(&desk->lock);
            entry->telling = false; /* it is there still: desk_drop() waits for this */
            pthread_cond_broadcast(&desk->told);
            next = 0; /* the table may be another one: from the start */
            break;
        }
        if (entry->free_at != entry->told_at)
            next = MIN(next, entry->free_at);
    }
    pthread_mutex_unlock(&desk->lock);
    return next;
}

/* ---- Status ------------------------------------------------------------------------------------------------------------ */

static void view(const struct entry *entry, int64_t now, struct voter_host_view *to) {
    const struct voter *voter = &entry->voter;
    const struct register_value *value = &entry->durable.value;
    memset(to, 0, sizeof *to);
    memcpy(to->volume, entry->volume, 16);
    memcpy(to->name, entry->name, sizeof to->name);
    memcpy(to->voter, voter->name, sizeof to->voter);
    memcpy(to->id, entry->durable.id, sizeof to->id);
    if (voter->grant.node[0] && now < voter->grant.until) {
        memcpy(to->holder, voter->grant.node, sizeof to->holder);
        to->grant_left = voter->grant.until - now;
    }
    if (value->version && now < voter->quiet_until)
        to->quiet_left = voter->quiet_until - now;
    to->lease = entry->lease;
    to->version = value->version;
    to->epoch = value->epoch;
    memcpy(to->primary, value->primary, sizeof to->primary);
    to->listed = register_voter_of(value, voter->name, entry->durable.id) >= 0;
    to->asked = entry->asked;
    to->refused = entry->refused;
    to->failed = entry->failed;
    memcpy(to->why, entry->why, sizeof to->why);
}

unsigned desk_view(struct desk *desk, struct voter_host_view *views, unsigned room) {
    pthread_mutex_lock(&desk->lock);
    int64_t now = clock_boot();
    unsigned count = desk->count;
    for (unsigned i = 0; i < MIN(count, room); i++)
        view(desk->entries[i], now, &views[i]);
    pthread_mutex_unlock(&desk->lock);
    return count;
}
