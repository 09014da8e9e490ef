/* An undone tail as a past (fs/history_undone.h): random changes, rolled back, show again the tables of their end,
 * while another history goes on in the store; and files whose records are well-formed and fit their chain, but make no
 * sense, are read to their end or a sentence, with what lies below and without it. BATON_ROUNDS: of each (30). */
#include "fs/history_undone.h"
#include "fs/tree.h"
#include "fs/undone.h"
#include "tests/churn.h"

#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

#define TAIL_CHANGES 300u

static uint64_t seed;
static uint64_t directories[2];
static char why[500];
static unsigned counter = 1;

static uint64_t below(uint64_t n) {
    return test_random(&seed) % n;
}

static void work(struct store *store, unsigned changes) {
    for (unsigned i = 0; i < changes; i++) {
        int error = churn(store, directories, &seed);
        if (error)
            bail("churn: %s", strerror(-error));
        if (below(20) == 0)
            op_reclaim_some(store);
    }
}

static uint64_t last_lsn(struct store *store) {
    struct position position;
    store_position(store, &position);
    return position.lsn;
}

static void start_epoch(struct store *store) {
    if (store_start_epoch(store, EPOCH_MAKE(++counter, 7), "a") != 0)
        bail("store_start_epoch");
}

/* Reads all that a past shows. Returns how many files. */
static unsigned walk(const struct tree *tree, uint64_t directory, unsigned depth, unsigned *bad) {
    static uint8_t buffer[TREE_DATA_MAX], value[BATON_XATTR_VALUE_MAX];
    static char target[BATON_SYMLINK_MAX + 1];
    struct tree_entry *entries = malloc(TREE_LIST_MAX * sizeof *entries);
    unsigned files = 0, count = 1;
    uint64_t cookie = 0;

    while (depth < 100 && count > 0 && tree->list(tree->context, directory, cookie, entries, &count) == 0) {
        for (unsigned i = 0; i < count; i++) {
            struct tree_entry *entry = &entries[i];
            struct tree_data data = {.length = 1};
            char name[BATON_NAME_MAX + 1] = "";
            uint32_t length;
            cookie = entry->cookie;
            while (tree->xattr(tree->context, entry->ino, name, value, &length) == 0)
                ;
            if (S_ISLNK(entry->row.mode))
                tree->target(tree->context, entry->ino, target);
            if (S_ISDIR(entry->row.mode))
                files += walk(tree, entry->ino, depth + 1, bad);
            if (!S_ISREG(entry->row.mode))
                continue;
            files++;
            unsigned stretches = 0;
            for (uint64_t at = 0; data.length > 0 && stretches < 2000; at = data.from + data.length, stretches++) {
                if (tree->data(tree->context, entry->ino, at, buffer, &data) != 0)
                    break;
                *bad += data.bad;
            }
        }
    }
    free(entries);
    return files;
}

/* ---- names and link counts ---- */

#define LINKS_MAX 20000u
struct link_seen {
    uint64_t ino;
    uint32_t nlink, flags;
};
static struct link_seen links_seen[LINKS_MAX];
static unsigned link_count;

static void gather_links(const struct tree *tree, uint64_t directory, unsigned depth) {
    struct tree_entry *entries = malloc(TREE_LIST_MAX * sizeof *entries);
    unsigned count = 1;
    uint64_t cookie = 0;

    while (depth < 100 && count > 0 && tree->list(tree->context, directory, cookie, entries, &count) == 0) {
        for (unsigned i = 0; i < count; i++) {
            struct tree_entry *entry = &entries[i];
            cookie = entry->cookie;
            if (S_ISDIR(entry->row.mode))
                gather_links(tree, entry->ino, depth + 1);
            else if (link_count < LINKS_MAX)
                links_seen[link_count++] = (struct link_seen){entry->ino, entry->row.nlink, entry->flags};
        }
    }
    free(entries);
}

static int by_ino(const void *a, const void *b) {
    const struct link_seen *x = a, *y = b;
    return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* A file has as many links as names; one that was there before, of which the tail says little, may have one name more
 * that nobody knows. Returns how many have not. */
static unsigned wrong_links(const struct tree *tree) {
    unsigned wrong = 0;
    link_count = 0;
    gather_links(tree, ROOT_INO, 0);
    qsort(links_seen, link_count, sizeof *links_seen, by_ino);
    for (unsigned i = 0, names; i < link_count; i += names) {
        const struct link_seen *first = &links_seen[i];
        for (names = 1; i + names < link_count && first[names].ino == first->ino; names++)
            ;
        if (first->nlink == names || (first->flags & TREE_PARTIAL && first->nlink == names + 1))
            continue;
        wrong++;
        diag("inode %llx has %u names and %u links", (unsigned long long)first->ino, names, first->nlink);
    }
    return wrong;
}

/* ---- a tail's end ---- */

static struct tables *round_trip(struct store *store, char file[1300], uint64_t *fork) {
    work(store, 100);
    *fork = last_lsn(store);
    if (below(3) == 0) { /* the tail begins with an epoch, as that of a node that was promoted alone does */
        store_stop_epoch(store);
        start_epoch(store);
    }
    work(store, TAIL_CHANGES);
    struct tables *end = tables_take(store, TABLES_LOGICAL);
    store_stop_epoch(store);
    is_int(0, store_rollback(store, *fork, file, 1300), "a tail is rolled back");
    start_epoch(store);
    work(store, 100);
    return end;
}

static void equal_at_end(struct store *store, const struct tables *end, const char *file) {
    struct undone_report report;
    struct store *past = NULL;
    unsigned bad = 0;
    int error = history_open_undone(store, file, NULL, NULL, &past, &report, why, sizeof why);
    is_int(0, error, "the tail is a past (%s)", why);
    if (error)
        return;
    ok(!report.blank && report.reached == report.last && report.refused == 0, "all of it (%s)", report.damage);
    for (int look = 0; look < 2; look++) {
        struct tables *tables = tables_take(past, TABLES_LOGICAL);
        bool equal = tables_equal(end, tables, why, sizeof why);
        ok(equal, "it shows the %zu rows of the tail's end%s", tables_rows(end),
           look ? ", also after other changes" : "");
        if (!equal)
            diag("%s", why);
        tables_free(tables);
        work(store, 50);
    }
    struct tree tree = tree_of_store(past);
    unsigned files = walk(&tree, ROOT_INO, 0, &bad);
    ok(files > 0 && bad == 0, "%u files are read, %u bad blocks", files, bad);
    is_int(0, wrong_links(&tree), "they have as many links as names");
    history_close(past);
}

/* ---- records that make no sense ---- */

struct head { /* as in fs/undone.c */
    char magic[8];
    uint8_t volume[STORE_ID_SIZE];
    uint64_t first, last;
    uint8_t chain[CHAIN_SIZE];
    uint64_t check;
} __attribute__((packed));

struct record_frame {
    uint32_t length, payload;
    uint64_t check;
} __attribute__((packed));

/* Changes bytes of the record where it still decodes. */
static bool garble(uint8_t *bytes, uint32_t length) {
    uint8_t *before = malloc(length);
    struct record record;
    bool changed = false;
    memcpy(before, bytes, length);
    for (unsigned tries = 0; tries < 30 && !changed; tries++) {
        struct record_head head, old;
        size_t at = below(length);
        bytes[at] = (uint8_t)(below(2) ? bytes[at] ^ 1u << below(8) : before[below(length)]);
        memcpy(&head, bytes, sizeof head);
        memcpy(&old, before, sizeof old);
        bool framed = head.length == old.length && head.lsn == old.lsn && head.payload == old.payload;
        changed = framed && record_decode(bytes, length, &record, NULL) == 0;
        if (changed)
            record_release(&record);
        else
            memcpy(bytes, before, length);
    }
    free(before);
    return changed;
}

/* A copy of the file in which some records say something else; chain and checksums fit. */
static unsigned garbled_copy(const char *from, const char *to) {
    FILE *in = fopen(from, "re"), *out = fopen(to, "we");
    static uint8_t bytes[RECORD_LENGTH_MAX + RECORD_PAYLOAD_MAX];
    uint8_t chain[CHAIN_SIZE];
    struct record_frame frame;
    unsigned changed = 0;
    struct head head;
    if (!in || !out || fread(&head, sizeof head, 1, in) != 1 || fwrite(&head, sizeof head, 1, out) != 1)
        bail("no file to garble");
    memcpy(chain, head.chain, CHAIN_SIZE);
    while (fread(&frame, sizeof frame, 1, in) == 1) {
        size_t length = (size_t)frame.length + frame.payload;
        if (fread(bytes, 1, length, in) != length)
            bail("a record is cut off");
        if (below(40) == 0)
            changed += garble(bytes, frame.length);
        uint8_t now[CHAIN_SIZE];
        record_chain(chain, bytes, frame.length, now);
        memcpy(bytes + offsetof(struct record_head, chain), now, CHAIN_SIZE);
        memcpy(chain, now, CHAIN_SIZE);
        frame.check = XXH3_64bits_withSeed(bytes, length, (uint64_t)frame.length << 32 | frame.payload);
        if (fwrite(&frame, sizeof frame, 1, out) != 1 || fwrite(bytes, 1, length, out) != length)
            bail("the copy cannot be written");
    }
    fclose(in);
    fclose(out);
    return changed;
}

static void read_garbled(struct store *store, const char *file, bool blank, unsigned rounds) {
    unsigned opened = 0, stopped = 0, files = 0, bad = 0, wrong = 0;
    char copy[600];
    snprintf(copy, sizeof copy, "%s/garbled", test_directory());
    for (unsigned i = 0; i < rounds; i++) {
        struct undone_report report;
        struct store *past = NULL;
        unsigned changed = garbled_copy(file, copy);
        why[0] = '\0';
        int error = history_open_undone(store, copy, NULL, NULL, &past, &report, why, sizeof why);
        if (error) {
            wrong += why[0] == '\0';
            continue;
        }
        opened++;
        wrong += report.blank != blank;
        /* What stops it has a sentence; what does not change anything stops nothing. */
        wrong += report.reached < report.last && report.damage[0] == '\0';
        wrong += changed == 0 && (report.reached < report.last || report.refused > 0);
        stopped += report.reached < report.last || report.refused > 0;
        struct tree tree = tree_of_store(past);
        files += walk(&tree, ROOT_INO, 0, &bad);
        history_close(past);
    }
    ok(opened > rounds / 2 && stopped > 0 && files > 0 && bad == 0 && wrong == 0,
       "%u garbled files%s: %u were opened, %u of them told of what makes no sense, %u files read, %u bad blocks, %u "
       "wrong",
       rounds, blank ? " without what lies below" : "", opened, stopped, files, bad, wrong);
}

/* ---- paths ---- */

/* Of a path that just fits the way up is not known, and the directory where it ends has the longest number there is. */
static void deep_below_the_unknown(void) {
    static uint8_t bytes[RECORD_LENGTH_MAX];
    struct store *store = fixture_store("deep", 1), *past = NULL;
    uint64_t lsn, at = 0, parent = ROOT_INO, ino = make(store, ROOT_INO, "f", S_IFREG | 0600), fork = last_lsn(store);
    char name[256] = "", file[1300], copy[600], line[5000] = "";
    struct undone_report report;
    struct undone *undone;
    struct span from, payload;
    struct attributes attributes;
    uint32_t left;
    for (unsigned i = 0; i < 18; i++) {
        memset(name, 'd', 255);
        name[i ? 255 : 113] = '\0';
        parent = make(store, parent, name, S_IFDIR | 0700);
    }
    PROMISE(op_link(store, ino, parent, "f", &attributes, &lsn) == 0 && op_unlink(store, parent, "f", &ino, &left, &lsn) == 0);
    store_stop_epoch(store);
    is_int(0, store_rollback(store, fork, file, sizeof file), "deep directories are rolled back");
    snprintf(copy, sizeof copy, "%s/deep-copy", test_directory());
    PROMISE(undone_open(file, &undone, why, sizeof why) == 0);
    FILE *in = fopen(file, "re"), *out = fopen(copy, "we");
    struct head head;
    PROMISE(in && out && fread(&head, sizeof head, 1, in) == 1);
    fclose(in);
    head.chain[0] ^= 1; /* the store knows nothing of it */
    head.check = XXH3_64bits(&head, offsetof(struct head, check));
    PROMISE(fwrite(&head, sizeof head, 1, out) == 1);
    uint8_t chain[CHAIN_SIZE];
    memcpy(chain, head.chain, CHAIN_SIZE);
    while (undone_next(undone, &from, &payload) == 1) {
        struct record record;
        PROMISE(record_decode(from.data, from.length, &record, NULL) == 0);
        if (record.head.type == RECORD_CREATE && record.parent == ROOT_INO)
            record.parent = UINT64_MAX - 255;
        int length = record_encode(&record, chain, bytes, sizeof bytes);
        PROMISE(length > 0 && payload.length == 0);
        memcpy(chain, bytes + offsetof(struct record_head, chain), CHAIN_SIZE);
        struct record_frame frame = {.length = (uint32_t)length};
        frame.check = XXH3_64bits_withSeed(bytes, (size_t)length, (uint64_t)frame.length << 32);
        PROMISE(fwrite(&frame, sizeof frame, 1, out) == 1 && fwrite(bytes, 1, frame.length, out) == frame.length);
        record_release(&record);
    }
    fclose(out);
    undone_close(undone);
    is_int(0, history_open_undone(store, copy, NULL, NULL, &past, &report, why, sizeof why), "they are read (%s)", why);
    ok(report.blank && report.reached == report.last && report.removed == 1, "a name was removed there");
    store_lock(past);
    is_int(0, history_removed(past, &at, line, sizeof line), "which is told");
    store_unlock(past);
    ok(strlen(line) > 4300 && strcmp(line + strlen(line) - 4, "dd/f") == 0, "with the end of its path (%zu bytes)", strlen(line));
    history_close(past);
    store_close(store);
}

int main(void) {
    const char *text = getenv("BATON_ROUNDS");
    unsigned rounds = text ? (unsigned)atoi(text) : 30;
    char file[1300];
    uint64_t fork;

    plan_lazy();
    seed = test_seed();
    churn_prepare(&seed);
    struct store *store = fixture_store("a", 1);
    directories[0] = make(store, ROOT_INO, "one", S_IFDIR | 0755);
    directories[1] = make(store, ROOT_INO, "two", S_IFDIR | 0755);
    for (unsigned i = 0; i < rounds / 5 + 1; i++) {
        struct tables *end = round_trip(store, file, &fork);
        equal_at_end(store, end, file);
        tables_free(end);
    }
    read_garbled(store, file, false, rounds);

    /* The journal goes, and with it what lies below. */
    store_close(store);
    fixture_options.no_history = true;
    store = fixture_open("a");
    for (int i = 0; i < 3; i++)
        store_checkpoint(store);
    struct position position;
    store_position(store, &position);
    ok(position.first > fork + 1, "the journal no longer reaches back");
    struct undone_report report;
    struct store *past = NULL;
    unsigned bad = 0;
    is_int(0, history_open_undone(store, file, NULL, NULL, &past, &report, why, sizeof why),
           "the tail alone opens (%s)", why);
    ok(report.blank && report.reached == report.last, "all of it is read (%s)", report.damage);
    is_int(0, report.refused, "what lies below is made up so that all of it makes sense");
    struct tree tree = tree_of_store(past);
    ok(walk(&tree, ROOT_INO, 0, &bad) > 0 && bad == 0, "it has files, and no bad blocks");
    is_int(0, wrong_links(&tree), "files have as many links as names");
    history_close(past);
    read_garbled(store, file, true, rounds);
    store_close(store);
    fixture_options.no_history = false;
    deep_below_the_unknown();
    return 0;
}
