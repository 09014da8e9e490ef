/* The table of inodes that the kernel knows: counts, orphans, last changes; compared with a plain array under random
 * use, growing and shrinking. */
#include "fs/nodes.h"
#include "tests/tap.h"

static void test_making(void) {
    struct nodes *nodes = nodes_create();

    ok(!nodes_made_by(nodes, 7, 100), "nobody makes a file");
    nodes_made(nodes, 7, 100);
    ok(nodes_made_by(nodes, 7, 100), "its maker does");
    ok(!nodes_made_by(nodes, 7, 101), "and nobody else");
    ok(!nodes_made_by(nodes, 8, 100), "no other file");
    nodes_closed(nodes, 7 + 256);
    ok(nodes_made_by(nodes, 7, 100), "another file's close does not end it");
    nodes_closed(nodes, 7);
    ok(!nodes_made_by(nodes, 7, 100), "its own does");
    nodes_made(nodes, 9, 0);
    ok(!nodes_made_by(nodes, 9, 0), "a maker without a number is nobody");
    nodes_made(nodes, 7, 100);
    nodes_made(nodes, 7 + 256, 100);
    ok(!nodes_made_by(nodes, 7, 100) && nodes_made_by(nodes, 7 + 256, 100), "the table may forget, but does not mix up");
    nodes_free(nodes);
}

static void test_counts(void) {
    struct nodes *nodes = nodes_create();

    ok(nodes_known(nodes, 1), "the root is known");
    ok(!nodes_forget(nodes, 1, 1), "and stays");
    ok(nodes_known(nodes, 1), "even when it is forgotten");
    nodes_look(nodes, 7);
    nodes_look(nodes, 7);
    ok(!nodes_orphan(nodes, 7), "an orphan in use is not to be reclaimed");
    ok(!nodes_forget(nodes, 7, 1), "nor after the first of two forgets");
    ok(nodes_forget(nodes, 7, 1), "but after the last");
    ok(nodes_orphan(nodes, 7), "an orphan that nobody uses is to be reclaimed at once");
    nodes_look(nodes, 8);
    nodes_orphan(nodes, 8);
    nodes_adopt(nodes, 8);
    ok(!nodes_forget(nodes, 8, 1), "one that got a name is no orphan");
    ok(!nodes_forget(nodes, 9, 3), "more forgets than lookups are survived");

    nodes_look(nodes, 10);
    nodes_change(nodes, 10, 55);
    is_int(55, nodes_changed(nodes, 10), "the last change is remembered");
    nodes_forget(nodes, 10, 1);
    nodes_look(nodes, 10);
    ok(nodes_changed(nodes, 10) >= 55, "also when the inode was forgotten and looked up again");
    nodes_restart(nodes, 90);
    is_int(90, nodes_changed(nodes, 10), "all may be said to have changed");
    is_int(90, nodes_changed(nodes, 4711), "also those that are not known");
    nodes_look(nodes, 11);
    nodes_change(nodes, 11, 99);
    nodes_forget(nodes, 11, 1);
    nodes_change(nodes, 10, 99);
    nodes_restart(nodes, 80);
    is_int(80, nodes_changed(nodes, 10), "records that have been undone changed nothing");
    is_int(80, nodes_changed(nodes, 11), "nor do they stay for those that are not known");

    nodes_change(nodes, 10, 85);
    nodes_change(nodes, 11, 95);
    nodes_look(nodes, 12);
    nodes_change(nodes, 12, 99);
    nodes_look(nodes, 11);
    nodes_change(nodes, 11, 95);
    nodes_doubt(nodes, 95, 90, 2);
    ok(!nodes_doubtful(nodes, 10, 2, true), "what is on all disks at the end of a term is safe");
    ok(nodes_doubtful(nodes, 11, 2, true), "what is in all memories is not on all disks");
    ok(!nodes_doubtful(nodes, 11, 2, false), "but not lost");
    ok(nodes_doubtful(nodes, 12, 2, false), "what nobody else has may be lost");
    ok(nodes_doubtful(nodes, 12, 1, true), "for files opened earlier, too");
    ok(!nodes_doubtful(nodes, 12, 3, true), "files opened later are not concerned");
    nodes_restart(nodes, 80);
    ok(nodes_doubtful(nodes, 12, 2, true), "the next term does not make it good");
    nodes_change(nodes, 10, 90);

    ok(nodes_first_read(nodes, 10), "a first read");
    ok(!nodes_first_read(nodes, 10), "is the first only once");
    nodes_change(nodes, 10, 91);
    ok(nodes_first_read(nodes, 10), "and again after a change");
    nodes_free(nodes);
}

enum { INODES = 40000, STEPS = 600000 };

static void test_many(void) {
    static uint32_t lookups[INODES];
    static bool orphan[INODES];
    uint64_t random = test_seed();
    struct nodes *nodes = nodes_create();
    unsigned wrong = 0;

    for (unsigned step = 0; step < STEPS; step++) {
        uint64_t choice = test_random(&random);
        uint32_t i = (uint32_t)(choice >> 8) % INODES;
        uint64_t ino = (UINT64_C(3) << 41) + 2 * i;
        /* Waves: first more come than go, then more go. */
        bool grow = (choice & 7) < ((step / (STEPS / 4)) % 2 ? 2u : 6u);
        if (grow) {
            nodes_look(nodes, ino);
            lookups[i]++;
        } else if (lookups[i] > 0) {
            uint32_t count = (choice & 128) ? lookups[i] : 1;
            lookups[i] -= count;
            wrong += nodes_forget(nodes, ino, count) != (lookups[i] == 0 && orphan[i]);
            if (lookups[i] == 0)
                orphan[i] = false;
        } else {
            wrong += !nodes_orphan(nodes, ino);
        }
        if (lookups[i] > 0 && (choice & 64)) {
            orphan[i] = true;
            wrong += nodes_orphan(nodes, ino);
        }
    }
    is_int(0, wrong, "random use agrees with a plain array");
    int64_t known = 1, listed;
    for (unsigned i = 0; i < INODES; i++) {
        known += lookups[i] > 0;
        wrong += nodes_known(nodes, (UINT64_C(3) << 41) + 2 * i) != (lookups[i] > 0);
    }
    is_int(0, wrong, "the same inodes are known");
    free(nodes_list(nodes, &listed));
    is_int(known, listed, "and listed");
    nodes_free(nodes);
}

int main(void) {
    plan_lazy();
    test_making();
    test_counts();
    test_many();
    return 0;
}
