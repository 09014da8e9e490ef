/* What the parts of reading a config file share: config.c (lines and keys), config_export.c ([export NAME]), config_check.c
 * (the whole, at the end).
 */
#ifndef BATON_FS_CONFIG_PARTS_H
#define BATON_FS_CONFIG_PARTS_H

#include "fs/config.h"

#include <stdio.h>

/* One pass over the file. The reader hands lines to inih, so it knows the line number and sees section headers before
 * inih does; inih itself cuts section names at 50 characters and says nothing about empty sections. */
struct parse {
    struct config *config;
    FILE *file;
    int line;
    const struct section *section; /* NULL: none yet */
    struct node_config *node;      /* of [node NAME] and [witness] */
    struct export_config *export;  /* of [export NAME], whose keys are its script's own */
    unsigned volume_seen, journal_seen, scrub_seen, verify_seen, catchup_seen, lease_seen, witness_seen, spare_seen, fence_seen, etcd_seen,
        node_seen[CONFIG_NODES_MAX];
    unsigned *seen; /* keys of the section that were given, by their place in its table */
    bool failed;
    char *why;
    size_t why_room;
};

struct key_rule {
    const char *name;
    bool (*set)(struct parse *parse, const char *value); /* false: it has said why. NULL: one of `words` */
    const char *const *words; /* in the order of the enum… */
    size_t at;                /* …which lies here in struct config */
};

struct section {
    const char *name;
    const struct key_rule *keys;
};

/* Keeps the first complaint, with file and line; always false. */
bool config_complain(struct parse *parse, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* About the whole file. Always false. */
bool config_wrong(struct parse *parse, const char *sentence);

bool config_enter_export(struct parse *parse, const char *name);
bool config_export_key(struct parse *parse, const char *name, const char *value);

/* What no line alone can tell. False: `why` says what. */
bool config_check(struct parse *parse);

#endif
