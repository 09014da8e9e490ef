/* What voter_desk.c (the table, questions, watches) and voter_desk_disk.c (what waits for the disk) share. All of it under the
 * desk's lock.
 */
#ifndef BATON_MEMBERSHIP_VOTER_DESK_PARTS_H
#define BATON_MEMBERSHIP_VOTER_DESK_PARTS_H

#include "membership/voter_desk.h"

#include <pthread.h>

struct desk_node {
    char name[64];
    char identity[64]; /* its key, or in the clear its address, as connections have it */
    unsigned waiting; /* of its answers wait for the disk */
};

struct entry {
    uint8_t volume[16];
    char name[64];
    unsigned node_count;
    struct desk_node nodes[CONFIG_NODES_MAX];
    int64_t lease;
    struct voter voter;         /* as it decides: with what is not saved yet */
    struct voter_state durable; /* as the disk has it, or had it before a save that failed */
    int64_t older_until;        /* until then there may be grants for a longer lease time, of an earlier process */
    uint64_t changed, saved;    /* changes of the state, and how many of them are durable */
    bool unsure;                /* the disk may come to name another holder than `durable` does, or the voter's state does */
    int64_t again_at;           /* when to save it again; 0: no need */
    char why[128];              /* the last save failed */
    bool to_save;
    struct desk_waiting *first, **end;
    const struct register_watch *watch;
    bool freed, telling;
    int64_t free_at, told_at; /* when nobody has a grant any more; which of these the watch was told of */
    uint64_t asked, refused, failed;
};

struct desk {
    enum transport transport;
    int wake;
    pthread_mutex_t lock;
    pthread_cond_t work, told;
    bool stop;
    struct entry **entries; /* sorted by volume */
    unsigned count, room;
    unsigned turn; /* where the next batch begins to look */
    uint64_t unknown, dropped;
};

struct entry *entry_find(const struct desk *desk, const uint8_t volume[16]); /* NULL: it is not served */
/* All that wait, with a refusal. */
struct desk_waiting *entry_refuse_all(struct entry *entry, const char *why);
/* The voter has decided something: when is nobody's grant left? */
void entry_note_free_at(const struct desk *desk, struct entry *entry);
void entry_as_durable(const struct entry *entry, struct voter_answer *answer);

#endif
