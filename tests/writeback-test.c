/* Write-back of large data: what is kept has its bounds and its order, and what is taken leaves the page cache. */
#include "fs/writeback.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#define BIG (WRITEBACK_MIN * 8 / BATON_BLOCK) /* blocks: 1 MiB */
#define BIG_KEPT (WRITEBACK_KEPT / (BIG * BATON_BLOCK))
#define TMPFS 0x01021994
#define ADDERS 4u
#define ADDED 20000u

static struct writeback writeback;

static void bounds(void) {
    struct place place;
    unsigned taken = 0, in_order = 0;
    writeback_open(&writeback);
    ok(!writeback_take(&writeback, &place), "nothing to take at the beginning");
    for (uint32_t i = 0; i < 3 * BIG_KEPT; i++) {
        writeback_add(&writeback, (struct place){1, i * BIG, BIG});
        while (writeback_take(&writeback, &place))
            in_order += place.position == taken++ * BIG;
    }
    is_int(2 * BIG_KEPT, taken, "large places: what is beyond the bound is taken");
    is_int(taken, in_order, "... the oldest first");
    writeback_close(&writeback);

    writeback_open(&writeback);
    taken = 0;
    for (uint32_t i = 0; i < 3 * WRITEBACK_PLACES; i++) {
        writeback_add(&writeback, (struct place){2, i, 1});
        while (writeback_take(&writeback, &place))
            taken++;
    }
    ok(writeback.count < WRITEBACK_PLACES && taken == 3 * WRITEBACK_PLACES - writeback.count,
       "small ones: their number is bounded (%u kept)", writeback.count);
    for (uint32_t i = 0; i < 3 * WRITEBACK_PLACES; i++)
        writeback_add(&writeback, (struct place){2, i, 1});
    is_int(WRITEBACK_PLACES, writeback.count, "also when nobody takes");
    is_int(WRITEBACK_PLACES, writeback.blocks, "... and the blocks are counted");
    writeback_close(&writeback);
}

static void *add_many(void *context) {
    uint32_t *segment = context;
    struct place place;
    for (uint32_t i = 0; i < ADDED; i++) {
        writeback_add(&writeback, (struct place){*segment, i, BIG});
        while (writeback_take(&writeback, &place))
            ;
    }
    return NULL;
}

static void by_several(void) {
    pthread_t threads[ADDERS];
    uint32_t numbers[ADDERS];
    struct place place;
    writeback_open(&writeback);
    for (uint32_t i = 0; i < ADDERS; i++) {
        numbers[i] = i + 1;
        PROMISE(pthread_create(&threads[i], NULL, add_many, &numbers[i]) == 0);
    }
    for (uint32_t i = 0; i < ADDERS; i++)
        pthread_join(threads[i], NULL);
    ok(!writeback_take(&writeback, &place) && writeback.blocks == (uint64_t)writeback.count * BIG &&
           writeback.blocks <= WRITEBACK_KEPT / BATON_BLOCK,
       "%u threads: %u places kept", ADDERS, writeback.count);
    writeback_close(&writeback);
}

static unsigned resident(int fd, uint32_t first, uint32_t blocks) {
    size_t length = (size_t)blocks * BATON_BLOCK;
    unsigned char *there = calloc(1, blocks);
    void *map = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, (off_t)first * BATON_BLOCK);
    PROMISE(there && map != MAP_FAILED && sysconf(_SC_PAGESIZE) == BATON_BLOCK);
    PROMISE(mincore(map, length, there) == 0);
    unsigned count = 0;
    for (uint32_t i = 0; i < blocks; i++)
        count += there[i] & 1;
    munmap(map, length);
    free(there);
    return count;
}

static void pages(void) {
    char name[] = "writeback-test.XXXXXX";
    int fd = mkstemp(name);
    struct statfs fs;
    uint8_t *bytes = malloc((size_t)BIG * BATON_BLOCK), *back = malloc((size_t)BIG * BATON_BLOCK);
    PROMISE(fd >= 0 && unlink(name) == 0 && fstatfs(fd, &fs) == 0 && bytes && back);
    memset(bytes, 'x', (size_t)BIG * BATON_BLOCK);
    struct place first = {1, 0, BIG}, second = {1, BIG, BIG};
    PROMISE(pwrite_all(fd, bytes, (size_t)BIG * BATON_BLOCK, 0) == 0);
    PROMISE(pwrite_all(fd, bytes, (size_t)BIG * BATON_BLOCK, (uint64_t)BIG * BATON_BLOCK) == 0);
    writeback_begin(fd, first);
    writeback_begin(fd, second);
    PROMISE(fdatasync(fd) == 0);
    writeback_drop(fd, first);
    if (fs.f_type == TMPFS)
        skip(1, "tmpfs has no page cache to leave");
    else
        is_int(0, resident(fd, first.position, first.count), "what is dropped has left the page cache");
    is_int(BIG, resident(fd, second.position, second.count), "what is not is there");
    ok(pread_all(fd, back, (size_t)BIG * BATON_BLOCK, 0) == 0 && memcmp(back, bytes, (size_t)BIG * BATON_BLOCK) == 0,
       "and is read from the disk again");
    close(fd);
    free(bytes);
    free(back);
}

int main(void) {
    bounds();
    by_several();
    pages();
    return 0;
}
