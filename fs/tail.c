#include "fs/tail.h"

#include "fs/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

#define TAIL_MAGIC 0x4c494154u   /* "TAIL" */
#define ENTRY_MAGIC 0x59525445u  /* "ETRY" */
#define TAIL_ENTRY_MAX (RECORD_LENGTH_MAX + STORE_INLINE_MAX + 4096u)

struct tail_page {
    uint32_t magic;
    uint32_t version;
    uint64_t seq;
    uint64_t lsn; /* of the last record before the first entry */
    uint8_t chain[CHAIN_SIZE];
    uint64_t check;
} __attribute__((packed));

struct entry_head {
    uint32_t magic;
    uint32_t length; /* whole, a multiple of 8 */
    uint64_t check;  /* XXH3-64 of all that follows, seeded with the file's sequence number */
    uint32_t record_length;
    uint32_t payload_length;
    uint32_t place_count;
    uint32_t filler;
} __attribute__((packed));

static void file_name(unsigned index, char name[24]) {
    snprintf(name, 24, "tail/%u", index);
}

static int file_create(int store_directory_fd, unsigned index, uint32_t size) {
    char name[24];
    file_name(index, name);
    int fd = openat(store_directory_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    enum { STEP = 1 << 20 };
    uint8_t *zeros = calloc(1, STEP);
    int rc = zeros ? 0 : -ENOMEM;
    for (uint32_t at = 0; rc == 0 && at < size; at += STEP)
        rc = pwrite_all(fd, zeros, MIN((uint32_t)STEP, size - at), at);
    free(zeros);
    if (rc) {
        close(fd);
        unlinkat(store_directory_fd, name, 0);
        return rc;
    }
    return fd;
}

int tail_format(int store_directory_fd, uint32_t size) {
    for (unsigned i = 0; i < TAIL_FILES_MIN; i++) {
        int fd = file_create(store_directory_fd, i, size);
        if (fd < 0)
            return fd;
        int rc = fsync(fd) < 0 ? -errno : 0;
        close(fd);
        if (rc)
            return rc;
    }
    return 0;
}

static bool page_read(int fd, struct tail_page *page) {
    return pread_all(fd, page, sizeof *page, 0) == 0 && page->magic == TAIL_MAGIC && page->version == 1 &&
           page->check == XXH3_64bits(page, offsetof(struct tail_page, check));
}

int tail_open(struct tail *tail, int store_directory_fd, uint32_t size) {
    memset(tail, 0, sizeof *tail);
    tail->directory_fd = store_directory_fd;
    tail->size = size;
    tail->buffer = malloc(TAIL_ENTRY_MAX);
    if (!tail->buffer)
        return -ENOMEM;
    for (unsigned i = 0; i < TAIL_FILES_MAX; i++) {
        char name[24];
        file_name(i, name);
        int fd = openat(store_directory_fd, name, O_RDWR | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
            break;
        if (fd < 0)
            return -errno;
        struct tail_page page;
        tail->files[i] = (struct tail_file){.fd = fd, .seq = page_read(fd, &page) ? page.seq : 0};
        tail->count = i + 1;
        tail->seq = MAX(tail->seq, tail->files[i].seq);
    }
    return tail->count >= 1 ? 0 : -ENOENT;
}

void tail_close(struct tail *tail) {
    for (unsigned i = 0; i < tail->count; i++)
        close(tail->files[i].fd);
    free(tail->buffer);
    tail->buffer = NULL;
    tail->count = 0;
}

static struct tail_file *file_of(struct tail *tail, uint64_t seq) {
    for (unsigned i = 0; i < tail->count; i++)
        if (tail->files[i].seq == seq)
            return &tail->files[i];
    return NULL;
}

/* One entry out of a file's bytes. 1; 0: no whole entry here. */
static int entry_parse(const uint8_t *bytes, uint32_t size, uint32_t offset, uint64_t seq, struct tail_entry *entry,
                       uint32_t *length) {
    struct entry_head head;
    if (size - offset < sizeof head)
        return 0;
    memcpy(&head, bytes + offset, sizeof head);
    if (head.magic != ENTRY_MAGIC || head.length > size - offset || head.place_count > STORE_PLACES_MAX ||
        head.record_length > RECORD_LENGTH_MAX || head.payload_length > STORE_INLINE_MAX ||
        head.length != tail_need(head.record_length, head.payload_length, head.place_count))
        return 0;
    const uint8_t *covered = bytes + offset + offsetof(struct entry_head, record_length);
    if (head.check !=
        XXH3_64bits_withSeed(covered, head.length - offsetof(struct entry_head, record_length), seq))
        return 0;
    const uint8_t *at = bytes + offset + sizeof head;
    memcpy(entry->places, at, head.place_count * sizeof(struct place));
    entry->place_count = head.place_count;
    at += head.place_count * sizeof(struct place);
    entry->record = at;
    entry->record_length = head.record_length;
    entry->payload = head.payload_length ? at + head.record_length : NULL;
    entry->payload_length = head.payload_length;
    *length = head.length;
    return 1;
}

int tail_replay(struct tail *tail, uint64_t seq, uint64_t lsn, const uint8_t chain[CHAIN_SIZE],
                int (*each)(void *context, const struct tail_entry *entry), void *context) {
    uint64_t last_lsn = lsn;
    uint8_t last_chain[CHAIN_SIZE];
    memcpy(last_chain, chain, CHAIN_SIZE);
    AUTO_FREE uint8_t *bytes = malloc(tail->size);
    if (!bytes)
        return -ENOMEM;
    for (;; seq++) {
        struct tail_file *file = file_of(tail, seq);
        struct tail_page page;
        if (!file || !page_read(file->fd, &page) || page.lsn != last_lsn ||
            memcmp(page.chain, last_chain, CHAIN_SIZE) != 0)
            return 0;
        int rc = pread_all(file->fd, bytes, tail->size, 0);
        if (rc)
            return rc;
        struct tail_entry entry;
        uint32_t length;
        for (uint32_t offset = TAIL_PAGE; entry_parse(bytes, tail->size, offset, seq, &entry, &length);
             offset += length) {
            struct record_head head;
            if (entry.record_length < sizeof head)
                return 0;
            memcpy(&head, entry.record, sizeof head);
            rc = each(context, &entry);
            if (rc)
                return rc < 0 ? rc : 0;
            last_lsn = head.lsn;
            memcpy(last_chain, head.chain, CHAIN_SIZE);
        }
    }
}

static bool file_is_free(const struct tail *tail, unsigned index) {
    return tail->files[index].seq < tail->oldest_needed || tail->files[index].seq == 0;
}

static unsigned files_free(const struct tail *tail) {
    unsigned count = 0;
    for (unsigned i = 0; i < tail->count; i++)
        count += file_is_free(tail, i);
    return count;
}

bool tail_can_rotate(const struct tail *tail) {
    return files_free(tail) + (TAIL_FILES_MAX - tail->count) >= 2;
}

/* A further file: -EAGAIN if there may be none or the disk is full. */
static int file_add(struct tail *tail) {
    if (tail->count == TAIL_FILES_MAX)
        return -EAGAIN;
    int fd = file_create(tail->directory_fd, tail->count, tail->size);
    if (fd < 0)
        return fd == -ENOSPC || fd == -EDQUOT ? -EAGAIN : fd;
    AUTO_CLOSE int directory = openat(tail->directory_fd, "tail", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || fsync(directory) < 0 || fsync(fd) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    tail->files[tail->count++] = (struct tail_file){.fd = fd};
    return 0;
}

int tail_rotate(struct tail *tail, uint64_t lsn, const uint8_t chain[CHAIN_SIZE], bool for_checkpoint) {
    if (files_free(tail) < (for_checkpoint ? 1u : 2u)) {
        int rc = file_add(tail);
        if (rc)
            return rc;
    }
    unsigned index = 0;
    while (!file_is_free(tail, index))
        index++;
    struct tail_page page = {.magic = TAIL_MAGIC, .version = 1, .seq = tail->seq + 1, .lsn = lsn};
    memcpy(page.chain, chain, CHAIN_SIZE);
    page.check = XXH3_64bits(&page, offsetof(struct tail_page, check));
    int rc = pwrite_all(tail->files[index].fd, &page, sizeof page, 0);
    if (rc)
        return rc;
    tail->current = index;
    tail->seq++;
    tail->files[index].seq = tail->seq;
    tail->files[index].unsynced = true;
    tail->offset = TAIL_PAGE;
    return 0;
}

uint32_t tail_need(uint32_t record_length, uint32_t payload_length, uint32_t place_count) {
    uint32_t whole = (uint32_t)sizeof(struct entry_head) + place_count * (uint32_t)sizeof(struct place) +
                     record_length + payload_length;
    return (whole + 7u) & ~7u;
}

bool tail_fits(const struct tail *tail, uint32_t need) {
    return tail->offset + need <= tail->size;
}

int tail_write(struct tail *tail, const struct entry *entry, const uint8_t *payload, uint32_t payload_length) {
    uint32_t need = tail_need(entry->length, payload_length, entry->place_count);
    PROMISE(tail_fits(tail, need) && need <= TAIL_ENTRY_MAX);
    struct entry_head head = {.magic = ENTRY_MAGIC,
                              .length = need,
                              .record_length = entry->length,
                              .payload_length = payload_length,
                              .place_count = entry->place_count};
    uint8_t *at = tail->buffer + sizeof head;
    memcpy(at, entry->places, entry->place_count * sizeof(struct place));
    at += entry->place_count * sizeof(struct place);
    memcpy(at, entry->bytes, entry->length);
    at += entry->length;
    if (payload_length)
        memcpy(at, payload, payload_length);
    at += payload_length;
    memset(at, 0, (size_t)(tail->buffer + need - at));
    const size_t skip = offsetof(struct entry_head, record_length);
    memcpy(tail->buffer, &head, sizeof head);
    head.check = XXH3_64bits_withSeed(tail->buffer + skip, need - skip, tail->seq);
    memcpy(tail->buffer, &head, sizeof head);
    struct tail_file *file = &tail->files[tail->current];
    int rc = pwrite_all(file->fd, tail->buffer, need, tail->offset);
    if (rc)
        return rc;
    file->unsynced = true;
    tail->offset += need;
    return 0;
}

uint64_t tail_used(const struct tail *tail) {
    uint64_t files = tail->seq - tail->oldest_needed;
    return files * tail->size + tail->offset;
}
