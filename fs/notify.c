#include "fs/notify.h"

#include "fs/ops.h"

#include <linux/fuse.h>
#include <pthread.h>
#include <sys/uio.h>

#define NOTIFY_INC_EPOCH 8 /* FUSE_NOTIFY_INC_EPOCH of newer headers */
#define QUEUE_ITEMS 4096u

struct item {
    uint64_t ino;
    int64_t offset; /* -1: attributes only */
    int64_t length; /* 0: to the end */
    struct told *told;
};

struct notify {
    int fd;
    struct nodes *nodes;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t queued, told;
    struct item items[QUEUE_ITEMS]; /* a ring */
    uint64_t in, out;               /* counts of items ever queued and told */
    bool everything;                /* … is to be told before the items */
    bool busy, stopping;
};

static int send_raw(int fd, int code, const void *body, size_t length) {
    struct fuse_out_header head = {.len = (uint32_t)(sizeof head + length), .error = code};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)(uintptr_t)body, length}};

    while (writev(fd, parts, length ? 2 : 1) < 0)
        if (errno != EINTR)
            return -errno; /* -ENOENT: not cached */
    return 0;
}

bool notify_drops_entries(int fd) {
    return send_raw(fd, NOTIFY_INC_EPOCH, NULL, 0) == 0;
}

static void tell_inode(struct notify *notify, const struct item *item) {
    struct fuse_notify_inval_inode_out body = {.ino = item->ino, .off = item->offset, .len = item->length};
    send_raw(notify->fd, FUSE_NOTIFY_INVAL_INODE, &body, sizeof body);
}

/* First entries, then inodes: a path walk that begins in between asks for both. */
static void tell_everything(struct notify *notify) {
    int64_t count;

    send_raw(notify->fd, NOTIFY_INC_EPOCH, NULL, 0);
    AUTO_FREE uint64_t *list = nodes_list(notify->nodes, &count);
    if (!list && count < 0)
        log_error("no memory to list the inodes whose cached data is old; files may show it until they are closed");
    for (int64_t i = 0; i < count; i++)
        tell_inode(notify, &(struct item){.ino = list[i]});
}

static void *notify_main(void *context) {
    struct notify *notify = context;

    pthread_mutex_lock(&notify->mutex);
    for (;;) {
        bool everything = notify->everything;
        struct item item = {0};
        if (!everything && notify->in == notify->out) {
            if (notify->stopping)
                break;
            pthread_cond_wait(&notify->queued, &notify->mutex);
            continue;
        }
        if (everything)
            notify->everything = false;
        else
            item = notify->items[notify->out++ % QUEUE_ITEMS];
        notify->busy = true;
        pthread_mutex_unlock(&notify->mutex);
        if (everything)
            tell_everything(notify);
        else
            tell_inode(notify, &item);
        if (item.told)
            item.told->done(item.told);
        pthread_mutex_lock(&notify->mutex);
        notify->busy = false;
        if (notify->in == notify->out && !notify->everything)
            pthread_cond_broadcast(&notify->told);
    }
    pthread_mutex_unlock(&notify->mutex);
    return NULL;
}

int notify_start(int fd, struct nodes *nodes, struct notify **out) {
    struct notify *notify = calloc(1, sizeof *notify);

    if (!notify)
        return -ENOMEM;
    notify->fd = fd;
    notify->nodes = nodes;
    PROMISE(pthread_mutex_init(&notify->mutex, NULL) == 0);
    PROMISE(pthread_cond_init(&notify->queued, NULL) == 0);
    PROMISE(pthread_cond_init(&notify->told, NULL) == 0);
    int error = pthread_create(&notify->thread, NULL, notify_main, notify);
    if (error) {
        free(notify);
        return -error;
    }
    *out = notify;
    return 0;
}

/* Empties the queue but for those that somebody waits for. Mutex held. */
static void drop_items(struct notify *notify) {
    uint64_t to = notify->out;
    for (uint64_t at = notify->out; at < notify->in; at++)
        if (notify->items[at % QUEUE_ITEMS].told)
            notify->items[to++ % QUEUE_ITEMS] = notify->items[at % QUEUE_ITEMS];
    notify->in = to;
}

void notify_stop(struct notify *notify) {
    if (!notify)
        return;
    pthread_mutex_lock(&notify->mutex);
    notify->stopping = true;
    drop_items(notify); /* those that are left are told, to nobody, and answered */
    notify->everything = false;
    pthread_cond_signal(&notify->queued);
    pthread_mutex_unlock(&notify->mutex);
    pthread_join(notify->thread, NULL);
    pthread_cond_destroy(&notify->queued);
    pthread_cond_destroy(&notify->told);
    pthread_mutex_destroy(&notify->mutex);
    free(notify);
}

/* A stream of writes to one file is one range. */
static bool merges(struct notify *notify, struct item item) {
    if (notify->in == notify->out)
        return false;
    struct item *last = &notify->items[(notify->in - 1) % QUEUE_ITEMS];
    if (last->ino != item.ino || last->told || item.told)
        return false;
    if (item.offset < 0)
        return true;
    if (last->offset < 0 || item.offset < last->offset)
        return false;
    if (last->length == 0)
        return true;
    if (item.offset > last->offset + last->length)
        return false;
    last->length = item.length == 0 ? 0 : MAX(last->length, item.offset + item.length - last->offset);
    return true;
}

static void queue(struct notify *notify, struct item item) {
    bool kept = true;

    if (!nodes_known(notify->nodes, item.ino)) {
        if (item.told)
            item.told->done(item.told);
        return;
    }
    pthread_mutex_lock(&notify->mutex);
    if (notify->stopping) {
        kept = false;
    } else if ((!notify->everything || item.told) && !merges(notify, item)) {
        if (notify->in - notify->out == QUEUE_ITEMS) {
            notify->everything = true;
            drop_items(notify);
        }
        kept = notify->in - notify->out < QUEUE_ITEMS;
        if (kept && (!notify->everything || item.told))
            notify->items[notify->in++ % QUEUE_ITEMS] = item;
    }
    pthread_cond_signal(&notify->queued);
    pthread_mutex_unlock(&notify->mutex);
    if (!kept && item.told)
        item.told->done(item.told);
}

void notify_data(struct notify *notify, uint64_t ino, uint64_t offset, uint64_t length) {
    if (offset > INT64_MAX || length > INT64_MAX - offset)
        offset = length = 0;
    queue(notify, (struct item){.ino = ino, .offset = (int64_t)offset, .length = (int64_t)length});
}

void notify_data_then(struct notify *notify, uint64_t ino, uint64_t offset, uint64_t length, struct told *told) {
    if (offset > INT64_MAX || length > INT64_MAX - offset)
        offset = length = 0;
    queue(notify, (struct item){.ino = ino, .offset = (int64_t)offset, .length = (int64_t)length, .told = told});
}

void notify_attributes(struct notify *notify, uint64_t ino) {
    queue(notify, (struct item){.ino = ino, .offset = -1});
}

void notify_everything(struct notify *notify) {
    pthread_mutex_lock(&notify->mutex);
    notify->everything = true;
    drop_items(notify);
    pthread_cond_signal(&notify->queued);
    pthread_mutex_unlock(&notify->mutex);
}

void notify_drain(struct notify *notify) {
    pthread_mutex_lock(&notify->mutex);
    while (notify->in != notify->out || notify->everything || notify->busy)
        pthread_cond_wait(&notify->told, &notify->mutex);
    pthread_mutex_unlock(&notify->mutex);
}
