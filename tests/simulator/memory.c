/* Memory. What fibers allocate comes from one region that is forgotten with the schedule: a node that is killed in
 * mid-air frees nothing. Static variables of the code under test (replicator.c keeps what it retired) would carry over
 * from one schedule to the next, so all of the program's are put back as they were.
 */
#include "tests/simulator/sim.h"
#include "tests/tap.h"

#include <sys/mman.h>

#define REGION (1024ul << 20)
#define CLASSES 24u
#define SMALLEST 32u
#define POISON 0xdd

struct head {
    uint32_t class;
    uint32_t freed;
    struct head *next; /* of the freed ones */
};
_Static_assert(sizeof(struct head) == 16, "blocks are aligned as malloc's are");

struct region {
    uint8_t *top;
    struct head *freed[CLASSES];
    uint8_t *statics;
};
static struct region *region; /* its own first bytes */
static uint8_t *region_end;

extern char __data_start[], _end[]; /* the linker's: variables of the program */

static size_t statics_size(void) {
    return (size_t)(_end - __data_start);
}

void sim_memory_begin(void) {
    if (!region) {
        void *memory = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
            bail("no memory for the simulator");
        region = memory;
        region_end = (uint8_t *)memory + REGION;
        region->statics = (uint8_t *)memory + 4096;
    }
    memset(region->freed, 0, sizeof region->freed);
    region->top = region->statics + (statics_size() + 4095) / 4096 * 4096;
    memcpy(region->statics, __data_start, statics_size());
}

void sim_memory_end(void) {
    memcpy(__data_start, region->statics, statics_size());
}

bool sim_owns(const void *memory) {
    return region && (const uint8_t *)memory > (const uint8_t *)region && (const uint8_t *)memory < region_end;
}

static struct head *head_of(const void *memory) {
    return (struct head *)((uintptr_t)memory - sizeof(struct head));
}

void *sim_alloc(size_t size) {
    uint32_t class = 0;
    while (class < CLASSES && (size_t)SMALLEST << class < size)
        class++;
    if (class == CLASSES)
        sim_fail("%zu bytes were asked for", size);
    struct head *head = region->freed[class];
    size_t room = (size_t)SMALLEST << class;
    if (head) {
        region->freed[class] = head->next;
    } else {
        if (room > 65536) /* powers of two waste too much here */
            room = (size + 4095) / 4096 * 4096;
        head = (struct head *)region->top;
        region->top += sizeof *head + room;
        if (region->top > region_end)
            sim_fail("the schedule's memory is used up");
    }
    head->class = room > 65536 ? CLASSES : class;
    head->freed = 0;
    memset(head + 1, 0, size);
    return head + 1;
}

size_t sim_size(const void *memory) {
    uint32_t class = head_of(memory)->class;
    if (class >= CLASSES)
        sim_fail("realloc of something that large is not played");
    return (size_t)SMALLEST << class;
}

void sim_free(void *memory) {
    struct head *head = head_of(memory);
    if (head->freed)
        sim_fail("something is freed twice");
    head->freed = 1;
    if (head->class >= CLASSES)
        return;
    memset(memory, POISON, MIN((size_t)SMALLEST << head->class, 256u)); /* who still uses it shall notice */
    head->next = region->freed[head->class];
    region->freed[head->class] = head;
}
