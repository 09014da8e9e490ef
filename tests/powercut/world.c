#include "tests/powercut/world.h"

#include "tests/tap.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define SLOTS 12u
#define CONTENT_MAX (256u << 10)
#define WRITE_MAX 90000u /* on both sides of STORE_INLINE_MAX */

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#define RENAME_EXCHANGE 2u
#endif

struct thing {
    uint64_t ino; /* known with a store only */
    uint32_t mode, links;
    uint64_t size;
    uint8_t *content; /* a file's, CONTENT_MAX bytes, zero behind the size; a symlink's target */
    char attribute[80];
    unsigned attribute_length; /* 0: none */
};

struct world {
    uint64_t random, steps, ino;
    char name[64];
    struct thing *slots[SLOTS];
};

struct step {
    struct world *world;
    struct store *store;
    uint64_t *lsn;
    int expected; /* errno of the answer, negative */
    int answer;   /* with a store */
    const char *what;
};

static const struct caller root = {.umask = 022};

struct world *world_create(uint64_t seed, const char *name) {
    struct world *world = calloc(1, sizeof *world);
    PROMISE(world != NULL);
    world->random = seed;
    snprintf(world->name, sizeof world->name, "%s", name);
    return world;
}

static void thing_drop(struct thing *thing) {
    if (thing != NULL && --thing->links == 0) {
        free(thing->content);
        free(thing);
    }
}

void world_free(struct world *world) {
    if (world == NULL)
        return;
    for (unsigned i = 0; i < SLOTS; i++)
        thing_drop(world->slots[i]);
    free(world);
}

static uint64_t below(struct world *world, uint64_t limit) {
    return test_random(&world->random) % limit;
}

static const char *slot_name(unsigned slot, char name[16]) {
    snprintf(name, 16, "n%u", slot);
    return name;
}

static void reclaim(struct step *step, uint64_t ino) {
    if (step->answer == 0 && ino != 0)
        step->answer = op_reclaim(step->store, &ino, 1);
}

/* ---- Steps: each draws the same numbers whether there is a store or not ------------------------------------------------ */

static void step_create(struct step *step, unsigned slot) {
    struct world *world = step->world;
    static const uint32_t kinds[] = {S_IFREG, S_IFREG, S_IFREG, S_IFLNK, S_IFDIR};
    uint32_t mode = kinds[below(world, 5)] | 0644;
    char name[16], target[64];
    struct attributes out = {0};

    snprintf(target, sizeof target, "target of step %llu", (unsigned long long)world->steps);
    step->what = "create";
    step->expected = world->slots[slot] != NULL ? -EEXIST : 0;
    if (S_ISLNK(mode))
        mode |= 0777;
    if (step->store != NULL)
        step->answer = op_create(step->store, &root, world->ino, slot_name(slot, name), mode, 0,
                                 S_ISLNK(mode) ? target : NULL, &out, step->lsn);
    if (step->expected != 0)
        return;
    struct thing *thing = calloc(1, sizeof *thing);
    PROMISE(thing != NULL && (thing->content = calloc(1, CONTENT_MAX)) != NULL);
    thing->ino = out.ino;
    thing->mode = mode;
    thing->links = 1;
    if (S_ISLNK(mode)) {
        thing->size = strlen(target);
        memcpy(thing->content, target, thing->size);
    }
    world->slots[slot] = thing;
}

static void step_remove(struct step *step, unsigned slot) {
    struct world *world = step->world;
    struct thing *thing = world->slots[slot];
    uint64_t ino = 0;
    uint32_t left = 1;
    char name[16];

    step->what = "remove";
    step->expected = thing == NULL ? -ENOENT : 0;
    slot_name(slot, name);
    if (step->store != NULL && thing != NULL && S_ISDIR(thing->mode)) {
        step->answer = op_rmdir(step->store, world->ino, name, &ino, step->lsn);
        reclaim(step, ino);
    } else if (step->store != NULL) {
        step->answer = op_unlink(step->store, world->ino, name, &ino, &left, step->lsn);
        reclaim(step, left == 0 ? ino : 0);
    }
    thing_drop(thing);
    world->slots[slot] = NULL;
}

static void step_link(struct step *step, unsigned slot) {
    struct world *world = step->world;
    unsigned to = (unsigned)below(world, SLOTS);
    struct thing *thing = world->slots[slot];
    struct attributes out;
    char name[16];

    step->what = "link";
    if (thing == NULL || S_ISDIR(thing->mode)) /* the kernel does not let it come so far */
        return;
    step->expected = world->slots[to] != NULL ? -EEXIST : 0;
    if (step->store != NULL)
        step->answer = op_link(step->store, thing->ino, world->ino, slot_name(to, name), &out, step->lsn);
    if (step->expected == 0) {
        thing->links++;
        world->slots[to] = thing;
    }
}

static int rename_answer(const struct thing *from, const struct thing *to, unsigned flags) {
    if (from == NULL)
        return -ENOENT;
    if (flags == RENAME_EXCHANGE)
        return to == NULL ? -ENOENT : 0;
    if (to == NULL)
        return 0;
    if (flags == RENAME_NOREPLACE)
        return -EEXIST;
    if (from == to)
        return 0;
    if (S_ISDIR(from->mode) && !S_ISDIR(to->mode))
        return -ENOTDIR;
    if (!S_ISDIR(from->mode) && S_ISDIR(to->mode))
        return -EISDIR;
    return 0;
}

static void step_rename(struct step *step, unsigned slot) {
    struct world *world = step->world;
    unsigned to = (unsigned)below(world, SLOTS), flags = (unsigned)below(world, 6);
    struct thing *thing = world->slots[slot], *target = world->slots[to];
    uint64_t victim = 0;
    uint32_t left = 1;
    char name[16], new_name[16];

    flags = flags > 2 ? 0 : flags;
    step->what = "rename";
    if (to == slot) /* nor this */
        return;
    step->expected = rename_answer(thing, target, flags);
    if (step->store != NULL) {
        step->answer = op_rename(step->store, &root, world->ino, slot_name(slot, name), world->ino,
                                 slot_name(to, new_name), flags, &victim, &left, step->lsn);
        reclaim(step, left == 0 ? victim : 0);
    }
    if (step->expected != 0 || (flags == 0 && thing == target))
        return;
    world->slots[to] = thing;
    if (flags == RENAME_EXCHANGE)
        world->slots[slot] = target;
    else {
        world->slots[slot] = NULL;
        thing_drop(target);
    }
}

static void step_write(struct step *step, struct thing *thing) {
    struct world *world = step->world;
    static _Thread_local uint8_t bytes[WRITE_MAX];
    bool append = below(world, 3) == 0, aligned = below(world, 3) == 0;
    uint64_t length = 1 + below(world, below(world, 3) == 0 ? WRITE_MAX : 6000), fill = below(world, UINT64_MAX);
    uint64_t offset = append ? thing->size : below(world, CONTENT_MAX);

    if (aligned && !append)
        offset &= ~(uint64_t)(BATON_BLOCK - 1);
    if (offset >= CONTENT_MAX - WRITE_MAX)
        offset = append ? thing->size : offset % (CONTENT_MAX - WRITE_MAX);
    if (offset >= CONTENT_MAX) /* a full file that is appended to */
        return;
    length = MIN(length, CONTENT_MAX - offset);
    for (uint64_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)((fill >> (i % 8 * 8)) + i / 64);
    step->what = "write";
    if (step->store != NULL)
        step->answer = op_write(step->store, thing->ino, bytes, length, append ? 0 : offset,
                                append ? WRITE_APPEND : 0, step->lsn);
    memcpy(thing->content + offset, bytes, length);
    thing->size = MAX(thing->size, offset + length);
}

static void step_truncate(struct step *step, struct thing *thing) {
    uint64_t size = below(step->world, 4) == 0 ? 0 : below(step->world, CONTENT_MAX);

    step->what = "truncate";
    if (step->store != NULL)
        step->answer = op_truncate(step->store, thing->ino, size, false, step->lsn);
    if (size < thing->size)
        memset(thing->content + size, 0, thing->size - size);
    thing->size = size;
}

static void step_allocate(struct step *step, struct thing *thing) {
    struct world *world = step->world;
    uint64_t first = below(world, 48) * BATON_BLOCK, length = (1 + below(world, 16)) * BATON_BLOCK;
    unsigned kind = (unsigned)below(world, 3);
    int mode = kind == 0 ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : kind == 1 ? FALLOC_FL_KEEP_SIZE : 0;

    step->what = "fallocate";
    if (step->store != NULL)
        step->answer = op_fallocate(step->store, thing->ino, mode, first, length, step->lsn);
    if (kind == 0)
        memset(thing->content + first, 0, length);
    else if (kind == 2)
        thing->size = MAX(thing->size, first + length);
}

static void step_attributes(struct step *step, struct thing *thing) {
    uint32_t mode = (uint32_t)below(step->world, 01000);
    struct set_attributes set = {.mask = SET_MODE, .mode = (thing->mode & S_IFMT) | mode};
    struct attributes out;

    step->what = "chmod";
    if (step->store != NULL)
        step->answer = op_setattr(step->store, &root, thing->ino, &set, &out, step->lsn);
    thing->mode = (thing->mode & S_IFMT) | mode;
}

static void step_xattr(struct step *step, struct thing *thing) {
    struct world *world = step->world;
    bool remove = below(world, 3) == 0;
    char value[80];

    snprintf(value, sizeof value, "set at step %llu: %llu", (unsigned long long)world->steps,
             (unsigned long long)below(world, UINT64_MAX));
    step->what = remove ? "removexattr" : "setxattr";
    if (remove) {
        step->expected = thing->attribute_length == 0 ? -ENODATA : 0;
        if (step->store != NULL)
            step->answer = op_removexattr(step->store, thing->ino, "user.world", step->lsn);
        thing->attribute_length = 0;
        return;
    }
    if (step->store != NULL)
        step->answer = op_setxattr(step->store, &root, thing->ino, "user.world", value, strlen(value), 0, false,
                                   step->lsn);
    thing->attribute_length = (unsigned)strlen(value);
    memcpy(thing->attribute, value, thing->attribute_length);
}

static void step_directory(struct step *step) {
    struct attributes out = {0};

    step->what = "the world's directory";
    if (step->store != NULL)
        step->answer = op_create(step->store, &root, ROOT_INO, step->world->name, S_IFDIR | 0755, 0, NULL, &out,
                                 step->lsn);
    step->world->ino = out.ino;
}

static void step_choose(struct step *step) {
    struct world *world = step->world;
    unsigned slot = (unsigned)below(world, SLOTS), kind = (unsigned)below(world, 20);
    struct thing *thing = world->slots[slot];

    if (kind < 2)
        step_remove(step, slot);
    else if (kind < 3)
        step_link(step, slot);
    else if (kind < 6)
        step_rename(step, slot);
    else if (thing == NULL)
        step_create(step, slot);
    else if (kind < 8 && !S_ISLNK(thing->mode))
        step_attributes(step, thing);
    else if (kind < 10 && !S_ISLNK(thing->mode))
        step_xattr(step, thing);
    else if (!S_ISREG(thing->mode))
        step_create(step, slot);
    else if (kind < 12)
        step_truncate(step, thing);
    else if (kind < 14)
        step_allocate(step, thing);
    else
        step_write(step, thing);
}

bool world_step(struct world *world, struct store *store, uint64_t *lsn, char *why, size_t room) {
    uint64_t unused;
    struct step step = {.world = world, .store = store, .lsn = lsn != NULL ? lsn : &unused, .what = "nothing"};

    *step.lsn = 0;
    if (world->steps == 0)
        step_directory(&step);
    else
        step_choose(&step);
    world->steps++;
    if (store == NULL || step.answer == step.expected)
        return true;
    snprintf(why, room, "%s, step %llu (%s): expected %d, the store said %d (%s)", world->name,
             (unsigned long long)world->steps - 1, step.what, step.expected, step.answer, strerror(-step.answer));
    return false;
}

/* ---- Comparison ----------------------------------------------------------------------------------------------------- */

struct listing {
    unsigned seen;
};
static int count_entry(void *context, const struct directory_entry *entry) {
    (void)entry;
    ((struct listing *)context)->seen++;
    return 0;
}

#define DIFFERS(...) \
    do { \
        int at = snprintf(why, room, "%s after step %llu, slot %u: ", world->name, (unsigned long long)world->steps - 1, \
                          slot); \
        snprintf(why + at, room - (size_t)at, __VA_ARGS__); \
        return false; \
    } while (0)

static bool compare_thing(const struct world *world, struct store *store, unsigned slot, uint64_t directory, char *why,
                          size_t room) {
    const struct thing *thing = world->slots[slot];
    static uint8_t bytes[CONTENT_MAX + 1];
    struct attributes seen;
    char name[16], value[128];

    int result = op_lookup(store, directory, slot_name(slot, name), &seen);
    if (thing == NULL && result == -ENOENT)
        return true;
    if (thing == NULL || result != 0)
        DIFFERS("lookup says %d, expected %s", result, thing == NULL ? "nothing there" : "something");
    if (seen.row.mode != thing->mode || (!S_ISDIR(thing->mode) && seen.row.nlink != thing->links))
        DIFFERS("mode %o and %u links, expected %o and %u", seen.row.mode, seen.row.nlink, thing->mode, thing->links);
    if (S_ISREG(thing->mode) || S_ISLNK(thing->mode)) {
        if (seen.row.size != thing->size)
            DIFFERS("size %llu, expected %llu", (unsigned long long)seen.row.size, (unsigned long long)thing->size);
        ssize_t got = S_ISLNK(thing->mode) ? op_readlink(store, seen.ino, (char *)bytes, sizeof bytes)
                                           : op_read(store, seen.ino, bytes, sizeof bytes, 0);
        if (got != (ssize_t)thing->size)
            DIFFERS("read says %zd, expected %llu", got, (unsigned long long)thing->size);
        for (uint64_t i = 0; i < thing->size; i++)
            if (bytes[i] != thing->content[i])
                DIFFERS("byte %llu of %llu is %02x, expected %02x", (unsigned long long)i,
                        (unsigned long long)thing->size, bytes[i], thing->content[i]);
    }
    int length = op_getxattr(store, seen.ino, "user.world", value, sizeof value);
    if (length != (thing->attribute_length == 0 ? -ENODATA : (int)thing->attribute_length) ||
        (length > 0 && memcmp(value, thing->attribute, (size_t)length) != 0))
        DIFFERS("its extended attribute says %d, expected %u bytes", length, thing->attribute_length);
    return true;
}

bool world_compare(const struct world *world, struct store *store, char *why, size_t room) {
    struct attributes directory;
    struct listing listing = {0};
    unsigned expected = 0, slot = 0;

    int result = op_lookup(store, ROOT_INO, world->name, &directory);
    if (world->steps == 0 && result == -ENOENT)
        return true;
    if (world->steps == 0 || result != 0)
        DIFFERS("lookup of the directory says %d", result);
    for (slot = 0; slot < SLOTS; slot++) {
        expected += world->slots[slot] != NULL;
        if (!compare_thing(world, store, slot, directory.ino, why, room))
            return false;
    }
    result = op_readdir(store, directory.ino, 0, false, count_entry, &listing);
    if (result != 0 || listing.seen != expected || directory.row.size != expected)
        DIFFERS("readdir says %d with %u entries, size %llu, expected %u", result, listing.seen,
                (unsigned long long)directory.row.size, expected);
    return true;
}
