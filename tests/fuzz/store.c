/* Damaged stores: files of a store are changed, or rows of its tables; then it is checked, opened, read, worked with,
 * taken back, and opened again.
 *
 * An input: a byte of flags, then edits (see `edit`). The rows and checksums that an edit of a row touches are right
 * again: what follows is what a hostile or mistaken writer could have left, behind all checksums. An edit of a file may
 * ask for the same (`make_right`).
 */
#include "fs/check.h"
#include "fs/ops.h"
#include "fs/store_internal.h"
#include "tests/fuzz/edit.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

#define WORK 1u     /* the store becomes primary, and is changed */
#define UNDO 2u     /* its history is taken back */
#define PASTS 4u    /* its history is read */
#define TRIM 8u     /* its journal is trimmed first: what the undone tail takes for granted is no longer known */
#define EDITS_MAX 12u
#define CHECKPOINT_SLOT 8192u

static char folder[600];
/* Rows behind their checksums may make a whole state that the journal's records did not make, or the journal may tell of
 * rows that never were: check looks at the state, and at each record, not at whether the one follows from the others. Then
 * the past is not asked for sense, nor are records in the tail to fit; the present is. */
static bool past_edited;
/* A segment's head that lies too far on makes room that nobody owns, as freed blocks are; but records in the tail have it. */
static bool segments_edited;
static int open_error; /* of the last open */

static void start(void) {
    fuzz_template();
    snprintf(folder, sizeof folder, "%s/store", fuzz_directory());
}

/* ---- Files ---- */

/* Sums over what is there now, so that the damage is behind them. */
static void checkpoint_right(uint8_t *bytes, size_t length) {
    for (unsigned slot = 0; slot < 2 && length >= slot * CHECKPOINT_SLOT + sizeof(struct checkpoint); slot++) {
        struct checkpoint *at = (struct checkpoint *)(bytes + slot * CHECKPOINT_SLOT);
        at->check = XXH3_64bits(at, offsetof(struct checkpoint, check));
    }
}

struct tail_head { /* of an entry, as tail.c has it */
    uint32_t magic, length;
    uint64_t check;
    uint32_t record_length, payload_length, place_count, filler;
} __attribute__((packed));

static void tail_right(uint8_t *bytes, size_t length) {
    uint64_t seq, check;
    if (length < TAIL_PAGE)
        return;
    memcpy(&seq, bytes + 8, sizeof seq);
    check = XXH3_64bits(bytes, 8 + 8 + 8 + CHAIN_SIZE);
    memcpy(bytes + 8 + 8 + 8 + CHAIN_SIZE, &check, sizeof check);
    for (size_t at = TAIL_PAGE; length - at >= sizeof(struct tail_head);) {
        struct tail_head head;
        memcpy(&head, bytes + at, sizeof head);
        if (head.length < sizeof head || head.length > length - at)
            return;
        head.check = XXH3_64bits_withSeed(bytes + at + offsetof(struct tail_head, record_length),
                                          head.length - offsetof(struct tail_head, record_length), seq);
        memcpy(bytes + at, &head, sizeof head);
        at += head.length;
    }
}

struct undone_head { /* of a record, as undone.c has it */
    uint32_t length, payload;
    uint64_t check;
} __attribute__((packed));
#define UNDONE_HEAD (8u + 16 + 8 + 8 + CHAIN_SIZE)

/* Chains, too: the records follow from each other. */
static void undone_right(uint8_t *bytes, size_t length) {
    uint8_t chain[CHAIN_SIZE];
    uint64_t check;
    if (length < UNDONE_HEAD + sizeof check)
        return;
    memcpy(chain, bytes + UNDONE_HEAD - CHAIN_SIZE, CHAIN_SIZE);
    check = XXH3_64bits(bytes, UNDONE_HEAD);
    memcpy(bytes + UNDONE_HEAD, &check, sizeof check);
    for (size_t at = UNDONE_HEAD + sizeof check; length - at >= sizeof(struct undone_head);) {
        struct undone_head head;
        memcpy(&head, bytes + at, sizeof head);
        at += sizeof head;
        uint64_t whole = (uint64_t)head.length + head.payload;
        if (whole > length - at || head.length < sizeof(struct record_head))
            return;
        record_chain(chain, bytes + at, head.length, chain);
        memcpy(bytes + at + offsetof(struct record_head, chain), chain, CHAIN_SIZE);
        head.check = XXH3_64bits_withSeed(bytes + at, whole, (uint64_t)head.length << 32 | head.payload);
        memcpy(bytes + at - sizeof head, &head, sizeof head);
        at += whole;
    }
}

static void make_right(const char *name, uint8_t *bytes, size_t length) {
    if (strcmp(name, "checkpoint") == 0)
        checkpoint_right(bytes, length);
    else if (strncmp(name, "tail/", 5) == 0)
        tail_right(bytes, length);
    else if (strncmp(name, "undone/", 7) == 0)
        undone_right(bytes, length);
}

enum file_edit { FILE_BYTES, FILE_BYTES_RIGHT, FILE_XOR, FILE_CUT, FILE_GROW, FILE_REMOVE, FILE_COPY_PAGE, FILE_EDITS };

static void edit_file(struct script *script) {
    const struct image *image = fuzz_template();
    const struct image_file *file = &image->files[script_below(script, image->count)];
    uint32_t what = script_below(script, FILE_EDITS), page = script_u16(script), within = script_u16(script) % 4096;
    size_t at = file->length ? ((size_t)page * 4096 + within) % file->length : 0;
    struct span bytes = script_bytes(script, 1 + script_below(script, 24));
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", folder, file->name);
    if (what == FILE_REMOVE) {
        unlink(path);
        return;
    }
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return; /* removed before */
    if (what == FILE_CUT || what == FILE_GROW) {
        PROMISE(ftruncate(fd, what == FILE_CUT ? (off_t)at : (off_t)(file->size + at)) == 0);
        return;
    }
    struct stat st;
    PROMISE(fstat(fd, &st) == 0);
    AUTO_FREE uint8_t *all = malloc(file->length + 1);
    size_t length = MIN(file->length, (size_t)st.st_size);
    PROMISE(all && pread_all(fd, all, length, 0) == 0);
    for (size_t i = 0; i < bytes.length && at + i < length; i++)
        all[at + i] = (uint8_t)(what == FILE_XOR ? all[at + i] ^ bytes.data[i] : bytes.data[i]);
    if (what == FILE_COPY_PAGE && length >= 8192) /* another page's content, of earlier perhaps */
        memcpy(all + at / 4096 % (length / 4096) * 4096, all + within % (length / 4096) * 4096, 4096);
    if (what == FILE_BYTES_RIGHT)
        make_right(file->name, all, length);
    PROMISE(pwrite_all(fd, all, length, 0) == 0);
}

/* ---- Rows ---- */

static void edit_table(struct script *script, MDB_env *env) {
    enum table table = script_below(script, TABLE_END);
    uint32_t nth = script_u8(script);
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_cursor *cursor;
    MDB_val k, data;
    if (mdb_txn_begin(env, NULL, 0, &txn) != 0)
        return;
    if (mdb_dbi_open(txn, table_names[table], 0, &dbi) != 0 || mdb_cursor_open(txn, dbi, &cursor) != 0) {
        mdb_txn_abort(txn);
        return;
    }
    struct edited_row row = {.table = table};
    int rc = mdb_cursor_get(cursor, &k, &data, MDB_FIRST);
    for (uint32_t i = 0; rc == 0 && i < nth; i++)
        if (mdb_cursor_get(cursor, &k, &data, MDB_NEXT) != 0)
            rc = mdb_cursor_get(cursor, &k, &data, MDB_FIRST);
    if (rc == 0 && k.mv_size <= KEY_MAX && data.mv_size >= 8 && data.mv_size - 8 <= EDITED_VALUE_MAX) {
        row.key.length = (uint16_t)k.mv_size;
        memcpy(row.key.bytes, k.mv_data, k.mv_size);
        row.length = data.mv_size - 8;
        memcpy(row.value, data.mv_data, row.length);
    }
    mdb_cursor_close(cursor);
    struct key before = row.key;
    enum edit_effect effect = edit_row(script, &row);
    past_edited |= table == TABLE_JOURNAL || table < TABLE_SHARED_END;
    segments_edited |= table == TABLE_SEGMENT;
    k = (MDB_val){before.length, before.bytes};
    if (effect != EDIT_ADD && before.length)
        mdb_del(txn, dbi, &k, NULL);
    if (effect != EDIT_REMOVE && row.key.length) {
        uint64_t check = table_row_check(table, &row.key, row.value, row.length);
        memcpy(row.value + row.length, &check, sizeof check);
        k = (MDB_val){row.key.length, row.key.bytes};
        data = (MDB_val){row.length + sizeof check, row.value};
        mdb_put(txn, dbi, &k, &data, 0);
    }
    mdb_txn_commit(txn);
}

/* The checkpoint names the state that the edits have left. */
static void checkpoint_again(void) {
    struct store *store = calloc(1, sizeof *store);
    struct checkpoint older, newest;
    bool suspect;
    char path[1200], why[600];
    PROMISE(store);
    store->path = store->base = folder;
    snprintf(path, sizeof path, "%s/checkpoint", folder);
    store->checkpoint_fd = open(path, O_RDWR | O_CLOEXEC);
    snprintf(path, sizeof path, "%s/meta/data.mdb", folder);
    store->meta_fd = open(path, O_RDWR | O_CLOEXEC);
    if (store->checkpoint_fd >= 0 && store->meta_fd >= 0 &&
        checkpoint_read(store, &newest, &older, &suspect, why, sizeof why) == 0) {
        uint64_t txnid = newest.txnid;
        while (checkpoint_copy_page(store, txnid + 1, newest.page) == 0) /* one after the other, in two slots */
            txnid++;
        if (txnid > newest.txnid && checkpoint_copy_page(store, txnid, newest.page) == 0) {
            newest.number++;
            newest.txnid = txnid;
            PROMISE(checkpoint_write(store, &newest) == 0);
        }
    }
    if (store->checkpoint_fd >= 0)
        close(store->checkpoint_fd);
    if (store->meta_fd >= 0)
        close(store->meta_fd);
    free(store);
}

static void edit_rows(struct script *script) {
    char path[1200];
    MDB_env *env;
    snprintf(path, sizeof path, "%s/meta", folder);
    if (mdb_env_create(&env) != 0)
        return;
    mdb_env_set_maxdbs(env, TABLE_END);
    if (mdb_env_open(env, path, MDB_NOSYNC | MDB_NOLOCK, 0600) == 0)
        edit_table(script, env);
    mdb_env_close(env);
    checkpoint_again();
}

/* ---- The run ---- */

static void ignore(void *context, const char *sentence) {
    (void)context;
    if (getenv("FUZZ_LOG"))
        fprintf(stderr, "finding: %s\n", sentence);
}

static int check(void) {
    int findings = check_store(folder, CHECK_DATA, ignore, NULL);
    if (fuzz_lmdb_died())
        FUZZ_MUST(findings > 0); /* a crash is a finding */
    return findings;
}

static struct store *open_store(bool trim) {
    struct store_options options = fuzz_options();
    struct store *store = NULL;
    char why[1400] = "";
    options.no_history = trim;
    int rc = open_error = store_open(folder, fuzz_volume, &options, &store, why, sizeof why);
    FUZZ_MUST(rc == 0 || rc == -ENOMEM || why[0]);
    if (rc && getenv("FUZZ_LOG"))
        fprintf(stderr, "open: %d: %s\n", rc, why);
    for (unsigned i = 0; rc == 0 && trim && i < 3; i++) /* a pass follows each */
        store_checkpoint(store);
    return rc ? NULL : store;
}

static uint64_t known_ino(struct script *script) {
    return script_below(script, 4) ? (1ull << 40) + script_below(script, 80) : ROOT_INO;
}

static void work(struct script *script, struct store *store) {
    static const struct caller root = {.umask = 022};
    static const char *const names[] = {"folder", "large", "new", "second name", "below", "holes", "file 5", "only in the tail"};
    static uint8_t bytes[70000];
    struct attributes out;
    uint64_t lsn, ino, inos[16];
    uint32_t left;
    if (store_start_epoch(store, EPOCH_MAKE(5, 7), "a") != 0)
        return;
    for (unsigned i = 0; i < 12; i++) {
        uint64_t a = known_ino(script), b = known_ino(script), offset = script_u16(script) * 100u;
        const char *name = names[script_below(script, 8)], *other = names[script_below(script, 8)];
        size_t length = 1 + script_u16(script);
        switch (script_below(script, 11)) {
        case 0:
            op_create(store, &root, a, name, S_IFREG | 0644, 0, NULL, &out, &lsn);
            break;
        case 1:
            op_write(store, a, bytes, length, offset, 0, &lsn);
            break;
        case 2:
            op_truncate(store, a, offset, false, &lsn);
            break;
        case 3:
            op_unlink(store, a, name, &ino, &left, &lsn);
            break;
        case 4:
            op_rename(store, &root, a, name, b, other, script_below(script, 3), &ino, &left, &lsn);
            break;
        case 5:
            op_fallocate(store, a, script_below(script, 2) ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0, offset, length, &lsn);
            break;
        case 6:
            op_setxattr(store, &root, a, "user.x", bytes, length % 4000, 0, false, &lsn);
            break;
        case 7:
            op_reclaim(store, inos, (size_t)MAX(op_orphans(store, 0, inos, 16), 0));
            break;
        case 8:
            op_reclaim_some(store);
            break;
        case 9:
            op_rmdir(store, a, name, &ino, &lsn);
            break;
        default:
            op_link(store, a, b, name, &out, &lsn);
        }
    }
}

static bool run(struct script *script) {
    uint8_t flags = script_u8(script);
    struct position position;
    image_write(fuzz_template(), folder);
    past_edited = segments_edited = false;
    for (unsigned i = 0; i < EDITS_MAX && script_u8(script) != 0; i++) {
        if (script_below(script, 2))
            edit_rows(script);
        else
            edit_file(script);
    }
    int findings = check();
    bool undone = flags & UNDO && past_edited;
    if (findings == 0)
        fuzz_must_live(undone); /* what check finds whole can be used */
    struct store *store = open_store(flags & TRIM);
    if (!store) {
        /* What cannot be opened is not whole, or the tail's records do not fit it, or it is one of another volume. */
        FUZZ_MUST(findings != 0 || past_edited || open_error == -EXDEV);
        return false;
    }
    unsigned errors = fuzz_read_all(store, flags & PASTS);
    FUZZ_MUST(findings != 0 || errors == 0 || (flags & PASTS && past_edited));
    if (flags & WORK)
        work(script, store);
    store_position(store, &position);
    if (flags & UNDO)
        store_undo(store, position.lsn / 2);
    store_close(store);
    if (!(flags & (WORK | UNDO)))
        return findings == 0 && errors == 0;
    int again = check();
    FUZZ_MUST(findings != 0 || again == 0 || undone || segments_edited); /* and stays whole */
    store = open_store(false);
    FUZZ_MUST(findings != 0 || store || undone);
    if (store) {
        fuzz_read_all(store, false);
        store_close(store);
    }
    return findings == 0 && errors == 0;
}

static bool one(const uint8_t *input, size_t length) {
    struct script script = {input, length};
    bool result = false;
    fuzz_child(run, &script, &result);
    fuzz_remove(folder);
    return result;
}

/* ---- Seeds: the store as it is ---- */

static void seeds(void) {
    static const uint8_t plain[] = {0}, all[] = {WORK | UNDO | PASTS}, trimmed[] = {TRIM | PASTS};
    fuzz_give("whole", plain, sizeof plain);
    fuzz_give("whole-and-work", all, sizeof all);
    fuzz_give("trimmed", trimmed, sizeof trimmed);
}

const struct fuzz_harness fuzz_store = {.name = "store", .start = start, .one = one, .seeds = seeds};
