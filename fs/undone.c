#include "fs/undone.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

static const char magic[8] = "BATONUN1";

struct undone_head {
    char magic[8];
    uint8_t volume[STORE_ID_SIZE];
    uint64_t first, last;
    uint8_t chain[CHAIN_SIZE]; /* of the record before the first */
    uint64_t check;
} __attribute__((packed));

struct undone_record {
    uint32_t length;
    uint32_t payload;
    uint64_t check; /* XXH3-64 of the record and the payload, seeded with both lengths */
} __attribute__((packed));

static uint64_t record_check(const struct undone_record *head, const uint8_t *bytes) {
    return XXH3_64bits_withSeed(bytes, (size_t)head->length + head->payload,
                                (uint64_t)head->length << 32 | head->payload);
}

/* ---- writing ---- */

/* Of what memory or descriptors are too few for nothing is known. */
static int unreadable(int error) {
    return error == -EIO || error == -ENOENT ? -EBADMSG : error;
}

static int read_one(struct store *store, uint64_t lsn, uint8_t *buffer, struct undone_record *record) {
    struct entry *entry;
    struct record_head head;
    int rc = store_read(store, lsn, &entry);
    if (rc)
        return unreadable(rc);
    memcpy(&head, entry->bytes, sizeof head);
    *record = (struct undone_record){.length = entry->length, .payload = head.payload};
    memcpy(buffer, entry->bytes, entry->length);
    rc = entry_payload(store, entry, buffer + entry->length);
    entry_put(entry);
    return unreadable(rc);
}

static int save_one(struct store *store, FILE *file, uint64_t lsn, uint8_t *buffer) {
    struct undone_record record;
    int rc = read_one(store, lsn, buffer, &record);
    if (rc)
        return rc;
    record.check = record_check(&record, buffer);
    size_t length = (size_t)record.length + record.payload;
    errno = EIO;
    return fwrite(&record, sizeof record, 1, file) == 1 && fwrite(buffer, 1, length, file) == length ? 0 : -errno;
}

static int save_all(struct store *store, FILE *file, const struct undone_head *head) {
    AUTO_FREE uint8_t *buffer = malloc(RECORD_LENGTH_MAX + RECORD_PAYLOAD_MAX);
    int rc = buffer ? 0 : -ENOMEM;
    if (rc == 0 && fwrite(head, sizeof *head, 1, file) != 1)
        rc = -errno;
    for (uint64_t lsn = head->first; rc == 0 && lsn <= head->last; lsn++)
        rc = save_one(store, file, lsn, buffer);
    if (rc == 0 && (fflush(file) != 0 || fsync(fileno(file)) < 0))
        rc = -errno;
    return rc;
}

int undone_check(struct store *store, uint64_t lsn) {
    struct position position;
    struct undone_record record;
    AUTO_FREE uint8_t *buffer = malloc(RECORD_LENGTH_MAX + RECORD_PAYLOAD_MAX);
    int rc = buffer ? 0 : -ENOMEM;
    store_position(store, &position);
    for (uint64_t at = lsn + 1; rc == 0 && at <= position.lsn; at++)
        rc = read_one(store, at, buffer, &record);
    return rc;
}

static int save_to(struct store *store, uint64_t lsn, char *path, size_t room) {
    struct position position;
    char folder[1100], unfinished[1300];
    store_position(store, &position);
    if (lsn >= position.lsn)
        return -EINVAL;
    if (lsn + 1 < position.first)
        return -ENOENT;
    struct undone_head head = {.first = lsn + 1, .last = position.lsn};
    memcpy(head.magic, magic, sizeof magic);
    memcpy(head.volume, store_volume(store), STORE_ID_SIZE);
    int rc = store_chain_at(store, lsn, head.chain);
    if (rc)
        return rc;
    head.check = XXH3_64bits(&head, offsetof(struct undone_head, check));
    snprintf(folder, sizeof folder, "%s/undone", store_path(store));
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return -errno;
    /* The chain's beginning makes the name one tail's: another one with the same numbers has another end. */
    snprintf(path, room, "%s/%" PRIu64 "-%" PRIu64 "-%02x%02x%02x%02x.records", folder, head.first, head.last,
             position.chain[0], position.chain[1], position.chain[2], position.chain[3]);
    snprintf(unfinished, sizeof unfinished, "%s.new", path);
    FILE *file = fopen(unfinished, "we");
    if (!file)
        return -errno;
    rc = save_all(store, file, &head);
    if (fclose(file) != 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && rename(unfinished, path) < 0)
        rc = -errno;
    if (rc == 0)
        rc = fsync_dir(folder);
    if (rc == 0)
        rc = fsync_dir(store_path(store));
    if (rc)
        unlink(unfinished);
    return rc;
}

int undone_save(struct store *store, uint64_t lsn, char *path, size_t room) {
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER; /* two threads may be at the same file */
    PROMISE(pthread_mutex_lock(&one) == 0);
    int rc = save_to(store, lsn, path, room);
    PROMISE(pthread_mutex_unlock(&one) == 0);
    return rc;
}

struct saving {
    uint64_t lsn;
    char *path;
    size_t room;
};

static int save_first(void *context, struct store *store) {
    const struct saving *saving = context;
    return undone_save(store, saving->lsn, saving->path, saving->room);
}

int store_rollback(struct store *store, uint64_t lsn, char *path, size_t room) {
    struct saving saving = {lsn, path, room};
    return store_undo_after(store, lsn, save_first, &saving);
}

/* ---- reading ---- */

struct undone {
    FILE *file;
    struct undone_head head;
    uint8_t *buffer;
    uint64_t at;         /* in the file: where the next record begins */
    uint64_t payload_at; /* where the last one's payload began */
};

int undone_open(const char *path, struct undone **out, char *why, size_t why_room) {
    struct undone *undone = calloc(1, sizeof *undone);
    int rc = 0;
    if (undone) {
        undone->file = fopen(path, "re");
        rc = undone->file ? 0 : -errno;
        undone->buffer = malloc(RECORD_LENGTH_MAX + RECORD_PAYLOAD_MAX);
    }
    if (!undone || (rc == 0 && !undone->buffer))
        rc = -ENOMEM;
    if (rc)
        snprintf(why, why_room, "cannot open %s: %s", path, strerror(-rc));
    if (rc == 0 && (fread(&undone->head, sizeof undone->head, 1, undone->file) != 1 ||
                    memcmp(undone->head.magic, magic, sizeof magic) != 0 ||
                    undone->head.check != XXH3_64bits(&undone->head, offsetof(struct undone_head, check)))) {
        rc = -EBADMSG;
        snprintf(why, why_room, "%s is not a file of undone records", path);
    }
    if (rc == 0 && (undone->head.first == 0 || undone->head.last < undone->head.first)) {
        rc = -EBADMSG;
        snprintf(why, why_room, "%s contradicts itself", path);
    }
    if (rc) {
        undone_close(undone);
        return rc;
    }
    undone->at = sizeof undone->head;
    *out = undone;
    return 0;
}

int undone_next(struct undone *undone, struct span *record, struct span *payload) {
    struct undone_record head;
    size_t got = fread(&head, 1, sizeof head, undone->file);
    if (got == 0 && feof(undone->file))
        return 0;
    if (got != sizeof head || head.length > RECORD_LENGTH_MAX || head.payload > RECORD_PAYLOAD_MAX)
        return -EBADMSG;
    size_t length = (size_t)head.length + head.payload;
    if (fread(undone->buffer, 1, length, undone->file) != length || head.check != record_check(&head, undone->buffer))
        return -EBADMSG;
    undone->payload_at = undone->at + sizeof head + head.length;
    undone->at = undone->payload_at + head.payload;
    *record = (struct span){undone->buffer, head.length};
    *payload = (struct span){undone->buffer + head.length, head.payload};
    return 1;
}

uint64_t undone_payload_at(const struct undone *undone) {
    return undone->payload_at;
}

const uint8_t *undone_volume(const struct undone *undone) {
    return undone->head.volume;
}

void undone_range(const struct undone *undone, uint64_t *first, uint64_t *last, uint8_t chain[CHAIN_SIZE]) {
    *first = undone->head.first;
    *last = undone->head.last;
    memcpy(chain, undone->head.chain, CHAIN_SIZE);
}

void undone_close(struct undone *undone) {
    if (!undone)
        return;
    if (undone->file)
        fclose(undone->file);
    free(undone->buffer);
    free(undone);
}

static int is_records(const struct dirent *entry) {
    size_t length = strlen(entry->d_name);
    return length > 8 && strcmp(entry->d_name + length - 8, ".records") == 0;
}

int undone_list(const char *store_path, void (*each)(void *context, const char *name, uint64_t bytes), void *context) {
    char folder[1100], path[1400];
    struct dirent **names;
    snprintf(folder, sizeof folder, "%s/undone", store_path);
    int count = scandir(folder, &names, is_records, versionsort);
    if (count < 0)
        return errno == ENOENT ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        if (stat(path, &st) == 0)
            each(context, path, (uint64_t)st.st_size);
        free(names[i]);
    }
    free(names);
    return 0;
}
