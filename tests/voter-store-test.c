/* What a voter has promised survives SIGKILL; a copy of it, and one that was made anew, is another voter; damage is found. */
#include "membership/voter_store.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[300], why[300];
static const uint8_t volume[16] = "volume one", other[16] = "volume two";

static struct voter_store *must_open(const char *directory) {
    struct voter_store *store;
    int rc = voter_store_open(directory, &store, why, sizeof why);
    if (rc)
        bail("voter_store_open: %s", why);
    return store;
}

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...) {
    char command[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    if (system(command) != 0)
        bail("%s", command);
}

static void comes_back(void) {
    struct voter_store *store = must_open(path);
    struct voter_state state, back, second;
    is_int(0, voter_store_load(store, volume, &state, why, sizeof why), "a new state is made");
    ok(state.value.version == 0 && state.promised.counter == 0, "with nothing in it");
    is_int(0, voter_store_load(store, other, &second, why, sizeof why), "so is another volume's");
    ok(memcmp(state.id, second.id, sizeof state.id) != 0, "with another id");
    state.promised = (struct ballot){7, 3};
    state.accepted = (struct ballot){6, 2};
    state.value = (struct register_value){.version = 9, .epoch = EPOCH_MAKE(4, 2), .primary = "b", .member_count = 1, .start_lsn = 77,
                                          .voter_count = REGISTER_VOTERS_MAX};
    strcpy(state.value.members[0].node, "b");
    for (unsigned i = 0; i < REGISTER_VOTERS_MAX; i++) {
        memset(state.value.voters[i].name, 'a' + (int)i, 63);
        memset(state.value.voters[i].id, (int)i, 16);
    }
    state.known = state.value;
    state.known.version = 8;
    is_int(0, voter_store_save(store, volume, &state), "a state is saved");
    struct voter_store *again;
    is_int(-EBUSY, voter_store_open(path, &again, why, sizeof why), "nobody else opens it meanwhile");
    ok(strstr(why, "in use") != NULL, "... with a sentence: %s", why);
    voter_store_close(store);
    store = must_open(path);
    is_int(0, voter_store_load(store, volume, &back, why, sizeof why), "it is read again");
    is_blob(&state, &back, sizeof state, "to the byte");
    is_int(0, voter_store_load(store, other, &back, why, sizeof why), "so is the other one");
    is_blob(&second, &back, sizeof second, "as it was");
    is_int(0, voter_store_forget(store, other), "it is forgotten");
    is_int(0, voter_store_forget(store, other), "which may be said twice");
    is_int(0, voter_store_load(store, other, &back, why, sizeof why), "and made anew");
    ok(memcmp(second.id, back.id, sizeof back.id) != 0, "with another id");
    voter_store_close(store);
}

static void copies_are_others(void) {
    char copy[320];
    struct voter_state state, back;
    struct voter_store *store = must_open(path);
    voter_store_load(store, volume, &state, why, sizeof why);
    voter_store_close(store);
    snprintf(copy, sizeof copy, "%s.copy", path);
    run("cp -a '%s' '%s'", path, copy);
    store = must_open(copy);
    is_int(0, voter_store_load(store, volume, &back, why, sizeof why), "a copy opens");
    ok(memcmp(state.id, back.id, sizeof back.id) != 0 && back.value.version == 0, "as somebody else, who has promised nothing");
    voter_store_close(store);
    snprintf(copy, sizeof copy, "%s.moved", path);
    run("mv '%s' '%s'", path, copy);
    store = must_open(copy);
    voter_store_load(store, volume, &back, why, sizeof why);
    is_blob(&state, &back, sizeof state, "moved, it is the same one");
    voter_store_close(store);
    run("mv '%s' '%s'", copy, path);
}

static void killed(void) {
    uint64_t lost = 0, saved = 0;
    for (unsigned round = 0; round < 20; round++) {
        int pipes[2];
        uint64_t said = 0, one;
        if (pipe(pipes))
            bail("pipe");
        pid_t child = fork();
        if (child == 0) {
            struct voter_store *store = must_open(path);
            struct voter_state state;
            if (voter_store_load(store, volume, &state, why, sizeof why))
                _exit(1);
            for (;;) {
                state.promised.counter++;
                if (voter_store_save(store, volume, &state))
                    _exit(1);
                if (write(pipes[1], &state.promised.counter, sizeof state.promised.counter) < 0)
                    _exit(1);
            }
        }
        close(pipes[1]);
        for (unsigned i = 0; i < 3 + round % 5; i++)
            if (read(pipes[0], &one, sizeof one) == sizeof one)
                said = one;
        kill(child, SIGKILL);
        while (read(pipes[0], &one, sizeof one) == sizeof one)
            said = one;
        close(pipes[0]);
        waitpid(child, NULL, 0);
        struct voter_store *store = must_open(path);
        struct voter_state state;
        voter_store_load(store, volume, &state, why, sizeof why);
        voter_store_close(store);
        lost += state.promised.counter < said || said == 0;
        saved = said;
    }
    is_int(0, (int64_t)lost, "killed 20 times: every promise that was told is there (%llu)", (unsigned long long)saved);
}

/* The bytes of the id, wherever they are: a byte behind them belongs to the same record. */
static void damage(void) {
    struct voter_store *store = must_open(path);
    struct voter_state state;
    char file[320];
    voter_store_load(store, volume, &state, why, sizeof why);
    voter_store_close(store);
    snprintf(file, sizeof file, "%s/data.mdb", path);
    int fd = open(file, O_RDWR);
    static uint8_t bytes[1 << 20];
    ssize_t length = pread(fd, bytes, sizeof bytes, 0);
    unsigned changed = 0;
    for (ssize_t at = 0; at + 40 < length; at++)
        if (memcmp(bytes + at, state.id, sizeof state.id) == 0) {
            bytes[at + 17] ^= 4; /* its promise */
            changed += pwrite(fd, bytes + at + 17, 1, at + 17) == 1;
        }
    close(fd);
    ok(changed > 0, "a promise is damaged on the disk");
    store = must_open(path);
    is_int(-EBADMSG, voter_store_load(store, volume, &state, why, sizeof why), "which is found");
    ok(strstr(why, "damaged") != NULL, "... with a sentence: %s", why);
    is_int(0, voter_store_load(store, other, &state, why, sizeof why), "other volumes' are served");
    voter_store_close(store);
}

/* Whatever the disk makes of it, it opens or is refused with a sentence, and what is read is right or refused. */
static void damaged_files(void) {
    uint64_t seed = test_seed();
    unsigned good = 0, refused = 0, wrong = 0, died = 0;
    char file[320], copy[320];
    static uint8_t bytes[1 << 20];
    snprintf(file, sizeof file, "%s/data.mdb", path);
    snprintf(copy, sizeof copy, "%s.good", path);
    run("cp '%s' '%s'", file, copy);
    for (unsigned round = 0; round < 60; round++) {
        run("cp '%s' '%s'", copy, file);
        int fd = open(file, O_RDWR);
        ssize_t length = pread(fd, bytes, sizeof bytes, 0);
        if (test_random(&seed) % 8 == 0) {
            PROMISE(ftruncate(fd, (off_t)(test_random(&seed) % (uint64_t)length)) == 0);
        } else {
            for (uint64_t i = 1 + test_random(&seed) % 20; i > 0; i--) {
                off_t at = (off_t)(test_random(&seed) % (uint64_t)length);
                if (test_random(&seed) % 2)
                    at = at / 4096 * 4096 + at % 200; /* heads of pages */
                uint8_t byte = (uint8_t)test_random(&seed);
                PROMISE(pwrite(fd, &byte, 1, at) == 1);
            }
        }
        close(fd);
        int how;
        pid_t child = fork();
        if (child == 0) {
            struct voter_store *store;
            struct voter_state state;
            int rc = voter_store_open(path, &store, why, sizeof why);
            if (rc)
                _exit(why[0] ? 1 : 3);
            rc = voter_store_load(store, other, &state, why, sizeof why);
            if (rc == 0)
                rc = voter_store_save(store, volume, &state);
            _exit(rc == 0 ? 0 : 1);
        }
        waitpid(child, &how, 0);
        died += !WIFEXITED(how);
        good += WIFEXITED(how) && WEXITSTATUS(how) == 0;
        refused += WIFEXITED(how) && WEXITSTATUS(how) == 1;
        wrong += WIFEXITED(how) && WEXITSTATUS(how) > 1;
    }
    is_int(0, wrong, "damaged files: each refusal has a sentence");
    is_int(0, died, "nobody dies of them (%u were refused, %u did no harm)", refused, good);
    ok(refused > 0 && good > 0, "some of each");
    run("cp '%s' '%s'", copy, file);
    voter_store_close(must_open(path));
}

int main(void) {
    plan_lazy();
    snprintf(path, sizeof path, "%s/voters", test_directory());
    comes_back();
    copies_are_others();
    killed();
    damage();
    damaged_files();
    return 0;
}
