/* The register of a volume, for as long as this process serves it: stores and replicators come and go meanwhile. */
#include "membership/register.h"
#include "replication/parts.h"

#include <stdio.h>

static struct lease_shared own_lease = {.until = INT64_MIN}; /* where no supervisor looks at it */

int replicator_open_register(struct volume *volume, char *why, size_t why_room) {
    const struct config *config = &volume->config;
    enum config_register kind = config_register(config);
    if (config->node_count == 1 || kind == REGISTER_FILE)
        return 0;
    struct register_watch watch = replicator_watch(volume);
    if (!volume->lease)
        volume->lease = &own_lease;
    if (kind == REGISTER_ETCD)
        return register_etcd_open(config, volume->self, &watch, volume->lease, &volume->reg, why, why_room);
    return register_voters_open(config, volume->self, volume->secret, &watch, volume->lease, &volume->reg, why, why_room);
}

void replicator_close_register(struct volume *volume) {
    if (!volume->reg)
        return;
    volume->reg->engine->close(volume->reg);
    volume->reg = NULL;
}
