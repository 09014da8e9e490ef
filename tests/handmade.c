#include "tests/handmade.h"

#include "tests/tap.h"

uint64_t create_file(struct store *store, const char *name) {
    store_lock(store);
    int rc = store_admit(store, SPACE_GROW);
    uint64_t ino = rc ? 0 : store_next_id(store, 0);
    struct record record = {.head = {.type = RECORD_CREATE, .ino = ino},
                            .parent = 1,
                            .name = {(const uint8_t *)name, (uint32_t)strlen(name)},
                            .cookie = rc ? 0 : store_next_id(store, 1),
                            .new_data = ino,
                            .mode = 0100644};
    record.head.time = store_next_time(store, (struct file_time){0, 0});
    rc = rc ? rc : store_append(store, &record, NULL, NULL, 0);
    store_unlock(store);
    if (rc)
        diag("create %s: %d", name, rc);
    return rc ? 0 : ino;
}

uint64_t write_blocks(struct store *store, uint64_t ino, uint64_t first, uint32_t blocks, uint8_t fill) {
    size_t length = (size_t)blocks * BATON_BLOCK;
    uint8_t *data = malloc(length);
    uint64_t *checksums = malloc(blocks * 8);
    for (uint32_t i = 0; i < blocks; i++) {
        memset(data + (size_t)i * BATON_BLOCK, fill + (uint8_t)i, BATON_BLOCK);
        checksums[i] = block_checksum(data + (size_t)i * BATON_BLOCK);
    }
    struct place places[STORE_PLACES_MAX];
    uint32_t count = 0;
    store_lock(store);
    int rc = store_admit(store, SPACE_GROW);
    rc = rc ? rc : store_allocate(store, blocks, places, &count);
    store_unlock(store);
    rc = rc ? rc : store_write_blocks(store, places, count, data, length);
    uint64_t lsn = 0;
    if (rc == 0) {
        store_lock(store);
        struct record record = {
            .head = {.type = RECORD_WRITE, .ino = ino, .payload = (uint32_t)length, .blocks = blocks},
            .first = first,
            .size = (first + blocks) * BATON_BLOCK,
            .checksums = {(const uint8_t *)checksums, blocks * 8}};
        struct span row;
        struct key key = key_u64(ino);
        struct inode_row inode = {0};
        if (table_get(store, TABLE_INODE, &key, &row) == 0)
            memcpy(&inode, row.data, sizeof inode);
        record.size = MAX(record.size, inode.size);
        record.head.time = store_next_time(store, inode.ctime);
        rc = store_append(store, &record, length <= STORE_INLINE_MAX ? data : NULL, places, count);
        lsn = record.head.lsn;
        if (rc)
            store_release(store, places, count);
        store_unlock(store);
    }
    free(data);
    free(checksums);
    if (rc && rc != -ENOSPC)
        diag("write: %d", rc);
    return rc ? 0 : lsn;
}
