/* The config file of a volume: INI, read with inih, the same on every node. An unknown section or key, a value out of
 * range, a missing value: an error with file, line and remedy.
 */
#ifndef BATON_FS_CONFIG_H
#define BATON_FS_CONFIG_H

#include "fs/base.h"

enum acknowledge { ACKNOWLEDGE_CLOSE, ACKNOWLEDGE_WRITE, ACKNOWLEDGE_NEVER };
enum fsync_mode { FSYNC_DISK, FSYNC_MEMORY };
enum request_loop { REQUEST_LOOP_AUTO, REQUEST_LOOP_DEVICE, REQUEST_LOOP_IO_URING };
enum cpu_idle { CPU_IDLE_AUTO, CPU_IDLE_SLEEP };
enum transport { TRANSPORT_CURVE, TRANSPORT_CLEAR };
enum failback { FAILBACK_MANUAL, FAILBACK_AUTO };
enum after_power_cut { AFTER_POWER_CUT_WAIT, AFTER_POWER_CUT_GO };

#define CONFIG_NODES_MAX 7
#define NODE_PORTS 5 /* of a node: records, acknowledgements, control, copies, voter; a witness has the voter's alone */
#define VOTER_PORT 4
#define KEY_TEXT 41 /* a CURVE key in Z85, with NUL */

struct node_config {
    char name[64];       /* see config_name_valid() */
    uint16_t number;     /* of epochs: XXH32 of the name, low 16 bits, not 0; two nodes with one number are an error */
    char address[128];   /* tcp://IP:PORT — records; PORT + 1: acknowledgements; PORT + 2: control; PORT + 3: copies;
                            PORT + 4: the voter (so PORT is at most 65531, and volumes of one host are 5 ports apart).
                            Of the witness: PORT is the voter's */
    char public_key[KEY_TEXT]; /* Z85 */
    char store[1024];
    char mount[1024];    /* empty: none */
};

#define ETCD_ENDPOINTS_MAX 7
struct etcd_config { /* [etcd]: the register of a fleet (membership/register_etcd.c) */
    unsigned endpoint_count; /* 0: not used */
    char endpoints[ETCD_ENDPOINTS_MAX][160]; /* endpoints = http[s]://HOST:PORT,… */
    char prefix[128];        /* prefix = baton: of the keys */
    char ca[1024];           /* ca = FILE: certificates that sign the servers' */
    char certificate[1024], key[1024]; /* certificate = FILE, key = FILE: this host's own */
    char user[64], password_file[1024];
};

#define EXPORTS_MAX 12u
#define EXPORT_TEXT_MAX 8192u
struct export_config { /* [export NAME]: a share of the volume; exporters/exports.h */
    char name[64];
    char type[64];          /* type = nfs: the exporter; NAME, if it is not given */
    uint64_t start_ms;      /* start-timeout = 30s */
    uint64_t stop_ms;       /* stop-timeout = 5s */
    uint64_t monitor_ms;    /* monitor-timeout = 10s */
    uint64_t every_ms;      /* monitor-every = 10s; 0: never */
    unsigned key_count;     /* its own: */
    uint16_t keys, keys_end; /* "key=value" and NUL, one after the other, in config.export_text */
};

struct config {
    char path[1024];
    char volume[64];
    uint8_t volume_id[16]; /* `id = 32 hex digits` in [volume], written by baton create */
    int64_t created;       /* `created = ` nanoseconds since 1970: the root directory's times */
    enum acknowledge acknowledge;
    enum fsync_mode fsync;
    enum transport transport;
    enum request_loop request_loop; /* how the kernel's requests come: auto: by io_uring where it can */
    enum cpu_idle cpu_idle; /* see replication/awake.h; sleep: never */
    char options[256];     /* mount options: [volume] mount-options = dev,suid,… */
    uint64_t history_seconds; /* [journal] history = 1h; 0: keep nothing that every node has */
    uint64_t limit_bytes;     /* [journal] limit = 8GiB: what is kept for nodes that are away */
    uint64_t history_bytes;   /* [journal] size = 1GiB; likewise */
    uint64_t scrub_rate;      /* [scrub] rate = 32MiB: bytes a second */
    uint64_t scrub_seconds;   /* [scrub] every = 7d; 0: only when asked */
    uint64_t verify_rate;     /* [verify] rate = 8MiB: bytes of rows a second */
    uint64_t verify_seconds;  /* [verify] every = 7d; 0: only when asked */
    unsigned catchup_share;   /* [catch-up] share = 50%: see replication/catchup.h; 0: nothing is slowed */
    uint64_t catchup_floor;   /* [catch-up] floor = 1MiB: bytes a second */
    uint32_t lease_ms;        /* [lease] duration = 2s */
    unsigned node_count;
    struct node_config nodes[CONFIG_NODES_MAX];
    char preferred[64];       /* [volume] preferred = NODE: should be primary when it can; empty: none */
    enum failback failback;   /* [volume] failback: auto: it becomes that again by itself, once it is in sync */
    enum after_power_cut after_power_cut; /* [lease] after-power-cut: see baton.conf(5) */
    bool has_witness;
    struct node_config witness; /* address and public key only */
    char spare[64];           /* [spare] node = NODE: holds nothing while the others are in sync; empty: none */
    uint64_t spare_ms;        /* [spare] after = 10min: of another node's absence */
    char fence[1024];         /* [fence] program = PATH: powers another node off (membership/fence.h); empty: none */
    uint64_t fence_ms;        /* [fence] timeout = 30s */
    struct etcd_config etcd;
    unsigned export_count; /* in the order in which they start */
    struct export_config exports[EXPORTS_MAX];
    char addresses[512];   /* of all of them, ADDRESS/BITS[@INTERFACE] separated by spaces; empty: none */
    char hooks[1024];      /* [volume] hooks = FOLDER: programs that are told of each change of role; empty: none */
    char export_text[EXPORT_TEXT_MAX];
};

/* Who decides about the register and the lease (membership/register.h). */
enum config_register { REGISTER_FILE, REGISTER_VOTERS, REGISTER_ETCD };
/* Voters with a [witness], etcd with an [etcd], else a file on each node, and a person. */
enum config_register config_register(const struct config *config);
/* The name is a node's that is no spare: those whose copies count as redundancy, and who vote at a volume's birth. */
bool config_is_spare(const struct config *config, const struct node_config *node);

/* 0, or a negative errno and a sentence ("FILE:12: unknown key "acknowlege" in [volume]; …") in why. */
int config_load(const char *path, struct config *config, char *why, size_t why_room);
const struct node_config *config_node(const struct config *config, const char *name); /* NULL if absent */
/* Reads FILE.NODE.key (or `path`): mode must be 0600 or less. */
int config_secret(const struct config *config, const char *node, const char *path_or_null, char secret[KEY_TEXT],
                  char *why, size_t why_room);
/* "2s", "500ms", "1h", "3d" → milliseconds; "64MiB", "1GiB", "4096" → bytes. 0 or -EINVAL. */
int parse_duration(const char *text, uint64_t *ms);
int parse_size(const char *text, uint64_t *bytes);
bool config_name_valid(const char *name);  /* of a node or volume: 1..63 of [A-Za-z0-9_.-], beginning with [A-Za-z0-9] */
bool config_key_valid(const char *text);   /* 40 characters of Z85 */
/* Splits tcp://IP:PORT. IPv6 stands in brackets, which `host` is given without. 0 or -EINVAL. */
int config_address(const char *address, char host[64], uint16_t *port);

#endif
