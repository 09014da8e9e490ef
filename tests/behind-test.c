/* Write-behind: a block is read as it was put, at every moment, wherever it is; and all of it reaches the file. */
#include "fs/behind.h"
#include "tests/tap.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 40000u /* of a segment */
#define SEGMENTS 2u

static struct behind behind;
static uint8_t *files; /* SEGMENTS × BLOCKS × BATON_BLOCK */
static unsigned writes, refuse;
static pthread_mutex_t file_lock = PTHREAD_MUTEX_INITIALIZER;

static uint8_t *file_block(uint32_t segment, uint32_t position) {
    return files + ((size_t)segment * BLOCKS + position) * BATON_BLOCK;
}

static int write_file(void *context, uint32_t segment, uint32_t first, uint32_t count, const uint8_t *bytes) {
    (void)context;
    if (refuse > 0 && --refuse == 0)
        return -EIO;
    pthread_mutex_lock(&file_lock);
    memcpy(file_block(segment, first), bytes, (size_t)count * BATON_BLOCK);
    pthread_mutex_unlock(&file_lock);
    writes++;
    return 0;
}

/* What store_read_blocks does. */
static void read_blocks(uint32_t segment, uint32_t position, uint32_t count, uint8_t *to) {
    while (count > 0) {
        uint32_t step, here = behind_get(&behind, segment, position, count, to, &step);
        if (here == 0) {
            pthread_mutex_lock(&file_lock);
            memcpy(to, file_block(segment, position), (size_t)step * BATON_BLOCK);
            pthread_mutex_unlock(&file_lock);
            here = step;
        }
        position += here;
        count -= here;
        to += (size_t)here * BATON_BLOCK;
    }
}

static void fill(uint8_t *block, uint32_t segment, uint32_t position) {
    for (uint32_t i = 0; i < BATON_BLOCK; i += 4) {
        uint32_t value = segment * 1000003u + position * 31u + i;
        memcpy(block + i, &value, 4);
    }
}

static bool is_filled(const uint8_t *block, uint32_t segment, uint32_t position) {
    uint8_t expected[BATON_BLOCK];
    fill(expected, segment, position);
    return memcmp(block, expected, BATON_BLOCK) == 0;
}

/* As store_write_blocks does: what is not taken goes to the file. */
static uint32_t put(uint32_t segment, uint32_t position, uint32_t count) {
    uint8_t bytes[8 * BATON_BLOCK];
    for (uint32_t i = 0; i < count; i++)
        fill(bytes + (size_t)i * BATON_BLOCK, segment, position + i);
    uint32_t taken = behind_put(&behind, segment, position, count, bytes, (size_t)count * BATON_BLOCK);
    if (taken < count) {
        pthread_mutex_lock(&file_lock);
        memcpy(file_block(segment, position + taken), bytes + (size_t)taken * BATON_BLOCK,
               (size_t)(count - taken) * BATON_BLOCK);
        pthread_mutex_unlock(&file_lock);
    }
    return taken;
}

static bool range_good(uint32_t segment, uint32_t first, uint32_t count) {
    uint8_t *bytes = malloc((size_t)count * BATON_BLOCK);
    bool good = true;
    read_blocks(segment, first, count, bytes);
    for (uint32_t i = 0; i < count && good; i++)
        good = is_filled(bytes + (size_t)i * BATON_BLOCK, segment, first + i);
    free(bytes);
    return good;
}

static void test_simple(void) {
    uint8_t block[BATON_BLOCK], zeros[BATON_BLOCK] = {0};
    uint32_t until;

    is_int(0, behind_get(&behind, 0, 7, 5, block, &until), "nothing is there");
    is_int(5, until, "all of it is to be read from the file");
    is_int(1, behind_put(&behind, 0, 10, 1, (const uint8_t *)"short", 5), "a block is taken");
    is_int(1, behind_get(&behind, 0, 10, 1, block, &until), "and read");
    ok(memcmp(block, "short", 5) == 0 && memcmp(block + 5, zeros, BATON_BLOCK - 5) == 0, "the rest of it is zeros");
    is_int(0, behind_get(&behind, 0, 7, 5, block, &until), "blocks before it are not there");
    is_int(3, until, "up to it");
    is_int(0, behind_get(&behind, 1, 10, 1, block, &until), "nor is it in another segment");
    is_int(4, put(0, 11, 4), "more");
    is_int(4, put(0, 254, 4), "across the end of a window");
    is_int(2, put(0, 300, 2), "and behind a gap");
    ok(!behind_pressed(&behind), "two windows are not many");
    is_int(0, behind_flush(&behind, write_file, NULL), "all of it is written");
    is_int(4, writes, "in a row what lies in a row");
    is_int(0, atomic_load(&behind.used), "no window is used any more");
    ok(memcmp(file_block(0, 10), "short", 5) == 0 && range_good(0, 11, 4) && range_good(0, 254, 4) && range_good(0, 300, 2),
       "the file has it");
    ok(memcmp(file_block(0, 258), zeros, BATON_BLOCK) == 0, "and nothing beside it");
    fill(block, 0, 10);
    memcpy(file_block(0, 10), block, BATON_BLOCK);
}

static void test_full(void) {
    uint32_t taken = 0;
    for (uint32_t i = 0; i < BEHIND_WINDOWS + 2; i++)
        taken += put(1, i * BEHIND_BLOCKS, 1);
    is_int(BEHIND_WINDOWS, taken, "when no window is left, the file takes it");
    ok(behind_pressed(&behind), "it is time to write");
    is_int(3, put(1, (BEHIND_WINDOWS - 1) * BEHIND_BLOCKS + 253, 6), "what a window has room for is still taken");
    ok(range_good(1, (BEHIND_WINDOWS - 1) * BEHIND_BLOCKS + 253, 6), "and read, the rest from the file");
    refuse = 3;
    is_int(-EIO, behind_flush(&behind, write_file, NULL), "an error is told");
    is_int(BEHIND_WINDOWS - 2, atomic_load(&behind.used), "what failed stays");
    bool good = true;
    for (uint32_t i = 0; i < BEHIND_WINDOWS + 2; i++)
        good = good && range_good(1, i * BEHIND_BLOCKS, 1);
    ok(good, "and is read");
    is_int(0, behind_flush(&behind, write_file, NULL), "the next time it is written");
    is_int(0, atomic_load(&behind.used), "all of it");
}

/* ---- many at once ---- */

static atomic_uint head[SEGMENTS]; /* blocks below it have been put */
static atomic_bool done, wrong;

static void *writer(void *context) {
    uint32_t segment = (uint32_t)(uintptr_t)context;
    unsigned seed = 7 + segment;
    for (uint32_t at = 0; at + 8 <= BLOCKS;) {
        uint32_t count = 1 + (uint32_t)rand_r(&seed) % 8;
        put(segment, at, count);
        at += count;
        atomic_store(&head[segment], at);
    }
    return NULL;
}

static void *flusher(void *context) {
    (void)context;
    while (!atomic_load(&done))
        if (behind_flush(&behind, write_file, NULL))
            atomic_store(&wrong, true);
    return NULL;
}

static void *reader(void *context) {
    unsigned seed = (unsigned)(uintptr_t)context;
    while (!atomic_load(&done)) {
        uint32_t segment = (uint32_t)rand_r(&seed) % SEGMENTS, all = atomic_load(&head[segment]);
        uint32_t count = 1 + (uint32_t)rand_r(&seed) % 600;
        count = MIN(count, all); /* MIN evaluates its arguments twice */
        /* Mostly where it is being written. */
        uint32_t first = rand_r(&seed) % 4 ? all - count : (uint32_t)rand_r(&seed) % (all - count + 1);
        if (count && !range_good(segment, first, count))
            atomic_store(&wrong, true);
    }
    return NULL;
}

static void test_at_once(void) {
    pthread_t writers[SEGMENTS], others[4];

    memset(files, 0, (size_t)SEGMENTS * BLOCKS * BATON_BLOCK);
    for (uintptr_t i = 0; i < SEGMENTS; i++)
        pthread_create(&writers[i], NULL, writer, (void *)i);
    pthread_create(&others[0], NULL, flusher, NULL);
    pthread_create(&others[1], NULL, flusher, NULL);
    pthread_create(&others[2], NULL, reader, (void *)1);
    pthread_create(&others[3], NULL, reader, (void *)2);
    for (unsigned i = 0; i < SEGMENTS; i++)
        pthread_join(writers[i], NULL);
    atomic_store(&done, true);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(others[i], NULL);
    ok(!atomic_load(&wrong), "two writers, two readers and two that write to the file: every block is read as it was put");
    is_int(0, behind_flush(&behind, write_file, NULL), "the rest is written");
    bool good = true;
    for (uint32_t segment = 0; segment < SEGMENTS; segment++)
        for (uint32_t i = 0; i < atomic_load(&head[segment]) && good; i++)
            good = is_filled(file_block(segment, i), segment, i);
    ok(good, "the files have all of it");
}

int main(void) {
    plan_lazy();
    files = calloc((size_t)SEGMENTS * BLOCKS, BATON_BLOCK);
    if (!files)
        bail("no memory");
    behind_open(&behind);
    test_simple();
    test_full();
    test_at_once();
    behind_close(&behind);
    free(files);
    return 0;
}
