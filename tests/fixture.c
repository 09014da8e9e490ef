#include "tests/fixture.h"

#include <stdio.h>

const struct caller root_caller = {0, 0, 1, 022};
const uint8_t fixture_volume[STORE_ID_SIZE] = "a volume's id...";
struct store_options fixture_options = {
    .segment_blocks = 4096, .tail_size = 4u << 20, .history_bytes = 4ull << 30, .history_seconds = 86400};

struct store *fixture_open(const char *name) {
    char path[512], why[512] = "";
    struct store *store = NULL;
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    int error = store_open(path, fixture_volume, &fixture_options, &store, why, sizeof why);
    if (error)
        bail("store_open: %d: %s", error, why);
    return store;
}

struct store *fixture_store(const char *name, unsigned counter) {
    char path[512], why[512] = "";
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    int error = store_format(path, fixture_volume, "test", 1700000000123456789, &fixture_options, why, sizeof why);
    if (error)
        bail("store_format: %d: %s", error, why);
    struct store *store = fixture_open(name);
    error = counter ? store_start_epoch(store, EPOCH_MAKE(counter, 7), "a") : 0;
    if (error)
        bail("store_start_epoch: %d", error);
    return store;
}

bool fixture_feed(struct store *from, struct store *to) {
    return fixture_feed_until(from, to, UINT64_MAX);
}

bool fixture_feed_until(struct store *from, struct store *to, uint64_t last) {
    struct position end, at;
    uint8_t *payload = malloc(RECORD_PAYLOAD_MAX);
    int error = payload ? 0 : -ENOMEM;

    store_position(from, &end);
    store_position(to, &at);
    for (uint64_t lsn = at.lsn + 1; !error && lsn <= MIN(end.lsn, last); lsn++) {
        struct entry *entry = NULL;
        struct record_head head;
        error = store_read(from, lsn, &entry);
        if (error)
            break;
        memcpy(&head, entry->bytes, sizeof head);
        error = entry_payload(from, entry, payload);
        if (!error)
            error = store_receive(to, entry->bytes, entry->length, payload, head.payload);
        if (error)
            diag("record %llu (%s) is refused: %d", (unsigned long long)lsn, record_type_name(head.type), error);
        entry_put(entry);
    }
    free(payload);
    return error == 0;
}

bool fixture_same(struct store *a, struct store *b, const char *what) {
    char why[1200] = "";
    struct tables *x = tables_take(a, TABLES_LOGICAL), *y = tables_take(b, TABLES_LOGICAL);
    bool equal = tables_equal(x, y, why, sizeof why);
    ok(equal, "%s", what);
    if (!equal)
        diag("%s", why);
    tables_free(x);
    tables_free(y);
    return equal;
}

uint64_t make(struct store *store, uint64_t parent, const char *name, uint32_t mode) {
    struct attributes out;
    uint64_t lsn;
    int error = op_create(store, &root_caller, parent, name, mode, 0, "target", &out, &lsn);
    if (error)
        bail("op_create of \"%s\": %d", name, error);
    return out.ino;
}

struct inode_row row_of(struct store *store, uint64_t ino) {
    struct attributes out;
    int error = op_getattr(store, ino, &out);
    if (error)
        bail("op_getattr of %llu: %d", (unsigned long long)ino, error);
    return out.row;
}

void tell(void *context, const char *sentence) {
    (void)context;
    diag("%s", sentence);
}
