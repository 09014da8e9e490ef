/* "status" on the control socket.
 *
 * Two lines: what is known without the engine lock first, then, with "end": true, what needs it. So a tool has something
 * to show when the store hangs. Of those who wait for the lock there is one at a time: a hanging store would otherwise
 * collect the threads of all who ask.
 */
#include "fs/control.h"
#include "fs/journal_text.h"
#include "fs/generation.h"
#include "fs/mend.h"
#include "fs/undone.h"
#include "fs/volume.h"
#include "membership/died.h"
#include "exporters/exports.h"
#include "membership/supervisor.h"
#include "replication/replicator.h"

#include <stdatomic.h>
#include <stdio.h>

static atomic_flag asking = ATOMIC_FLAG_INIT;

static const char *const acknowledge_names[] = {"close", "write", "never"};

static void add_supervisor(const struct volume *volume, json_t *line) {
    const struct supervision *shared = volume->supervision;
    int parent = shared ? atomic_load(&shared->parent) : 0;
    if (parent)
        json_object_set_new(line, "supervisor",
                            json_pack("{s:i, s:I}", "pid", parent, "restarts", (json_int_t)atomic_load(&shared->restarts)));
}

static json_t *quick(struct volume *volume) {
    const struct config *config = &volume->config;
    int role = atomic_load(&volume->role);

    json_t *line = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:I}", "volume", config->volume, "node", volume->self->name, "role",
        role == ROLE_PRIMARY ? "primary" : "standby", "store", volume->self->store, "mount", volume->self->mount,
        "acknowledge", acknowledge_names[config->acknowledge], "fsync", config->fsync == FSYNC_DISK ? "disk" : "memory",
        "transport", config->transport == TRANSPORT_CURVE ? "curve" : "clear", "stopping",
        atomic_load(&volume->stopping) ? 1 : 0, "pid", (json_int_t)getpid());
    if (line == NULL)
        return NULL;
    add_supervisor(volume, line);
    json_t *exports = exports_status(volume);
    if (exports)
        json_object_set_new(line, "exports", exports);
    json_object_set_new(line, "mounted", json_boolean(volume->front != NULL));
    if (volume->park != NULL)
        json_object_set_new(line, "waiting", json_integer((json_int_t)park_count(volume->park)));
    struct replicator *replicator = atomic_load(&volume->replicator);
    if (replicator != NULL)
        json_object_set_new(line, "replication", replicator_status(replicator));
    return line;
}

static void add_undone(void *list, const char *path, uint64_t bytes) {
    json_array_append_new(list, json_pack("{s:s, s:I}", "path", path, "bytes", (json_int_t)bytes));
}

static void add_died(void *list, const char *text) {
    json_array_append_new(list, json_string(text));
}

static void add_aside(void *context, const char *name) {
    json_array_append_new(context, json_string(name));
}

/* NULL: no block was ever bad. */
static json_t *bad_blocks(struct volume *volume) {
    struct mend_counts counts;
    mend_counts_now(volume->store, &counts);
    if (counts.found == 0)
        return NULL;
    json_t *files = json_array();
    for (uint32_t i = 0; i < counts.count; i++)
        json_array_append_new(files, json_pack("{s:I, s:I, s:I}", "inode", (json_int_t)counts.notes[i].ino, "block",
                                               (json_int_t)counts.notes[i].block, "time",
                                               (json_int_t)counts.notes[i].time));
    return json_pack("{s:I, s:I, s:I, s:o}", "found", (json_int_t)counts.found, "mended", (json_int_t)counts.mended,
                     "unmended", (json_int_t)counts.unmended, "unmended_blocks", files);
}

static json_t *slow(struct volume *volume) {
    struct position position;
    struct store_space space;
    struct store_journal journal;
    char epoch[96], chain[2 * CHAIN_SIZE + 1];

    store_position(volume->store, &position);
    store_journal(volume->store, &journal);
    epoch_text(&volume->config, position.epoch, epoch, sizeof epoch);
    for (unsigned i = 0; i < CHAIN_SIZE; i++)
        snprintf(chain + 2 * (size_t)i, 3, "%02x", position.chain[i]);
    json_t *state = json_pack("{s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "lsn", (json_int_t)position.lsn, "epoch", epoch, "chain",
                              chain, "committed", (json_int_t)position.committed, "durable", (json_int_t)position.durable,
                              "journal_first", (json_int_t)position.first, "last_change", (json_int_t)position.time,
                              "journal_bytes", (json_int_t)journal.bytes, "journal_limit", (json_int_t)journal.limit);
    if (state != NULL && store_space(volume->store, &space) == 0)
        json_object_set_new(state, "space",
                            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "total", (json_int_t)space.total, "free",
                                      (json_int_t)space.free, "live", (json_int_t)space.live, "kept",
                                      (json_int_t)space.kept, "dead", (json_int_t)space.dead, "meta",
                                      (json_int_t)space.meta, "inodes", (json_int_t)space.inodes));
    json_t *bad = state == NULL ? NULL : bad_blocks(volume);
    if (bad != NULL)
        json_object_set_new(state, "bad_blocks", bad);
    json_t *undone = json_array();
    if (state != NULL && undone != NULL && undone_list(store_path(volume->store), add_undone, undone) == 0 &&
        json_array_size(undone) > 0)
        json_object_set(state, "undone", undone);
    json_decref(undone);
    json_t *aside = json_array();
    if (state != NULL && aside != NULL && generation_kept(store_path(volume->store), add_aside, aside) == 0 &&
        json_array_size(aside) > 0)
        json_object_set(state, "aside", aside);
    json_decref(aside);
    json_t *died = json_array();
    if (state != NULL && died != NULL && died_each(store_path(volume->store), add_died, died) == 0 &&
        json_array_size(died) > 0)
        json_object_set(state, "died", died);
    json_decref(died);
    return json_pack("{s:o, s:b}", "state", state, "end", 1);
}

static void handle(struct volume *volume, const json_t *request, struct control_reply *reply) {
    (void)request;
    if (control_send(reply, quick(volume)) != 0)
        return;
    if (atomic_flag_test_and_set(&asking)) {
        /* Most likely somebody asked at the same moment: a short wait tells that from a store that hangs. */
        for (unsigned i = 0; i < 50; i++) {
            if (control_gone(reply, 10))
                return;
            if (!atomic_flag_test_and_set(&asking))
                goto mine;
        }
        control_send(reply, json_pack("{s:n, s:b}", "state", "end", 1));
        return;
    }
mine:;
    json_t *line = slow(volume);
    atomic_flag_clear(&asking);
    control_send(reply, line);
}

void control_status(void) {
    control_register("status", handle);
}
