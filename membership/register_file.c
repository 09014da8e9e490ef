/* The register in a file: a few lines of text, so that a person can read who was primary when, the last one a checksum
 * over the others. Replaced whole: written beside, synced, renamed, and the directory synced.
 *
 * A full disk is no reason not to change it: a primary could neither go on without a standby nor learn that it is none, and a
 * standby would take itself for a member of a set that it has left. So what is written beside is a file that is there already
 * (PATH.spare), with its block, and the two exchange their names. The file that is written over is never one that a power cut
 * could bring back as PATH: names are on the disk before a value is believed, and so before the next change.
 */
#include "membership/register.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <xxhash.h>

#define FILE_MAX 4096u
#define FILE_HEAD "baton register 1\n"

struct reg_file {
    struct reg reg;
    pthread_mutex_t lock;
    char path[1100];
    struct register_value value;
    bool unknown; /* the last write's outcome: look at the file before believing `value` */
};

void register_file_path(const char *store_path, char *path, size_t room) {
    size_t length = strlen(store_path);
    while (length > 1 && store_path[length - 1] == '/')
        length--;
    snprintf(path, room, "%.*s.register", (int)length, store_path);
}

/* ---- Text ------------------------------------------------------------------------------------------------------------ */

static void hex(const uint8_t *bytes, size_t count, char *text) {
    for (size_t i = 0; i < count; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
}

static bool unhex(const char *text, uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char pair[3] = {text[2 * i], text[2 * i] ? text[2 * i + 1] : 0, 0}, *end;
        bytes[i] = (uint8_t)strtoul(pair, &end, 16);
        if (end != pair + 2 || pair[0] == '-' || pair[0] == '+' || pair[0] == ' ')
            return false;
    }
    return text[2 * count] == 0;
}

static size_t print_value(const struct register_value *value, char *text) {
    char digits[40];
    size_t length = (size_t)snprintf(text, FILE_MAX, FILE_HEAD "version %" PRIu64 "\nepoch %" PRIu64 ".%u\nprimary %s\n",
                                     value->version, EPOCH_COUNTER(value->epoch), EPOCH_NODE(value->epoch),
                                     value->primary[0] ? value->primary : "-");
    for (unsigned i = 0; i < value->member_count; i++) {
        hex(value->members[i].incarnation, 16, digits);
        length += (size_t)snprintf(text + length, FILE_MAX - length, "member %s %s\n", value->members[i].node, digits);
    }
    hex(value->start_chain, CHAIN_SIZE, digits);
    length += (size_t)snprintf(text + length, FILE_MAX - length, "start %" PRIu64 " %s\n", value->start_lsn, digits);
    length += (size_t)snprintf(text + length, FILE_MAX - length, "checksum %016" PRIx64 "\n",
                               (uint64_t)XXH3_64bits(text, length));
    PROMISE(length < FILE_MAX);
    return length;
}

static bool parse_line(char *line, struct register_value *value) {
    char digits[64];
    uint64_t counter;
    unsigned node;
    int end = 0;
    if (sscanf(line, "version %" SCNu64 "%n", &value->version, &end) == 1 && end && !line[end])
        return true;
    end = 0;
    if (sscanf(line, "epoch %" SCNu64 ".%u%n", &counter, &node, &end) == 2 && end && !line[end]) {
        value->epoch = EPOCH_MAKE(counter, node);
        return counter <= EPOCH_COUNTER_MAX && node <= UINT16_MAX;
    }
    if (sscanf(line, "primary %63s", value->primary) == 1) {
        if (strcmp(value->primary, "-") == 0)
            value->primary[0] = 0;
        return true;
    }
    if (strncmp(line, "member ", 7) == 0) {
        if (value->member_count >= REGISTER_MEMBERS_MAX)
            return false;
        struct register_member *member = &value->members[value->member_count++];
        return sscanf(line, "member %63s %63s", member->node, digits) == 2 && unhex(digits, member->incarnation, 16);
    }
    if (sscanf(line, "start %" SCNu64 " %63s", &value->start_lsn, digits) == 2)
        return unhex(digits, value->start_chain, CHAIN_SIZE);
    return false;
}

static int parse_value(char *text, size_t length, struct register_value *value) {
    *value = (struct register_value){0};
    char *last = memmem(text, length, "\nchecksum ", 10);
    if (length < sizeof FILE_HEAD || memchr(text, 0, length) || strncmp(text, FILE_HEAD, sizeof FILE_HEAD - 1) || !last)
        return -EBADMSG;
    last++;
    char expected[32];
    snprintf(expected, sizeof expected, "checksum %016" PRIx64 "\n", (uint64_t)XXH3_64bits(text, (size_t)(last - text)));
    if (strlen(expected) != length - (size_t)(last - text) || memcmp(last, expected, strlen(expected)) != 0)
        return -EBADMSG;
    *last = 0;
    char *save = NULL;
    for (char *line = strtok_r(text + sizeof FILE_HEAD - 1, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (!parse_line(line, value))
            return -EBADMSG;
    return 0;
}

/* ---- The file -------------------------------------------------------------------------------------------------------- */

/* An absent file is version 0. */
static int load(const char *path, struct register_value *value) {
    char text[FILE_MAX + 1];
    *value = (struct register_value){0};
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    size_t length = 0;
    while (length < FILE_MAX) {
        ssize_t n = read(fd, text + length, FILE_MAX - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        length += (size_t)n;
    }
    text[length] = 0;
    return length == FILE_MAX ? -EBADMSG : parse_value(text, length, value);
}

static int sync_parent(const char *path) {
    char parent[1100];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (!slash)
        return fsync_dir(".");
    slash[slash == parent] = 0;
    return fsync_dir(parent);
}

/* Written over what is there: one block in any case. */
static int write_over(const char *path, const char *text, size_t length) {
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return -errno;
    int rc = pwrite_all(fd, text, length, 0);
    if (rc == 0 && ftruncate(fd, (off_t)length) < 0)
        rc = -errno;
    if (rc == 0 && fsync(fd) < 0)
        rc = -errno;
    return rc;
}

/* Best effort: where there is none now, the next change has to find room itself. Its name is on the disk before it is
 * exchanged with another. */
static void make_spare(const char *path) {
    char spare[1110];
    snprintf(spare, sizeof spare, "%s.spare", path);
    if (access(spare, F_OK) == 0)
        return;
    if (write_over(spare, FILE_HEAD, sizeof FILE_HEAD - 1) != 0 || sync_parent(path) != 0)
        unlink(spare);
}

/* `*unknown`: the new value may or may not be the one that a later look finds. */
static int store_value(const char *path, const struct register_value *value, bool *unknown) {
    char text[FILE_MAX], spare[1110];
    size_t length = print_value(value, text);
    *unknown = false;
    snprintf(spare, sizeof spare, "%s.spare", path);
    int rc = write_over(spare, text, length);
    if (rc)
        return rc;
    /* Not every file system can exchange, and at first there is nothing to exchange with. */
    if (renameat2(AT_FDCWD, spare, AT_FDCWD, path, RENAME_EXCHANGE) < 0 && rename(spare, path) < 0)
        return -errno;
    rc = sync_parent(path);
    make_spare(path);
    *unknown = rc != 0;
    return rc;
}

/* What the names say may yet go in a power cut, after a failed sync of the directory, and also after the death of a process
 * that had just exchanged them: then the next change would write over the file that the disk still has under PATH. So they
 * are synced before anything is believed. */
static int load_durable(const char *path, struct register_value *value) {
    int rc = sync_parent(path);
    return rc ? rc : load(path, value);
}

/* ---- The engine ------------------------------------------------------------------------------------------------------ */

static int refresh(struct reg_file *file) {
    if (!file->unknown)
        return 0;
    int rc = load_durable(file->path, &file->value);
    if (rc == 0)
        file->unknown = false;
    return rc;
}

static int file_read(struct reg *reg, struct register_value *value) {
    struct reg_file *file = (struct reg_file *)reg;
    pthread_mutex_lock(&file->lock);
    int rc = refresh(file);
    *value = file->value;
    pthread_mutex_unlock(&file->lock);
    return rc;
}

static int file_change(struct reg *reg, struct register_value *expected, const struct register_value *next) {
    struct reg_file *file = (struct reg_file *)reg;
    if (next->member_count > REGISTER_MEMBERS_MAX || EPOCH_COUNTER(next->epoch) > EPOCH_COUNTER_MAX)
        return -EINVAL;
    pthread_mutex_lock(&file->lock);
    int rc = refresh(file);
    if (rc == 0 && register_compare(&file->value, expected) != 0) {
        *expected = file->value;
        rc = -ESTALE;
    }
    if (rc == 0 && register_compare(next, expected) <= 0)
        rc = -EINVAL;
    if (rc == 0)
        rc = store_value(file->path, next, &file->unknown);
    if (rc == 0)
        file->value = *next;
    pthread_mutex_unlock(&file->lock);
    return rc;
}

static void file_close(struct reg *reg) {
    struct reg_file *file = (struct reg_file *)reg;
    pthread_mutex_destroy(&file->lock);
    free(file);
}

static const struct register_engine file_engine = {
    .name = "file", .read = file_read, .change = file_change, .close = file_close};

int register_file_open(const char *path, struct reg **reg, char *why, size_t why_room) {
    struct reg_file *file = calloc(1, sizeof *file);
    if (!file)
        return -ENOMEM;
    file->reg.engine = &file_engine;
    snprintf(file->path, sizeof file->path, "%s", path);
    int rc = load_durable(path, &file->value);
    if (rc) {
        snprintf(why, why_room,
                 rc == -EBADMSG ? "the register %s is damaged (%s); if you know that this node may be the standby, remove it"
                                : "the register %s cannot be read: %s",
                 path, strerror(-rc));
        free(file);
        return rc;
    }
    make_spare(path);
    pthread_mutex_init(&file->lock, NULL);
    *reg = &file->reg;
    return 0;
}

int register_file_first(const char *path, const char *primary, char *why, size_t why_room) {
    struct register_value value = {.version = 1};
    bool unknown;
    snprintf(value.primary, sizeof value.primary, "%s", primary ? primary : "");
    int rc = store_value(path, &value, &unknown);
    if (rc)
        snprintf(why, why_room, "the register %s cannot be written: %s", path, strerror(-rc));
    return rc;
}
