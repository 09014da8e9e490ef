/* A real etcd on loopback for tests: members with ports and directories of their own, which end with the test, however it ends.
 * And an engine of a node on it, which notes what it is told.
 */
#ifndef BATON_TESTS_ETCD_CLUSTER_H
#define BATON_TESTS_ETCD_CLUSTER_H

#include "fs/config.h"
#include "membership/register.h"

#include <stdatomic.h>
#include <sys/types.h>

#define ETCD_PATH "/usr/bin/etcd"
#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define LONG_WAIT (120 * SECOND)

struct etcd_cluster {
    char name[32];
    unsigned count;
    bool tls;
    const char *more[8]; /* arguments; the first NULL ends them */
    struct {
        pid_t pid; /* 0: it does not run */
        unsigned port, peer_port;
        char url[64];
    } members[3];
};

/* Skips the whole test, with the reason, if there is no etcd here. Then starts the members, and waits until each one answers
 * (without `await`: not). `name`: of a directory for it in test_directory(). */
void etcd_cluster_start(struct etcd_cluster *cluster, const char *name, unsigned count, bool await);
void etcd_cluster_end(struct etcd_cluster *cluster);
void etcd_member_start(struct etcd_cluster *cluster, unsigned member);
void etcd_member_kill(struct etcd_cluster *cluster, unsigned member);
void etcd_member_signal(struct etcd_cluster *cluster, unsigned member, int number);
/* The number of the member that leads, or -1. */
int etcd_cluster_leader(struct etcd_cluster *cluster);
/* POST to a member (or any base URL); the HTTP status, or -1. `answer` gets the body, at most room - 1 bytes. */
long etcd_post(const char *url, const char *path, const char *body, const char *token, char *answer, size_t room);

struct etcd_node {
    struct config config;
    const struct node_config *self;
    struct lease_shared shared_own, *shared;
    struct reg *reg;
    atomic_uint news, freed, lost;
    atomic_bool unfit;
    _Atomic uint64_t news_version, lost_epoch;
    char why[512];
};
/* A volume of nodes a, b and c, with all of the cluster's members as endpoints; nothing is opened. */
void etcd_node_config(struct etcd_node *node, const struct etcd_cluster *cluster, const char *name, uint32_t lease_ms);
/* The same, and opened, or the test ends. */
void etcd_node_open(struct etcd_node *node, const struct etcd_cluster *cluster, const char *name, uint32_t lease_ms);
int etcd_node_open_as(struct etcd_node *node); /* with what config says */
void etcd_node_close(struct etcd_node *node);

/* A value after `before` that names this primary, in the next epoch if `reign` is true. */
struct register_value etcd_next(const struct register_value *before, const char *primary, bool reign);
bool etcd_holds(const struct etcd_node *node);
/* Waits for a condition; false after LONG_WAIT. */
#define AWAIT(condition) \
    ({ \
        int64_t await_end = clock_boot() + LONG_WAIT; \
        bool await_good; \
        while (!(await_good = (condition)) && clock_boot() < await_end) \
            usleep(2000); \
        await_good; \
    })

#endif
