#include "tests/powercut/model.h"

#include "tests/powercut/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
#define SECTOR 512u
#define PAGES_MAX (1u << 24) /* 64 GiB a file */
#define NAME_ROOM 256u

struct version {
    uint64_t at;     /* the event that made it */
    bool structural; /* by truncation or punching */
    bool lost;       /* a flush of it has failed */
    uint8_t *bytes;  /* NULL: zeros */
};

struct page {
    uint8_t *base; /* durable; NULL: zeros */
    unsigned count, room;
    struct version *versions; /* since then, oldest first */
    bool listed; /* in the file's dirty list */
};

struct size_change {
    uint64_t at;
    uint64_t size;
};

struct node {
    struct file_key key;
    uint64_t size; /* as the program sees it */
    uint64_t base_size;
    uint64_t floor; /* metadata up to this event is durable */
    struct size_change *sizes;
    unsigned size_count, size_room;
    struct page **pages;
    uint32_t page_room;
    uint32_t *dirty;
    unsigned dirty_count, dirty_room;
};

struct name_change {
    uint64_t at;
    enum event_type type;
    unsigned flags;
    struct node *parent, *to_parent, *file;
    char name[NAME_ROOM], to_name[NAME_ROOM];
    bool durable;
};

struct flush {
    uint64_t token, at;
    struct file_key file;
};

struct model {
    uint8_t *log;
    size_t length;
    const struct event **events;
    uint64_t event_count, event_room, at;
    struct node **nodes;
    unsigned node_count, node_room;
    struct node *root;
    struct name_change *names;
    unsigned name_count, name_room;
    struct flush *flushes; /* begun, not ended */
    unsigned flush_count, flush_room;
};

static void *grow(void *array, unsigned count, unsigned *room, size_t item) {
    if (count < *room)
        return array;
    *room = *room == 0 ? 8 : *room * 2;
    array = realloc(array, *room * item);
    if (array == NULL)
        abort();
    return array;
}
#define GROW(array, count, room) ((array) = grow((array), (count), &(room), sizeof *(array)))

static const char *event_text(const struct event *event) {
    return (const char *)(event + 1);
}
static const uint8_t *event_data(const struct event *event) {
    return (const uint8_t *)(event + 1) + event->text;
}

/* ---- Files --------------------------------------------------------------------------------------------------------- */

static struct node *node_of(struct model *model, struct file_key key) {
    for (unsigned i = 0; i < model->node_count; i++)
        if (model->nodes[i]->key.ino == key.ino && model->nodes[i]->key.generation == key.generation)
            return model->nodes[i];
    struct node *node = calloc(1, sizeof *node);
    if (node == NULL)
        abort();
    node->key = key;
    GROW(model->nodes, model->node_count, model->node_room);
    return model->nodes[model->node_count++] = node;
}

static struct page *page_of(struct node *node, uint64_t number, bool make) {
    if (number >= node->page_room) {
        if (!make)
            return NULL;
        uint32_t room = node->page_room == 0 ? 64 : node->page_room;
        while (room <= number)
            room *= 2;
        node->pages = realloc(node->pages, room * sizeof *node->pages);
        if (node->pages == NULL || number >= PAGES_MAX)
            abort();
        memset(node->pages + node->page_room, 0, (room - node->page_room) * sizeof *node->pages);
        node->page_room = room;
    }
    if (node->pages[number] == NULL && make && (node->pages[number] = calloc(1, sizeof(struct page))) == NULL)
        abort();
    return node->pages[number];
}

static const uint8_t *page_now(const struct page *page) {
    return page->count > 0 ? page->versions[page->count - 1].bytes : page->base;
}

/* A new version; the bytes are the caller's, to be filled. */
static uint8_t *page_push(struct node *node, uint32_t number, uint64_t at, bool structural, bool zero) {
    struct page *page = page_of(node, number, true);
    uint8_t *bytes = NULL;

    if (!page->listed) {
        GROW(node->dirty, node->dirty_count, node->dirty_room);
        node->dirty[node->dirty_count++] = number;
        page->listed = true;
    }
    if (!zero) {
        const uint8_t *now = page_now(page);
        if ((bytes = malloc(PAGE)) == NULL)
            abort();
        if (now == NULL)
            memset(bytes, 0, PAGE);
        else
            memcpy(bytes, now, PAGE);
    }
    GROW(page->versions, page->count, page->room);
    page->versions[page->count++] = (struct version){at, structural, false, bytes};
    return bytes;
}

static void size_set(struct node *node, uint64_t at, uint64_t size) {
    GROW(node->sizes, node->size_count, node->size_room);
    node->sizes[node->size_count++] = (struct size_change){at, size};
    node->size = size;
}

/* All versions up to `at` but those that a failed flush has lost are on the disk. */
static void page_settle(struct page *page, uint64_t at) {
    unsigned last = 0; /* one more than the newest durable one */

    for (unsigned i = 0; i < page->count && page->versions[i].at <= at; i++)
        if (!page->versions[i].lost)
            last = i + 1;
    if (last == 0)
        return;
    free(page->base);
    page->base = page->versions[last - 1].bytes;
    for (unsigned i = 0; i + 1 < last; i++)
        free(page->versions[i].bytes);
    page->count -= last;
    memmove(page->versions, page->versions + last, page->count * sizeof *page->versions);
}

static void sizes_settle(struct node *node, uint64_t at) {
    unsigned gone = 0;

    while (gone < node->size_count && node->sizes[gone].at <= at)
        node->base_size = node->sizes[gone++].size;
    node->size_count -= gone;
    if (gone > 0)
        memmove(node->sizes, node->sizes + gone, node->size_count * sizeof *node->sizes);
    if (at > node->floor)
        node->floor = at;
}

static void node_settle(struct node *node, uint64_t at, bool failed) {
    unsigned kept = 0;

    if (!failed)
        sizes_settle(node, at);
    for (unsigned i = 0; i < node->dirty_count; i++) {
        struct page *page = node->pages[node->dirty[i]];
        if (!failed)
            page_settle(page, at);
        else
            for (unsigned v = 0; v < page->count && page->versions[v].at <= at; v++)
                page->versions[v].lost = page->versions[v].lost || !page->versions[v].structural;
        if (page->count > 0)
            node->dirty[kept++] = node->dirty[i];
        else
            page->listed = false;
    }
    node->dirty_count = kept;
}

static void data_write(struct node *node, uint64_t at, const struct event *event) {
    const uint8_t *data = event_data(event);
    uint64_t offset = event->offset, left = event->data;

    while (left > 0) {
        uint32_t number = (uint32_t)(offset / PAGE), skip = (uint32_t)(offset % PAGE);
        uint32_t take = left < PAGE - skip ? (uint32_t)left : PAGE - skip;
        uint8_t *bytes = page_push(node, number, at, false, false);
        memcpy(bytes + skip, data, take);
        if ((event->flags & EVENT_DSYNC) != 0)
            page_settle(node->pages[number], at);
        data += take;
        offset += take;
        left -= take;
    }
    if (offset > node->size)
        size_set(node, at, offset);
    if ((event->flags & EVENT_DSYNC) != 0)
        sizes_settle(node, at);
}

static void data_zero(struct node *node, uint64_t at, uint64_t from, uint64_t to) {
    uint64_t end = (uint64_t)node->page_room * PAGE;

    for (to = to < end ? to : end; from < to;) {
        uint32_t number = (uint32_t)(from / PAGE), skip = (uint32_t)(from % PAGE);
        uint64_t take = to - from < PAGE - skip ? to - from : PAGE - skip;
        struct page *page = page_of(node, number, false);
        if (page != NULL && (page->count > 0 || page->base != NULL)) {
            uint8_t *bytes = page_push(node, number, at, true, take == PAGE);
            if (bytes != NULL)
                memset(bytes + skip, 0, take);
        }
        from += take;
    }
}

/* ---- Names --------------------------------------------------------------------------------------------------------- */

static void name_add(struct model *model, uint64_t at, const struct event *event) {
    struct name_change change = {.at = at, .type = event->type, .flags = event->flags};
    const char *text = event_text(event);
    size_t first = strnlen(text, event->text);

    change.parent = node_of(model, event->parent);
    if (event->file.ino != 0)
        change.file = node_of(model, event->file);
    memcpy(change.name, text, first < NAME_ROOM ? first : NAME_ROOM - 1);
    if (event->type == EVENT_RENAME) {
        change.to_parent = node_of(model, event->to_parent);
        if (event->text > first + 1)
            memcpy(change.to_name, text + first + 1,
                   event->text - first - 1 < NAME_ROOM ? event->text - first - 1 : NAME_ROOM - 1);
    }
    GROW(model->names, model->name_count, model->name_room);
    model->names[model->name_count++] = change;
}

static void names_settle(struct model *model, const struct node *directory, uint64_t at) {
    for (unsigned i = 0; i < model->name_count; i++) {
        struct name_change *change = &model->names[i];
        if (change->at <= at && (directory == NULL || change->parent == directory || change->to_parent == directory))
            change->durable = true;
    }
}

/* ---- Replay -------------------------------------------------------------------------------------------------------- */

static void flush_end(struct model *model, const struct event *event) {
    for (unsigned i = 0; i < model->flush_count; i++) {
        struct flush flush = model->flushes[i];
        if (flush.token != event->offset)
            continue;
        model->flushes[i] = model->flushes[--model->flush_count];
        bool failed = event->length != 0;
        if (flush.file.ino == 0) {
            for (unsigned n = 0; n < model->node_count; n++)
                node_settle(model->nodes[n], flush.at, failed);
            if (!failed)
                names_settle(model, NULL, flush.at);
            return;
        }
        struct node *node = node_of(model, flush.file);
        node_settle(node, flush.at, failed);
        if (!failed && flush.file.directory != 0)
            names_settle(model, node, flush.at);
        return;
    }
}

static void apply(struct model *model, uint64_t at, const struct event *event) {
    struct node *node = event->file.ino != 0 ? node_of(model, event->file) : NULL;

    switch ((enum event_type)event->type) {
    case EVENT_START:
        if (model->root == NULL)
            model->root = node;
        model->flush_count = 0; /* the process that began them is dead */
        break;
    case EVENT_CREATE:
    case EVENT_LINK:
    case EVENT_UNLINK:
    case EVENT_RENAME:
        name_add(model, at, event);
        break;
    case EVENT_WRITE:
        data_write(node, at, event);
        break;
    case EVENT_TRUNCATE:
        if (event->length < node->size)
            data_zero(node, at, event->length, UINT64_MAX);
        size_set(node, at, event->length);
        break;
    case EVENT_ZERO:
        data_zero(node, at, event->offset, event->offset + event->length);
        break;
    case EVENT_SYNC_BEGIN:
        GROW(model->flushes, model->flush_count, model->flush_room);
        model->flushes[model->flush_count++] = (struct flush){event->offset, at, event->file};
        break;
    case EVENT_SYNC_END:
        flush_end(model, event);
        break;
    case EVENT_MARK:
    case EVENT_UNSUPPORTED:
    case EVENT_TYPE_END:
        break;
    }
}

int model_advance(struct model *model, uint64_t events) {
    if (events < model->at || events > model->event_count)
        return -EINVAL;
    for (; model->at < events; model->at++)
        apply(model, model->at + 1, model->events[model->at]);
    return 0;
}

/* ---- The log ------------------------------------------------------------------------------------------------------- */

static const char *log_index(struct model *model) {
    size_t at = 0;

    /* The last line may be torn: the process was killed, and what it tells of was not done under any flush. */
    while (model->length - at >= sizeof(struct event)) {
        const struct event *event = (const struct event *)(model->log + at);
        if (event->magic != EVENT_MAGIC || event->type == 0 || event->type >= EVENT_TYPE_END)
            return "this is no log of record.so";
        size_t length = sizeof *event + (size_t)event->text + event->data;
        if (length > model->length - at)
            break;
        if (event->type == EVENT_UNSUPPORTED)
            return "the program used a call that the rig does not follow";
        if (model->event_count == model->event_room) {
            model->event_room = model->event_room == 0 ? 1024 : model->event_room * 2;
            model->events = realloc(model->events, model->event_room * sizeof(struct event *));
            if (model->events == NULL)
                abort();
        }
        model->events[model->event_count++] = event;
        at += length;
    }
    if (model->event_count == 0 || model->events[0]->type != EVENT_START)
        return "the log is empty: did the program run under record.so?";
    return NULL;
}

struct model *model_open(const char *log, char *why, size_t room) {
    struct model *model = calloc(1, sizeof *model);
    const char *wrong = NULL;
    struct stat status;

    if (model == NULL)
        abort();
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        wrong = strerror(errno);
    else if ((model->length = (size_t)status.st_size) == 0)
        wrong = "the log is empty: did the program run under record.so?";
    else {
        model->log = mmap(NULL, model->length, PROT_READ, MAP_PRIVATE, fd, 0);
        if (model->log == MAP_FAILED)
            abort();
        wrong = log_index(model);
    }
    if (fd >= 0)
        close(fd);
    if (wrong == NULL)
        return model;
    snprintf(why, room, "%s: %s", log, wrong);
    model_close(model);
    return NULL;
}

static void node_free(struct node *node) {
    for (uint32_t i = 0; i < node->page_room; i++) {
        struct page *page = node->pages[i];
        if (page == NULL)
            continue;
        for (unsigned v = 0; v < page->count; v++)
            free(page->versions[v].bytes);
        free(page->versions);
        free(page->base);
        free(page);
    }
    free(node->pages);
    free(node->sizes);
    free(node->dirty);
    free(node);
}

void model_close(struct model *model) {
    for (unsigned i = 0; i < model->node_count; i++)
        node_free(model->nodes[i]);
    if (model->log != NULL)
        munmap(model->log, model->length);
    free(model->nodes);
    free(model->names);
    free(model->flushes);
    free(model->events);
    free(model);
}

uint64_t model_events(const struct model *model) {
    return model->event_count;
}

void model_marks(const struct model *model, void (*mark)(void *context, uint64_t event, const char *text),
                 void *context) {
    for (uint64_t i = 0; i < model->event_count; i++) {
        const struct event *event = model->events[i];
        char text[512];
        if (event->type != EVENT_MARK)
            continue;
        snprintf(text, sizeof text, "%.*s", (int)event->text, event_text(event));
        mark(context, i + 1, text);
    }
}

/* ---- Writing an image ---------------------------------------------------------------------------------------------- */

enum taste { TASTE_NOTHING, TASTE_ALL, TASTE_MIX, TASTE_FEW, TASTE_MOST, TASTE_END };

struct image {
    const struct model *model;
    uint64_t random;
    bool newest, sectors, names_apart;
    enum taste data, metadata, names;
    struct entry *entries;
    unsigned entry_count, entry_room;
};

struct entry {
    const struct node *parent, *file;
    char name[NAME_ROOM];
    char *written; /* the path of the file's first name in the image */
};

static uint64_t image_random(struct image *image) { /* splitmix64 */
    uint64_t z = (image->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A number from 0 (as on the disk) to `most` (as the program saw it). */
static unsigned choose(struct image *image, enum taste taste, unsigned most) {
    if (image->newest || taste == TASTE_ALL)
        return most;
    if (most == 0 || taste == TASTE_NOTHING)
        return 0;
    if (taste == TASTE_FEW && image_random(image) % 8 != 0)
        return 0;
    if (taste == TASTE_MOST && image_random(image) % 8 != 0)
        return most;
    return (unsigned)(image_random(image) % (most + 1));
}

/* The page's possible contents are those between the structural changes that are in the image and the first that is
 * not: data written after a punch lies in newly allocated blocks, which come with the metadata. */
static void page_choose(struct image *image, const struct page *page, uint64_t metadata, uint8_t out[PAGE]) {
    unsigned first = 0, last;

    for (unsigned i = 0; i < page->count; i++)
        if (page->versions[i].structural && page->versions[i].at <= metadata)
            first = i + 1;
    for (last = first; last < page->count && !page->versions[last].structural;)
        last++;
    unsigned pieces = image->sectors ? PAGE / SECTOR : 1, length = PAGE / pieces;
    for (unsigned piece = 0; piece < pieces; piece++) {
        unsigned pick = first + choose(image, image->data, last - first);
        const uint8_t *bytes = pick == 0 ? page->base : page->versions[pick - 1].bytes;
        if (bytes == NULL)
            memset(out + piece * length, 0, length);
        else
            memcpy(out + piece * length, bytes + piece * length, length);
    }
}

static int file_write(struct image *image, const struct node *node, int fd) {
    static const uint8_t zeros[PAGE];
    uint64_t metadata = node->floor, size = node->base_size;
    uint8_t bytes[PAGE];

    /* The instant up to which metadata is there: of the size changes and of those that pages know of. */
    uint64_t newest = image->model->at;
    if (image->newest || image->metadata == TASTE_ALL)
        metadata = newest;
    else if (image->metadata != TASTE_NOTHING && newest > metadata) {
        /* By steps of the file's own history, or most choices would fall between two of them. */
        unsigned pick = choose(image, image->metadata, node->size_count + 1);
        metadata = pick > node->size_count ? newest : pick == 0 ? metadata : node->sizes[pick - 1].at;
    }
    for (unsigned i = 0; i < node->size_count && node->sizes[i].at <= metadata; i++)
        size = node->sizes[i].size;
    if (ftruncate(fd, (off_t)size) != 0)
        return -errno;
    for (uint32_t i = 0; i < node->page_room && (uint64_t)i * PAGE < size; i++) {
        if (node->pages[i] == NULL)
            continue;
        page_choose(image, node->pages[i], metadata, bytes);
        uint64_t left = size - (uint64_t)i * PAGE;
        if (memcmp(bytes, zeros, PAGE) != 0 &&
            pwrite(fd, bytes, left < PAGE ? left : PAGE, (off_t)i * PAGE) != (ssize_t)(left < PAGE ? left : PAGE))
            return errno != 0 ? -errno : -EIO;
    }
    return 0;
}

static struct entry *entry_find(struct image *image, const struct node *parent, const char *name) {
    for (unsigned i = 0; i < image->entry_count; i++)
        if (image->entries[i].file != NULL && image->entries[i].parent == parent &&
            strcmp(image->entries[i].name, name) == 0)
            return &image->entries[i];
    return NULL;
}

static void entry_set(struct image *image, const struct node *parent, const char *name, const struct node *file) {
    struct entry *entry = entry_find(image, parent, name);

    if (entry == NULL) {
        GROW(image->entries, image->entry_count, image->entry_room);
        entry = &image->entries[image->entry_count++];
        *entry = (struct entry){.parent = parent};
        snprintf(entry->name, sizeof entry->name, "%s", name);
    }
    entry->file = file;
}

static void names_apply(struct image *image, const struct name_change *change) {
    struct entry *from = entry_find(image, change->parent, change->name);
    const struct node *file = from != NULL ? from->file : NULL;

    if (change->type == EVENT_UNLINK) {
        if (from != NULL)
            from->file = NULL;
    } else if (change->type == EVENT_RENAME) {
        struct entry *to = entry_find(image, change->to_parent, change->to_name);
        if (file == NULL)
            return; /* its creation is not in the image */
        from->file = (change->flags & RENAME_EXCHANGE) != 0 && to != NULL ? to->file : NULL;
        entry_set(image, change->to_parent, change->to_name, file);
    } else
        entry_set(image, change->parent, change->name, change->file);
}

static void names_choose(struct image *image) {
    const struct model *model = image->model;
    unsigned loose = 0, pick, seen = 0;

    for (unsigned i = 0; i < model->name_count; i++)
        loose += !model->names[i].durable;
    pick = choose(image, image->names, loose);
    for (unsigned i = 0; i < model->name_count; i++) {
        bool in = model->names[i].durable;
        if (!in && image->names_apart && !image->newest)
            in = choose(image, image->names, 1) == 1;
        else if (!in)
            in = seen++ < pick;
        if (in)
            names_apply(image, &model->names[i]);
    }
}

static int tree_write(struct image *image, const struct node *directory, const char *path, unsigned depth) {
    for (unsigned i = 0; i < image->entry_count; i++) {
        struct entry *entry = &image->entries[i];
        char child[4096];
        int result = 0;

        if (entry->parent != directory || entry->file == NULL)
            continue;
        if (depth > 32 || (size_t)snprintf(child, sizeof child, "%s/%s", path, entry->name) >= sizeof child)
            return -ENAMETOOLONG;
        const char *linked = NULL;
        for (unsigned other = 0; other < i && linked == NULL; other++)
            if (image->entries[other].file == entry->file)
                linked = image->entries[other].written;
        if (entry->file->key.directory != 0) {
            if (mkdir(child, 0700) != 0)
                return -errno;
            result = tree_write(image, entry->file, child, depth + 1);
        } else if (linked != NULL)
            result = link(linked, child) == 0 ? 0 : -errno;
        else {
            int fd = open(child, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
            if (fd < 0)
                return -errno;
            result = file_write(image, entry->file, fd);
            close(fd);
        }
        if (result != 0)
            return result;
        if ((entry->written = strdup(child)) == NULL)
            return -ENOMEM;
    }
    return 0;
}

int model_write(const struct model *model, uint64_t seed, bool newest, const char *directory) {
    struct image image = {.model = model, .random = seed, .newest = newest};

    if (model->root == NULL)
        return -EINVAL;
    image.data = (enum taste)(image_random(&image) % TASTE_END);
    image.metadata = (enum taste)(image_random(&image) % TASTE_END);
    image.names = (enum taste)(image_random(&image) % TASTE_END);
    image.sectors = image_random(&image) % 4 == 0;
    image.names_apart = image_random(&image) % 4 == 0;
    names_choose(&image);
    int result = tree_write(&image, model->root, directory, 0);
    for (unsigned i = 0; i < image.entry_count; i++)
        free(image.entries[i].written);
    free(image.entries);
    return result;
}
