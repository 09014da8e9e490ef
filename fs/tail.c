#include "fs/tail.h"

#include "fs/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

#define TAIL_MAGIC 0x4c494154u   /* "TAIL" */
#define ENTRY_MAGIC 0x59525445u  /* "ETRY" */
/* Left free by all but checkpoints: one for the checkpoint that is being made, one for that of an open after its death. */
#define SPARE_FILES 2u
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

/* 1; 0: never used; a negative errno. */
static int page_read(int fd, struct tail_page *page) {
    int rc = pread_all(fd, page, sizeof *page, 0);
    return rc ? rc
              : page->magic == TAIL_MAGIC && page->version == 1 &&
                    page->check == XXH3_64bits(page, offsetof(struct tail_page, check));
}

/* A file that was being made when its maker died is shorter than the others. */
static int file_complete(int fd, uint32_t size) {
    static const uint8_t zeros[TAIL_PAGE];
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if ((uint64_t)st.st_size >= size)
        return 0;
    int rc = 0;
    for (uint64_t at = (uint64_t)st.st_size; rc == 0 && at < size;) {
        size_t step = MIN(sizeof zeros, size - at);
        rc = pwrite_all(fd, zeros, step, at);
        at += step;
    }
    return rc ? rc : (fsync(fd) < 0 ? -errno : 0);
}

int tail_open(struct tail *tail, int store_directory_fd, uint32_t size) {
    memset(tail, 0, sizeof *tail);
    tail->directory_fd = store_directory_fd;
    tail->size = size;
    tail->buffer = malloc(TAIL_ENTRY_MAX + TAIL_PAGE);
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
        tail->files[i] = (struct tail_file){.fd = fd};
        tail->count = i + 1;
        int rc = file_complete(fd, size);
        if (rc == 0)
            rc = page_read(fd, &page);
        if (rc < 0)
            return rc;
        tail->files[i].seq = rc ? page.seq : 0;
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

/* The entries of one file. 0: all whole ones taken; 1: the history ends here; or an error. */
static int replay_file(struct tail *tail, const struct tail_file *file, uint8_t *bytes, struct tail_page *end,
                       int (*each)(void *context, const struct tail_entry *entry), void *context) {
    int rc = pread_all(file->fd, bytes, tail->size, 0);
    if (rc)
        return rc;
    struct tail_entry entry;
    uint32_t length;
    for (uint32_t offset = TAIL_PAGE; entry_parse(bytes, tail->size, offset, file->seq, &entry, &length);
         offset += length) {
        struct record_head head;
        if (entry.record_length < sizeof head)
            return 1;
        memcpy(&head, entry.record, sizeof head);
        rc = each(context, &entry);
        if (rc)
            return rc;
        end->lsn = head.lsn;
        end->seq = file->seq;
        memcpy(end->chain, head.chain, CHAIN_SIZE);
    }
    return 0;
}

int tail_replay(struct tail *tail, uint64_t seq, uint64_t lsn, const uint8_t chain[CHAIN_SIZE],
                int (*each)(void *context, const struct tail_entry *entry), void *context) {
    struct tail_page end = {.lsn = lsn, .seq = seq}; /* where the history ends so far, and the last file that gave some */
    memcpy(end.chain, chain, CHAIN_SIZE);
    AUTO_FREE uint8_t *bytes = malloc(tail->size);
    if (!bytes)
        return -ENOMEM;
    if (!file_of(tail, seq))
        return -ENODATA; /* its first page was on disk before the checkpoint that names it */
    int rc = 0;
    for (struct tail_file *file; rc == 0 && (file = file_of(tail, seq)) != NULL; seq++) {
        struct tail_page page;
        rc = page_read(file->fd, &page);
        if (rc < 0)
            return rc;
        if (rc == 0 || page.lsn != end.lsn || memcmp(page.chain, end.chain, CHAIN_SIZE) != 0)
            break;
        rc = replay_file(tail, file, bytes, &end, each, context);
    }
    if (rc < 0)
        return rc;
    /* Files beyond hold nothing that counts: opens that died before their checkpoint must not use all of them up. */
    for (unsigned i = 0; i < tail->count; i++)
        if (tail->files[i].seq > end.seq)
            tail->files[i].seq = 0;
    return 0;
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
    return files_free(tail) >= SPARE_FILES + 1;
}

bool tail_wants_file(const struct tail *tail) {
    return tail->count < TAIL_FILES_MAX && files_free(tail) < SPARE_FILES + 2;
}

bool tail_used_up(const struct tail *tail) {
    return files_free(tail) == 0;
}

int tail_make_file(const struct tail *tail, unsigned index) {
    int fd = file_create(tail->directory_fd, index, tail->size);
    if (fd < 0)
        return fd;
    AUTO_CLOSE int directory = openat(tail->directory_fd, "tail", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || fsync(directory) < 0 || fsync(fd) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

void tail_add_file(struct tail *tail, int fd) {
    PROMISE(tail->count < TAIL_FILES_MAX);
    tail->files[tail->count++] = (struct tail_file){.fd = fd};
}

int tail_rotate(struct tail *tail, uint64_t lsn, const uint8_t chain[CHAIN_SIZE], bool for_checkpoint) {
    if (for_checkpoint ? files_free(tail) == 0 : !tail_can_rotate(tail))
        return -EAGAIN;
    /* The oldest: if the checkpoint before the newest one is ever needed, either its first file is gone, which shows,
     * or none of those after it is. */
    unsigned index = TAIL_FILES_MAX;
    for (unsigned i = 0; i < tail->count; i++)
        if (file_is_free(tail, i) && (index == TAIL_FILES_MAX || tail->files[i].seq < tail->files[index].seq))
            index = i;
    struct tail_page page = {.magic = TAIL_MAGIC, .version = 1, .seq = tail->seq + 1, .lsn = lsn};
    memcpy(page.chain, chain, CHAIN_SIZE);
    page.check = XXH3_64bits(&page, offsetof(struct tail_page, check));
    memset(tail->buffer, 0, TAIL_PAGE);
    memcpy(tail->buffer, &page, sizeof page);
    int rc = pwrite_all(tail->files[index].fd, tail->buffer, TAIL_PAGE, 0);
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

/* A write that ends within a page that has not been touched since the file was taken goes on with zeros to its end: the
 * kernel would have to read from the disk what is there of old. */
static uint32_t fill_page(struct tail *tail, uint32_t need) {
    uint32_t end = tail->offset + need, page = end - end % TAIL_PAGE;
    if (end == page || page < tail->offset || page + TAIL_PAGE > tail->size)
        return need;
    memset(tail->buffer + need, 0, page + TAIL_PAGE - end);
    return page + TAIL_PAGE - tail->offset;
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
    int rc = pwrite_all(file->fd, tail->buffer, fill_page(tail, need), tail->offset);
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
