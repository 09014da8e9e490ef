/* A full synchronization from a provider that lies: rows of the tables and blocks as another node sent them, changed on
 * their way; then the store that was built of them is checked, read and worked with.
 *
 * An input: a byte of flags, then edits of rows, then of blocks. What import_rows() lets through goes into a store, and
 * that has to be one that every reader copes with.
 */
#include "fs/check.h"
#include "fs/history.h"
#include "fs/import.h"
#include "fs/ops.h"
#include "tests/fuzz/edit.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <sys/stat.h>

#define SAME_OLD 1u /* the old store has all blocks already; else it is empty */
#define BAD_BLOCKS 2u
#define PASTS 4u
#define UNFIT_ORDER 8u /* rows come in the order in which they are kept, edited keys or not */

static struct given_rows given; /* of the provider; edits are a child's, so they need not be taken back */
static struct import_state state;
static char folder[600], provider[600];

static struct store *provider_store; /* open as long as the harness runs, for its blocks; a child only reads files */

static void start(void) {
    struct store_options options = fuzz_options();
    struct position position;
    char why[600];
    snprintf(folder, sizeof folder, "%s/import", fuzz_directory());
    snprintf(provider, sizeof provider, "%s/provider", fuzz_directory());
    image_write(fuzz_template(), provider);
    fuzz_empty();
    PROMISE(store_open(provider, fuzz_volume, &options, &provider_store, why, sizeof why) == 0);
    given_load(&given, provider_store);
    store_position(provider_store, &position);
    state = (struct import_state){.lsn = position.lsn, .epoch = position.epoch, .time = position.time};
    memcpy(state.chain, position.chain, CHAIN_SIZE);
    memcpy(state.incarnation, store_incarnation(provider_store), STORE_ID_SIZE);
}

/* ---- Importing ---- */

struct answer {
    enum table table;
    struct key after;
    unsigned at;
};

static bool is_behind(const struct given_row *row, const struct key *after) {
    if (after->length == 0)
        return true;
    int order = memcmp(row->key.bytes, after->bytes, MIN(row->key.length, after->length));
    return order ? order > 0 : row->key.length > after->length;
}

static int next_row(void *context, struct span *key, struct span *value) {
    struct answer *answer = context;
    for (; answer->at < given.count; answer->at++) {
        const struct given_row *row = &given.rows[answer->at];
        if (row->table != answer->table || !is_behind(row, &answer->after))
            continue;
        *key = (struct span){row->key.bytes, row->key.length};
        *value = (struct span){row->value, row->length};
        answer->at++;
        return 1;
    }
    return 0;
}

static int take_rows(struct import *import) {
    struct answer answer;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && import_next_rows(import, &answer.table, &answer.after) == 0; i++) {
        FUZZ_MUST(i < 100); /* each answer is the rest of a table */
        answer.at = 0;
        rc = import_rows(import, answer.table, &answer.after, next_row, &answer, true);
    }
    return rc;
}

static int take_blocks(struct import *import, struct script *script, bool lie) {
    static uint8_t bytes[EXTENT_BLOCKS_MAX * BATON_BLOCK];
    struct import_want wants[16], after;
    unsigned count = 1;
    bool begun = false;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && count > 0; i++) {
        FUZZ_MUST(i < 1000);
        rc = import_wanted(import, begun ? &after : NULL, wants, 16, &count);
        for (unsigned w = 0; rc == 0 && w < count; w++) {
            after = wants[w];
            begun = true;
            bool bad = !store_place_valid(provider_store, wants[w].place) ||
                       store_read_blocks(provider_store, wants[w].place, bytes) != 0;
            if (lie)
                bytes[script_u16(script)] ^= script_u8(script);
            rc = import_blocks(import, &wants[w], bad ? NULL : bytes);
            if (rc == -EBADMSG) /* these were not the blocks: the provider cannot read them */
                rc = import_blocks(import, &wants[w], NULL);
        }
    }
    return rc;
}

static int build(struct import *import, struct script *script, uint8_t flags) {
    uint64_t common;
    int rc = import_begin(import, &state);
    if (rc == 0)
        rc = take_rows(import);
    if (rc == 0)
        import_common_point(import, &common);
    for (unsigned i = 0; rc == 0 && import_phase(import) != IMPORT_COMPLETE && i < 3; i++) {
        rc = take_blocks(import, script, flags & BAD_BLOCKS);
        if (rc == 0)
            rc = import_finish(import);
        rc = rc == -EAGAIN ? take_rows(import) : rc;
    }
    return rc;
}

static void ignore(void *context, const char *sentence) {
    (void)context;
    if (getenv("FUZZ_LOG"))
        fprintf(stderr, "finding: %s\n", sentence);
}

static bool look_at_it(uint8_t flags) {
    struct store_options options = fuzz_options();
    struct store *store;
    char why[1400] = "";
    int findings = check_store(folder, CHECK_DATA, ignore, NULL);
    FUZZ_MUST(!fuzz_lmdb_died());
    if (findings == 0)
        fuzz_must_live(false);
    int rc = store_open(folder, fuzz_volume, &options, &store, why, sizeof why);
    FUZZ_MUST(rc == 0); /* whatever it says, it is a store */
    unsigned errors = fuzz_read_all(store, flags & PASTS);
    FUZZ_MUST(findings != 0 || errors == 0);
    struct attributes out;
    struct caller root = {0};
    uint64_t lsn, inos[16];
    if (store_start_epoch(store, EPOCH_MAKE(9, 7), "a") == 0) {
        op_create(store, &root, ROOT_INO, "afterwards", S_IFREG | 0644, 0, NULL, &out, &lsn);
        op_reclaim(store, inos, (size_t)MAX(op_orphans(store, 0, inos, 16), 0));
        for (unsigned i = 0; i < 20 && op_reclaim_some(store) == 1; i++)
            ;
        store_undo(store, state.lsn);
    }
    store_close(store);
    return findings == 0 && errors == 0;
}

static bool run(struct script *script) {
    struct store_options options = fuzz_options();
    uint8_t flags = script_u8(script);
    struct store *old;
    struct import *import;
    char why[600] = "";
    for (unsigned i = 0; i < GIVEN_EDITS_MAX && script_u8(script) != 0; i++)
        given_edit(&given, script, i);
    if (!(flags & UNFIT_ORDER))
        given_sort(&given);
    image_write(flags & SAME_OLD ? fuzz_template() : fuzz_empty(), folder);
    PROMISE(store_open(folder, fuzz_volume, &options, &old, why, sizeof why) == 0);
    PROMISE(import_open(old, &import, why, sizeof why) == 0);
    int rc = build(import, script, flags);
    import_close(import);
    store_close(old);
    if (rc) {
        if (getenv("FUZZ_LOG"))
            fprintf(stderr, "import: %d\n", rc);
        return false;
    }
    PROMISE(import_switch(folder, NULL) == 0);
    return look_at_it(flags);
}

static bool one(const uint8_t *input, size_t length) {
    struct script script = {input, length};
    bool result = false;
    enum fuzz_end end = fuzz_child(run, &script, &result);
    FUZZ_MUST(end != FUZZ_LMDB);
    fuzz_remove(folder);
    return result;
}

static void seeds(void) {
    static const uint8_t fresh[] = {PASTS}, reuse[] = {SAME_OLD};
    fuzz_give("all-is-fetched", fresh, sizeof fresh);
    fuzz_give("all-is-there", reuse, sizeof reuse);
}

const struct fuzz_harness fuzz_import = {.name = "import", .start = start, .one = one, .seeds = seeds};
