#include "tests/handmade.h"

#include "tests/tap.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

char path[512], why[512];
const uint8_t volume[STORE_ID_SIZE] = "a volume's id...";
struct store_options options = {.segment_blocks = 1024, .tail_size = 1u << 20};

void format_store(const char *name) {
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    if (store_format(path, volume, "test", 1700000000123456789, &options, why, sizeof why) != 0)
        bail("store_format: %s", why);
}

struct store *must_open(void) {
    struct store *store = NULL;
    int rc = store_open(path, volume, &options, &store, why, sizeof why);
    if (rc)
        bail("store_open: %d: %s", rc, why);
    return store;
}

void tell(void *context, const char *sentence) {
    (void)context;
    diag("%s", sentence);
}

int child_run(void (*run)(void)) {
    int status = -1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        run();
        _exit(0);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

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

struct taken take_record(struct store *store, uint64_t lsn) {
    struct taken taken = {0};
    struct record_head head;
    if (store_read(store, lsn, &taken.entry) != 0)
        bail("record %llu cannot be read", (unsigned long long)lsn);
    memcpy(&head, taken.entry->bytes, sizeof head);
    taken.payload_length = head.payload;
    taken.payload = malloc(head.payload + 1);
    taken.error = entry_payload(store, taken.entry, taken.payload);
    return taken;
}

void take_back(struct taken *taken) {
    free(taken->payload);
    entry_put(taken->entry);
}

unsigned records_without_data(struct store *store) {
    struct position position;
    unsigned without = 0;
    store_position(store, &position);
    for (uint64_t lsn = position.first; lsn <= position.lsn; lsn++) {
        struct taken taken = take_record(store, lsn);
        without += taken.error != 0;
        take_back(&taken);
    }
    return without;
}

void rot_newest_slot(void) {
    char file[600];
    uint64_t numbers[2];
    snprintf(file, sizeof file, "%s/checkpoint", path);
    AUTO_CLOSE int fd = open(file, O_RDWR);
    for (int slot = 0; slot < 2; slot++)
        if (pread(fd, &numbers[slot], 8, slot * 8192 + 24) != 8)
            bail("pread");
    if (pwrite(fd, "xxxx", 4, (numbers[1] > numbers[0]) * 8192 + 200) != 4)
        bail("pwrite");
}
