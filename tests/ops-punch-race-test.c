/* A hole is punched up to a file's end while another write makes the file longer, in the same block: what was written
 * stays. The write comes while the hole's first, partial block is being zeroed. */
#include "tests/disk-fault.h"
#include "tests/fixture.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sys/stat.h>

#define SIZE (40 * BATON_BLOCK + 904) /* more than what stays in memory for a while */

static struct store *store;
static uint64_t ino;
static pthread_t puncher;
static int calls;

/* Reading and zeroing that block, the puncher does not hold the lock. */
static int write_meanwhile(enum disk_call call, const char *path, size_t length) {
    (void)length;
    uint64_t lsn;
    if (call == DISK_SYNC || !strstr(path, "/data/") || !pthread_equal(pthread_self(), puncher) || calls++ > 0)
        return 0;
    if (op_write(store, ino, "written meanwhile", 17, SIZE, 0, &lsn) != 0)
        bail("op_write");
    return 0;
}

static void test(int mode, const char *what) {
    static uint8_t bytes[SIZE], seen[SIZE + BATON_BLOCK], wanted[SIZE + 17];
    uint64_t lsn;
    ino = make(store, ROOT_INO, what, S_IFREG | 0600);
    memset(bytes, 'x', sizeof bytes);
    if (op_write(store, ino, bytes, sizeof bytes, 0, 0, &lsn) != 0)
        bail("op_write");
    if (store_checkpoint(store) != 0) /* so that the block is read from the disk, which is where the write comes in */
        bail("store_checkpoint");
    puncher = pthread_self();
    calls = 0;
    disk_fault_set(write_meanwhile);
    is_int(0, op_fallocate(store, ino, mode, 100, SIZE - 100, &lsn), "%s up to the file's end", what);
    disk_fault_set(NULL);
    ok(calls > 0, "a write came between");
    memset(wanted, 0, sizeof wanted);
    memset(wanted, 'x', 100);
    memcpy(wanted + SIZE, "written meanwhile", 17);
    is_int(sizeof wanted, op_read(store, ino, seen, sizeof seen, 0), "the file is as long as that write made it");
    is_blob(wanted, seen, sizeof wanted, "zeros in the range, and what was written behind it");
}

int main(void) {
    plan_lazy();
    store = fixture_store("store", 1);
    test(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punching");
    test(FALLOC_FL_ZERO_RANGE, "zeroing");
    store_close(store);
    return 0;
}
