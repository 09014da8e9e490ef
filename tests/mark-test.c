/* A mark and its note outlive the process, for the same incarnation and for no other. */
#include "fs/mark.h"
#include "tests/handmade.h"
#include "tests/tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const uint8_t first[MARK_ID_SIZE] = "first", second[MARK_ID_SIZE] = "second";
static struct stat folder;

static void path_of(char *file, size_t room) {
    snprintf(file, room, "%s/%llx-%llx.mark", getenv("BATON_RUN"), (unsigned long long)folder.st_dev,
             (unsigned long long)folder.st_ino);
}

static struct mark opened(const uint8_t *incarnation, uint64_t lsn) {
    struct mark mark;
    is_int(0, mark_open(&mark, &folder, incarnation, lsn), "opened");
    return mark;
}

static void has_note(const struct mark *mark, const char *text) {
    char found[MARK_NOTE_MAX] = "";
    size_t length = mark_get_note(mark, found, sizeof found);
    is_int((int64_t)strlen(text), (int64_t)length, "the note has %zu bytes", strlen(text));
    ok(memcmp(text, found, strlen(text)) == 0, "\"%s\"", text);
}

/* No descriptor is to be had for it. */
static bool fails;

int __real_mark_open(struct mark *mark, const struct stat *of, const uint8_t incarnation[MARK_ID_SIZE], uint64_t lsn);
int __wrap_mark_open(struct mark *mark, const struct stat *of, const uint8_t incarnation[MARK_ID_SIZE], uint64_t lsn);
int __wrap_mark_open(struct mark *mark, const struct stat *of, const uint8_t incarnation[MARK_ID_SIZE], uint64_t lsn) {
    struct rlimit limit, none;
    PROMISE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = (struct rlimit){fails ? 0 : limit.rlim_cur, limit.rlim_max};
    PROMISE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    int rc = __real_mark_open(mark, of, incarnation, lsn);
    PROMISE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    return rc;
}

/* What is there is not this process's, and is not to be taken for it by the next one. */
static void cannot_be_made(void) {
    uint64_t lsn;
    struct mark mark = opened(second, 5);
    mark_put_note(&mark, "promised", 8);
    mark_close(&mark);
    fails = true;
    is_int(-EMFILE, mark_open(&mark, &folder, second, 6), "it cannot be made");
    fails = false;
    mark_set(&mark, 7);
    mark_close(&mark);
    ok(mark_read(&folder, second, &lsn) < 0, "the one before is gone: nobody says how far this one was");
}

static void store_without(void) {
    uint8_t before[STORE_ID_SIZE], after[STORE_ID_SIZE];
    format_store("store");
    struct store *store = must_open();
    memcpy(before, store_incarnation(store), sizeof before);
    store_put_note(store, "promised", 8);
    store_close(store);
    fails = true;
    store = must_open();
    fails = false;
    memcpy(after, store_incarnation(store), sizeof after);
    ok(memcmp(before, after, sizeof before) != 0, "a store that cannot tell what was noted is another incarnation");
    store_close(store);
    store = must_open();
    ok(memcmp(after, store_incarnation(store), sizeof after) != 0, "and again at its next start, for nobody says how far it was");
    store_close(store);
}

int main(void) {
    plan_lazy();
    char run[1100], file[1200], large[MARK_NOTE_MAX], found[MARK_NOTE_MAX];
    uint64_t lsn = 0;
    snprintf(run, sizeof run, "%s/run", test_directory());
    setenv("BATON_RUN", run, 1);
    if (stat(test_directory(), &folder) < 0)
        bail("no directory");
    ok(mark_read(&folder, first, &lsn) < 0, "there is none");

    struct mark mark = opened(first, 7);
    has_note(&mark, "");
    mark_set(&mark, 9);
    mark_put_note(&mark, "one", 3);
    has_note(&mark, "one");
    mark_put_note(&mark, "another", 7);
    has_note(&mark, "another");
    is_int(0, (int64_t)mark_get_note(&mark, found, 6), "no room for it");
    mark_close(&mark);
    has_note(&mark, "");

    is_int(0, mark_read(&folder, first, &lsn), "the next process finds the mark");
    is_int(9, (int64_t)lsn, "where it was");
    mark = opened(first, 9);
    has_note(&mark, "another");
    memset(large, 'x', sizeof large);
    mark_put_note(&mark, large, sizeof large);
    mark_close(&mark);
    mark = opened(first, 9);
    is_int(sizeof large, (int64_t)mark_get_note(&mark, found, sizeof found), "a long one");
    ok(memcmp(large, found, sizeof large) == 0, "as it was");
    mark_put_note(&mark, NULL, 0);
    mark_close(&mark);
    mark = opened(first, 9);
    has_note(&mark, "");
    mark_put_note(&mark, "last", 4);
    mark_close(&mark);

    ok(mark_read(&folder, second, &lsn) < 0, "for another incarnation there is no mark");
    mark = opened(second, 1);
    has_note(&mark, "");
    mark_put_note(&mark, "its own", 7);
    mark_close(&mark);

    path_of(file, sizeof file);
    is_int(0, truncate(file, 32), "as older programs wrote it");
    is_int(0, mark_read(&folder, second, &lsn), "that is a mark");
    is_int(1, (int64_t)lsn, "where it was");
    mark = opened(second, 2);
    has_note(&mark, "");
    mark_put_note(&mark, "new", 3);
    mark_close(&mark);
    mark = opened(second, 2);
    has_note(&mark, "new");
    mark_close(&mark);
    cannot_be_made();
    store_without();
    return 0;
}
