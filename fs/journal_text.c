#include "fs/journal_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#define PATH_ROOM 4500

void epoch_text(const struct config *config, epoch_t epoch, char *text, size_t room) {
    for (unsigned i = 0; config != NULL && i < config->node_count; i++) {
        if (config->nodes[i].number == EPOCH_NODE(epoch)) {
            snprintf(text, room, "%" PRIu64 ".%s", EPOCH_COUNTER(epoch), config->nodes[i].name);
            return;
        }
    }
    snprintf(text, room, "%" PRIu64 ".%u", EPOCH_COUNTER(epoch), (unsigned)EPOCH_NODE(epoch));
}

void time_text(struct file_time time, char *text, size_t room) {
    time_t seconds = (time_t)time.seconds;
    struct tm parts;
    char day[32] = "?";

    if (localtime_r(&seconds, &parts) != NULL)
        strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &parts);
    snprintf(text, room, "%s.%09u", day, time.nanoseconds);
}

struct writer {
    char *at;
    size_t left;
};

static void add(struct writer *writer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct writer *writer, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(writer->at, writer->left, format, arguments);
    va_end(arguments);
    size_t moved = MIN((size_t)MAX(length, 0), writer->left - 1);
    writer->at += moved;
    writer->left -= moved;
}

static const char *kind_name(uint32_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "file";
    case S_IFDIR:
        return "directory";
    case S_IFLNK:
        return "symbolic link";
    case S_IFIFO:
        return "fifo";
    case S_IFSOCK:
        return "socket";
    case S_IFCHR:
        return "character device";
    case S_IFBLK:
        return "block device";
    default:
        return "inode of unknown type";
    }
}

static void tell_create(struct writer *writer, const struct record *record, const char *path) {
    bool link = S_ISLNK(record->mode), device = S_ISCHR(record->mode) || S_ISBLK(record->mode);

    if (record->parent == 0)
        add(writer, "created a %s without a name (inode %" PRIu64 ")", kind_name(record->mode), record->head.ino);
    else
        add(writer, "created %s %s (inode %" PRIu64 ")", kind_name(record->mode), path, record->head.ino);
    if (link) {
        char target[PATH_ROOM];
        text_escape(record->value.data, record->value.length, target, sizeof target);
        add(writer, " to %s", target);
    } else {
        add(writer, " mode %04o", record->mode & 07777);
    }
    if (device)
        add(writer, " number %u:%u", major(record->rdev), minor(record->rdev));
    add(writer, " owner %u:%u", record->uid, record->gid);
}

static void tell_setattr(struct writer *writer, const struct record *record, const char *path) {
    const char *separator = " ";
    char text[64];

    add(writer, "set");
    if (record->flags & SET_MODE) {
        add(writer, "%smode %04o", separator, record->mode & 07777);
        separator = ", ";
    }
    if (record->flags & SET_UID) {
        add(writer, "%sowner %u", separator, record->uid);
        separator = ", ";
    }
    if (record->flags & SET_GID) {
        add(writer, "%sgroup %u", separator, record->gid);
        separator = ", ";
    }
    if (record->flags & SET_ATIME) {
        time_text(record->atime, text, sizeof text);
        add(writer, "%saccess time %s", separator, text);
        separator = ", ";
    }
    if (record->flags & SET_MTIME) {
        time_text(record->mtime, text, sizeof text);
        add(writer, "%smodification time %s", separator, text);
        separator = ", ";
    }
    if (record->flags & SET_ACL) {
        add(writer, "%s%s", separator, record->value.length > 0 ? "access ACL" : "no access ACL");
        separator = ", ";
    }
    add(writer, "%sof %s", *separator == ',' ? " " : separator, path);
}

static void tell_epoch(struct writer *writer, const struct record *record) {
    char node[300];
    text_escape(record->name.data, record->name.length, node, sizeof node);
    add(writer, "node %s became primary", node);
}

static void tell_rename(struct writer *writer, const struct record *record, struct names *names) {
    AUTO_FREE char *from = malloc(PATH_ROOM);
    AUTO_FREE char *to = malloc(PATH_ROOM);

    if (from == NULL || to == NULL) {
        add(writer, "renamed inode %" PRIu64, record->head.ino);
        return;
    }
    names_path_in(names, record->parent, record->name, from, PATH_ROOM);
    names_path_in(names, record->new_parent, record->new_name, to, PATH_ROOM);
    if (record->flags & RENAME_EXCHANGED) {
        add(writer, "exchanged %s and %s (inodes %" PRIu64 " and %" PRIu64 ")", from, to, record->head.ino, record->victim);
        return;
    }
    add(writer, "renamed %s to %s (inode %" PRIu64 ")", from, to, record->head.ino);
    if (record->victim != 0)
        add(writer, ", which replaced inode %" PRIu64, record->victim);
    if (record->flags & RENAME_LEFT_WHITEOUT)
        add(writer, ", and left a whiteout (inode %" PRIu64 ") owner %u:%u", record->old_cookie, record->uid,
            record->gid);
}

static void tell_data(struct writer *writer, const struct record *record, const char *path) {
    uint64_t from = record->first * BATON_BLOCK;

    switch (record->head.type) {
    case RECORD_WRITE:
        add(writer, "wrote bytes %" PRIu64 " to %" PRIu64 " of %s, whose size is %" PRIu64, from,
            MIN(from + (uint64_t)record->head.blocks * BATON_BLOCK, MAX(record->size, from)), path, record->size);
        break;
    case RECORD_TRUNCATE:
        add(writer, "set the size of %s to %" PRIu64, path, record->size);
        break;
    case RECORD_ALLOCATE:
        add(writer, "reserved space from byte %" PRIu64 " to %" PRIu64 " of %s", from,
            from + record->count * BATON_BLOCK, path);
        break;
    default:
        add(writer, "made a hole from byte %" PRIu64 " to %" PRIu64 " of %s", from, from + record->count * BATON_BLOCK,
            path);
    }
}

static void tell(struct writer *writer, const struct record *record, struct names *names, const char *path) {
    char name[1100];

    switch (record->head.type) {
    case RECORD_CREATE:
        tell_create(writer, record, path);
        break;
    case RECORD_LINK:
        add(writer, "linked %s to inode %" PRIu64, path, record->head.ino);
        break;
    case RECORD_UNLINK:
        add(writer, "removed %s%s (inode %" PRIu64 ")", record->flags & UNLINK_RMDIR ? "directory " : "", path,
            record->head.ino);
        break;
    case RECORD_RENAME:
        tell_rename(writer, record, names);
        break;
    case RECORD_SETATTR:
        tell_setattr(writer, record, path);
        break;
    case RECORD_XATTR:
        text_escape(record->name.data, record->name.length, name, sizeof name);
        if (record->flags & XATTR_REMOVE)
            add(writer, "removed attribute %s of %s", name, path);
        else
            add(writer, "set attribute %s of %s (%u bytes)", name, path, record->value.length);
        break;
    case RECORD_RECLAIM:
        add(writer, "freed what removed or shortened files had held (%u step%s)", record->step_count,
            record->step_count == 1 ? "" : "s");
        break;
    case RECORD_EPOCH:
        tell_epoch(writer, record);
        break;
    default:
        tell_data(writer, record, path);
    }
}

/* The path that a record is about: of the entry where it makes or removes one, else of the inode. */
static bool path_of(const struct record *record, struct names *names, char *path, size_t room) {
    path[0] = '\0';
    switch (record->head.type) {
    case RECORD_CREATE:
        if (record->parent == 0)
            return false;
        return names_path_in(names, record->parent, record->name, path, room);
    case RECORD_LINK:
    case RECORD_UNLINK:
    case RECORD_RENAME:
        return names_path_in(names, record->parent, record->name, path, room);
    case RECORD_RECLAIM:
    case RECORD_EPOCH:
        return false;
    default:
        return names_path(names, record->head.ino, path, room);
    }
}

void record_text(const struct record *record, struct names *names, char *text, size_t room) {
    struct writer writer = {text, room};
    AUTO_FREE char *path = malloc(PATH_ROOM);

    text[0] = '\0';
    if (path == NULL)
        return;
    path_of(record, names, path, PATH_ROOM);
    tell(&writer, record, names, path);
}

unsigned record_inodes(const struct record *record, uint64_t inos[RECORD_INODES_MAX]) {
    const bool whiteout = record->head.type == RECORD_RENAME && record->flags & RENAME_LEFT_WHITEOUT;
    const uint64_t all[RECORD_INODES_MAX] = {record->head.ino, record->parent, record->new_parent, record->victim,
                                             whiteout ? record_new_inode(record) : 0};
    unsigned count = 0;
    for (unsigned i = 0; i < RECORD_INODES_MAX; i++) {
        if (all[i] != 0)
            inos[count++] = all[i];
    }
    return count;
}

/* A text that was cut to fit may end inside a character, which JSON does not take. */
static void set_text(json_t *object, const char *key, char *text) {
    json_t *string = json_string(text);
    for (size_t cut = 0; string == NULL && cut < 4 && text[0] != '\0'; cut++) {
        text[strlen(text) - 1] = '\0';
        string = json_string(text);
    }
    json_object_set_new(object, key, string);
}

static void set_number(json_t *object, const char *key, uint64_t value) {
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void set_bytes(json_t *object, const char *key, struct span bytes) {
    size_t room = (size_t)bytes.length * 4 + 5;
    AUTO_FREE char *text = malloc(room);
    if (text == NULL)
        return;
    text_escape(bytes.data, bytes.length, text, room);
    json_object_set_new(object, key, json_string(text));
}

static void set_time(json_t *object, const char *key, struct file_time time) {
    char text[48];
    snprintf(text, sizeof text, "%" PRId64 ".%09u", time.seconds, time.nanoseconds);
    json_object_set_new(object, key, json_string(text));
}

static void json_fields(json_t *object, const struct record *record) {
    const uint16_t type = record->head.type;
    char mode[16];

    if (type == RECORD_CREATE || (type == RECORD_SETATTR && (record->flags & SET_MODE))) {
        snprintf(mode, sizeof mode, "%06o", record->mode);
        json_object_set_new(object, "mode", json_string(mode));
    }
    if (type == RECORD_CREATE || (type == RECORD_SETATTR && (record->flags & SET_UID)))
        set_number(object, "uid", record->uid);
    if (type == RECORD_CREATE || (type == RECORD_SETATTR && (record->flags & SET_GID)))
        set_number(object, "gid", record->gid);
    if (type == RECORD_SETATTR && (record->flags & SET_ATIME))
        set_time(object, "atime", record->atime);
    if (type == RECORD_SETATTR && (record->flags & SET_MTIME))
        set_time(object, "mtime", record->mtime);
    if (type == RECORD_CREATE && record->value.length > 0)
        set_bytes(object, "target", record->value);
    if (record->parent != 0)
        set_number(object, "parent", record->parent);
    if (type == RECORD_RENAME && record->victim != 0)
        set_number(object, record->flags & RENAME_EXCHANGED ? "exchanged" : "replaced", record->victim);
    if (type == RECORD_RENAME && record->flags & RENAME_LEFT_WHITEOUT) {
        set_number(object, "whiteout", record->old_cookie);
        set_number(object, "uid", record->uid);
        set_number(object, "gid", record->gid);
    }
    if (type == RECORD_WRITE || type == RECORD_ALLOCATE || type == RECORD_PUNCH) {
        uint64_t blocks = type == RECORD_WRITE ? record->head.blocks : record->count;
        set_number(object, "offset", record->first * BATON_BLOCK);
        set_number(object, "length", blocks * BATON_BLOCK);
    }
    if (type == RECORD_WRITE || type == RECORD_ALLOCATE || type == RECORD_PUNCH || type == RECORD_TRUNCATE)
        set_number(object, "size", record->size);
    if (type == RECORD_XATTR) {
        set_bytes(object, "attribute", record->name);
        if (!(record->flags & XATTR_REMOVE))
            set_number(object, "length", record->value.length);
    }
    if (type == RECORD_RECLAIM)
        set_number(object, "steps", record->step_count);
    if (type == RECORD_EPOCH)
        set_bytes(object, "node", record->name);
}

json_t *record_json(const struct record *record, struct names *names, const struct config *config) {
    char time[64], epoch[96], chain[2 * CHAIN_SIZE + 1];
    AUTO_FREE char *path = malloc(PATH_ROOM);
    AUTO_FREE char *text = malloc(3 * PATH_ROOM);

    if (path == NULL || text == NULL)
        return NULL;
    time_text(file_time_of(MAX(record->head.time, (int64_t)0)), time, sizeof time);
    epoch_text(config, record->head.epoch, epoch, sizeof epoch);
    for (unsigned i = 0; i < CHAIN_SIZE; i++)
        snprintf(chain + 2 * (size_t)i, 3, "%02x", record->head.chain[i]);
    json_t *object = json_pack("{s:I, s:s, s:I, s:s, s:s, s:I}", "lsn", (json_int_t)record->head.lsn, "time", time,
                               "nanoseconds", (json_int_t)record->head.time, "epoch", epoch, "type",
                               record_type_name(record->head.type), "inode", (json_int_t)record->head.ino);
    if (object == NULL)
        return NULL;
    if (path_of(record, names, path, PATH_ROOM))
        set_text(object, "path", path);
    if (record->head.type == RECORD_RENAME && names_path_in(names, record->new_parent, record->new_name, path, PATH_ROOM))
        set_text(object, "new_path", path);
    json_fields(object, record);
    if (record->head.payload > 0)
        set_number(object, "payload", record->head.payload);
    record_text(record, names, text, 3 * PATH_ROOM);
    set_text(object, "text", text);
    json_object_set_new(object, "chain", json_string(chain));
    return object;
}
