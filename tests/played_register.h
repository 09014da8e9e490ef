/* A register with a lease for the nodes of one process: what a majority of voters would keep, in memory, with switches for
 * what may go wrong. One thread renews, tells of news and of leases that end.
 */
#ifndef BATON_TESTS_PLAYED_REGISTER_H
#define BATON_TESTS_PLAYED_REGISTER_H

#include "fs/volume.h"
#include "membership/register.h"

#include <pthread.h>

#define PLAYED_NODES 3

struct played_register;
struct played_node {
    struct reg reg;
    struct played_register *all;
    char name[64];
    bool open;
    struct register_watch watch;
    struct lease_shared lease;
    epoch_t taken;   /* the newest epoch in which it has asked for the lease */
    bool asked, told_lost;
    bool news, freed; /* to be told */
    /* The switches. */
    atomic_bool unreachable; /* no voter hears this node */
    atomic_bool unanswered;  /* changes of this node are chosen, and it does not hear of it; nor can it read */
    atomic_bool unrenewed;   /* its lease is granted once and not renewed */
    atomic_bool half;        /* its next change is left half done: some voters accept it, though another one holds */
};

struct played_register {
    pthread_mutex_t lock;
    pthread_t thread;
    bool stop;
    int64_t duration, margin;
    struct register_value value;
    unsigned changes;
    struct {
        bool there;
        atomic_bool seen; /* the next change meets it, and completes it; else it does not, and it is void */
        struct register_value next;
    } half;
    struct {
        int node; /* -1: nobody */
        epoch_t epoch;
        int64_t until;
    } grant;
    struct played_node nodes[PLAYED_NODES];
};

struct played_register *played_make(int64_t duration); /* with no value yet; ns */
/* Both nodes of the pair have it from now on. */
struct pair;
void played_pair(struct pair *pair, int64_t duration);
/* A node that is silent, to the voters, too. */
void played_silence(struct pair *pair, unsigned node);
void played_free(struct played_register *played);
/* Gives the volume its register and lease, with replicator_watch; and takes them again. */
void played_open(struct played_register *played, unsigned node, struct volume *volume);
void played_close(struct played_register *played, unsigned node, struct volume *volume);
struct register_value played_value(struct played_register *played);

#endif
