/* The voters of a process and their disk: nothing is promised that it does not have, whatever fails, hangs or is killed; and
 * a lease is renewed meanwhile. */
#include "membership/voter_desk.h"
#include "tests/asking.h"
#include "tests/disk-fault.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define S INT64_C(1000000000)
#define ROUNDS 12u
#define TOGETHER 24u

static struct cast cast;
static char path[400];

static void use_directory(const char *name) {
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
}

static struct ask_answer ask(struct caller *caller, struct ask_question question) {
    struct ask_answer answer;
    caller_ask(caller, &question, &answer);
    return answer;
}

static bool says(const struct ask_answer *answer, enum voter_verdict verdict) {
    return answer->status == ASK_ANSWERED && answer->answer.verdict == verdict;
}

/* ---- A disk that fails and hangs ---- */

static atomic_int fails_with;
static atomic_bool hangs;
static atomic_uint syncs, hung;

static int fault(enum disk_call call, const char *file, size_t length) {
    (void)length;
    if (call == DISK_READ || strncmp(file, path, strlen(path)) != 0)
        return 0;
    if (call == DISK_SYNC)
        atomic_fetch_add(&syncs, 1);
    if (atomic_load(&hangs)) {
        atomic_fetch_add(&hung, 1);
        while (atomic_load(&hangs))
            usleep(1000);
    }
    return atomic_load(&fails_with);
}

static bool wait_for(atomic_uint *count, unsigned than) {
    for (int64_t until = clock_boot() + 60 * S; clock_boot() < until; usleep(1000))
        if (atomic_load(count) > than)
            return true;
    return false;
}

/* ---- Killed ---- */

static pid_t serve_in_child(void) {
    int ends[2];
    char byte;
    if (pipe(ends))
        bail("pipe");
    pid_t child = fork();
    if (child == 0) {
        struct voter_host *host = host_must_open(&cast, path);
        host_must_serve(host, &cast, NULL);
        if (write(ends[1], "r", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 1)
        bail("the child did not start");
    close(ends[0]);
    return child;
}

static void kill_child(pid_t child) {
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static struct voter_state state_on_disk(void) {
    struct voter_store *store;
    struct voter_state state;
    char why[300];
    if (voter_store_open(path, &store, why, sizeof why) ||
        voter_store_load(store, cast.config.volume_id, &state, why, sizeof why))
        bail("%s", why);
    voter_store_close(store);
    return state;
}

static void killed(void) {
    unsigned lost = 0, other_id = 0, answered = 0;
    uint8_t id[16];
    use_directory("killed");
    for (unsigned round = 1; round <= ROUNDS; round++) {
        struct register_value value = value_of(&cast, round, "a", 1);
        bool accepts = round % 2 == 0;
        pid_t child = serve_in_child();
        struct caller *a = caller_of(&cast, 0);
        struct ask_answer answer = ask(a, accepts ? accept_of(&cast, "a", round, &value) : prepare_of(&cast, "a", round));
        kill_child(child);
        caller_hang_up(a);
        answered += says(&answer, VOTER_YES);
        struct voter_state state = state_on_disk();
        lost += state.promised.counter != round || (accepts && (state.accepted.counter != round || state.value.version != round));
        if (round == 1)
            memcpy(id, answer.answer.id, sizeof id);
        other_id += memcmp(id, answer.answer.id, sizeof id) != 0 || memcmp(id, state.id, sizeof id) != 0;
    }
    is_int(ROUNDS, answered, "a voter that is killed after each answer answers");
    is_int(0, lost, "and what it answered is on the disk");
    is_int(0, other_id, "under the same id");
    pid_t child = serve_in_child();
    struct caller *b = caller_of(&cast, 1);
    struct ask_answer answer = ask(b, question_of(&cast, "b", ASK_QUERY));
    ok(says(&answer, VOTER_QUIET) && answer.answer.wait > 0, "after a start it keeps silent towards others");
    kill_child(child);
    char command[1000];
    snprintf(command, sizeof command, "rm -r '%s'", path);
    PROMISE(system(command) == 0);
    child = serve_in_child();
    answer = ask(b, question_of(&cast, "b", ASK_QUERY));
    ok(memcmp(id, answer.answer.id, sizeof id) != 0 && answer.answer.value.version == 0, "without its directory it is another one");
    kill_child(child);
    caller_hang_up(b);
}

/* ---- Silence after a start ---- */

static void quiet_for_the_longest_lease(void) {
    struct voter_host_view view;
    use_directory("quiet");
    cast.config.lease_ms = 60000;
    struct voter_host *host = host_must_open(&cast, path);
    host_must_serve(host, &cast, NULL);
    struct caller *a = caller_of(&cast, 0);
    struct register_value value = value_of(&cast, 1, "a", 1);
    struct ask_answer answer = ask(a, accept_of(&cast, "a", 1, &value));
    answer = ask(a, renew_of(&cast, &value, 3));
    ok(says(&answer, VOTER_YES), "a lease of a minute is granted");
    voter_host_close(host);
    cast.config.lease_ms = 500;
    host = host_must_open(&cast, path);
    host_must_serve(host, &cast, NULL);
    voter_host_view(host, &view, 1);
    ok(view.lease == S / 2 && view.quiet_left > 50 * S, "started with a shorter one, it is silent for as long as that may last");
    answer = ask(a, renew_of(&cast, &value, 3));
    voter_host_view(host, &view, 1);
    ok(says(&answer, VOTER_YES) && view.grant_left < 2 * S, "it grants the shorter one to the holder that it knows");
    answer = ask(a, release_of(&cast, &value, 3));
    voter_host_view(host, &view, 1);
    ok(says(&answer, VOTER_YES) && view.quiet_left == 0, "and is silent no more when that gives it back");
    voter_host_close(host);
    caller_hang_up(a);
    cast.config.lease_ms = 2000;
}

/* ---- Full, and failing ---- */

static void failing(int error) {
    use_directory(error == ENOSPC ? "full" : "failing");
    struct voter_host *host = host_must_open(&cast, path);
    host_must_serve(host, &cast, NULL);
    struct caller *a = caller_of(&cast, 0), *b = caller_of(&cast, 1);
    struct register_value first = value_of(&cast, 1, "a", 1), set = value_of(&cast, 2, "a", 1), other = value_of(&cast, 3, "b", 2);
    struct voter_host_view view;
    ask(a, prepare_of(&cast, "a", 1));
    ask(a, accept_of(&cast, "a", 1, &first));
    struct ask_answer answer = ask(a, renew_of(&cast, &first, 7));
    ok(says(&answer, VOTER_YES), "a holds the lease");
    set.member_count = 1;
    atomic_store(&fails_with, error);
    answer = ask(a, prepare_of(&cast, "a", 2));
    ok(answer.status == ASK_FAILED && answer.why[0], "%s: a prepare fails: %s", strerror(error), answer.why);
    answer = ask(a, accept_of(&cast, "a", 2, &set));
    is_int(ASK_FAILED, answer.status, "so does an accept");
    answer = ask(a, question_of(&cast, "a", ASK_QUERY));
    ok(says(&answer, VOTER_YES) && answer.answer.value.version == 1 && answer.answer.accepted.counter == 1, "nothing has been accepted");
    answer = ask(a, renew_of(&cast, &first, 7));
    ok(says(&answer, VOTER_YES), "but whoever it is, the holder is a: its lease goes on");
    voter_host_view(host, &view, 1);
    ok(view.failed >= 2 && view.why[0] && view.version == 1, "status says why: %s", view.why);
    /* Now the disk may come to name b: nobody knows. */
    answer = ask(a, accept_of(&cast, "a", 3, &other));
    is_int(ASK_FAILED, answer.status, "a's handover fails");
    answer = ask(a, renew_of(&cast, &first, 7));
    is_int(ASK_FAILED, answer.status, "now nobody's lease is renewed here");
    answer = ask(b, renew_of(&cast, &other, 8));
    ok(!says(&answer, VOTER_YES), "b's neither");
    atomic_store(&fails_with, 0);
    unsigned tries = 0;
    do
        answer = ask(a, renew_of(&cast, &first, 7));
    while (!says(&answer, VOTER_YES) && ++tries < 600 && usleep(100000) == 0);
    ok(says(&answer, VOTER_YES), "when it can be written again, it decides by itself who it was");
    answer = ask(a, accept_of(&cast, "a", 4, &other));
    ok(says(&answer, VOTER_YES), "and accepts");
    voter_host_view(host, &view, 1);
    ok(!view.why[0] && view.version == 3 && strcmp(view.primary, "b") == 0, "as status says");
    voter_host_close(host);
    struct voter_state state = state_on_disk();
    ok(state.value.version == 3 && state.accepted.counter == 4 && state.promised.counter == 4, "it is on the disk");
    caller_hang_up(a);
    caller_hang_up(b);
}

static void nothing_is_promised_when_failing(void) {
    struct caller *a = caller_of(&cast, 0);
    char why[300];
    struct voter_store *store;
    use_directory("promises");
    struct voter_host *host = host_must_open(&cast, path);
    host_must_serve(host, &cast, NULL);
    ask(a, prepare_of(&cast, "a", 3));
    atomic_store(&fails_with, EIO);
    struct ask_answer answer = ask(a, prepare_of(&cast, "a", 50));
    is_int(ASK_FAILED, answer.status, "a promise that cannot be written is none");
    atomic_store(&fails_with, 0);
    answer = ask(a, prepare_of(&cast, "a", 40));
    ok(says(&answer, VOTER_YES) && answer.answer.promised.counter == 40, "a lower ballot may come afterwards");
    atomic_store(&fails_with, ENOSPC);
    struct cast second = cast;
    second.config.volume_id[0] ^= 0xff;
    ok(voter_host_serve(host, &second.config, "witness", NULL, why, sizeof why) < 0 && strstr(why, cast.config.volume),
       "another volume cannot be served meanwhile: %s", why);
    is_int(-EBUSY, voter_store_open(path, &store, why, sizeof why), "its directory is its own all the time");
    atomic_store(&fails_with, 0);
    is_int(0, voter_host_serve(host, &second.config, "witness", NULL, why, sizeof why), "afterwards it can");
    voter_host_close(host);
    caller_hang_up(a);
}

/* ---- Hanging ---- */

static void hanging(void) {
    use_directory("hanging");
    struct voter_host *host = host_must_open(&cast, path);
    host_must_serve(host, &cast, NULL);
    struct caller *a = caller_of(&cast, 0), *b = caller_of(&cast, 1), *also_a = caller_of(&cast, 0);
    struct register_value first = value_of(&cast, 1, "a", 1), set = value_of(&cast, 2, "a", 1), other = value_of(&cast, 3, "b", 2);
    uint8_t bytes[ASK_BYTES];
    ask(a, prepare_of(&cast, "a", 1));
    ask(a, accept_of(&cast, "a", 1, &first));
    ask(also_a, renew_of(&cast, &first, 7));
    set.member_count = 1;
    struct ask_question accept = accept_of(&cast, "a", 2, &set);
    atomic_store(&hangs, true);
    caller_send(a, bytes, ask_encode_question(&accept, bytes), false);
    ok(wait_for(&hung, 0), "the disk hangs while a value is saved");
    struct ask_answer answer;
    unsigned yes = 0;
    for (unsigned i = 0; i < 50; i++) {
        answer = ask(also_a, renew_of(&cast, &first, 7));
        yes += says(&answer, VOTER_YES) && answer.answer.value.version == 1;
    }
    is_int(50, yes, "renewals are answered, with what the disk has");
    answer = ask(b, question_of(&cast, "b", ASK_QUERY));
    ok(says(&answer, VOTER_HELD) && answer.answer.value.version == 1, "so are queries");
    is_int(-ETIMEDOUT, caller_await(a, &accept, &answer, 300), "the accept is not");
    struct ask_question handover = accept_of(&cast, "a", 3, &other);
    caller_send(a, bytes, ask_encode_question(&handover, bytes), false);
    do
        answer = ask(also_a, renew_of(&cast, &first, 7));
    while (says(&answer, VOTER_YES)); /* until the accept has arrived */
    ok(says(&answer, VOTER_STALE) && answer.answer.value.version == 1, "after a handover that waits, a's lease is over");
    struct ask_question renew = renew_of(&cast, &other, 8);
    caller_send(b, bytes, ask_encode_question(&renew, bytes), false);
    is_int(-ETIMEDOUT, caller_await(b, &renew, &answer, 300), "b's is not granted before the disk names it");
    unsigned sent = 0;
    for (; sent < 500; sent++) {
        struct ask_question more = question_of(&cast, "a", ASK_LEARN);
        more.value = first;
        caller_send(a, bytes, ask_encode_question(&more, bytes), false);
    }
    struct voter_host_counts counts = {0};
    for (int64_t until = clock_boot() + 60 * S; counts.dropped == 0 && clock_boot() < until; usleep(1000))
        voter_host_counts(host, &counts);
    ok(counts.dropped > 0, "so many wait for the disk, no more");
    atomic_store(&hangs, false);
    is_int(0, caller_await(a, &accept, &answer, 60000), "when the disk goes on, the first accept is answered");
    ok(says(&answer, VOTER_YES) && answer.answer.value.version == 2, "as it was decided");
    is_int(0, caller_await(a, &handover, &answer, 60000), "then the handover");
    ok(says(&answer, VOTER_YES), "with yes");
    is_int(0, caller_await(b, &renew, &answer, 60000), "and b's renewal");
    ok(says(&answer, VOTER_YES) && answer.answer.value.version == 3, "with yes");
    voter_host_close(host);
    caller_hang_up(a);
    caller_hang_up(also_a);
    caller_hang_up(b);
}

/* ---- The config changes while answers wait ---- */

static unsigned lists_of(struct desk_waiting *waiting) {
    unsigned count = 0;
    for (struct desk_waiting *next; waiting; waiting = next, count++) {
        next = waiting->next;
        free(waiting);
    }
    return count;
}

static unsigned prepares_that_wait(struct desk *desk, const char *from, uint64_t *ballot) {
    struct ask_answer answer;
    struct desk_reply reply = {0};
    unsigned count = 0;
    for (;; count++) {
        struct ask_question question = prepare_of(&cast, from, ++*ballot);
        if (desk_ask(desk, &question, NULL, &reply, &answer) != DESK_LATER || count == 100)
            return count;
    }
}

static void nodes_change_places(void) {
    static struct cast other;
    static struct desk_batch batch;
    struct desk *desk = desk_open(TRANSPORT_CURVE, -1);
    struct voter_state state = {.id = "an id", .lease_ms = cast.config.lease_ms};
    char why[300];
    uint64_t ballot = 0;
    is_int(0, desk_serve(desk, &cast.config, "witness", NULL, &state, why, sizeof why), "a volume is served");
    unsigned most = prepares_that_wait(desk, "a", &ballot);
    ok(most > 1 && most < 100, "%u answers of a node wait for the disk", most);
    other = cast;
    other.config.nodes[0] = cast.config.nodes[1];
    other.config.nodes[1] = cast.config.nodes[0];
    is_int(0, desk_serve(desk, &other.config, "witness", NULL, &state, why, sizeof why), "the nodes change their places in the file");
    is_int(0, prepares_that_wait(desk, "a", &ballot), "no more of it");
    is_int(most, prepares_that_wait(desk, "b", &ballot), "but as many of the other");
    other.config.node_count = 1; /* b alone */
    is_int(0, desk_serve(desk, &other.config, "witness", NULL, &state, why, sizeof why), "one of them goes");
    desk_take(desk, &batch);
    is_int(1, batch.count, "its voter is saved");
    is_int(2 * most, lists_of(desk_saved(desk, &batch, 0)), "all of them are answered");
    is_int(most, prepares_that_wait(desk, "b", &ballot), "then there is room again");
    is_int(0, desk_serve(desk, &cast.config, "witness", NULL, &state, why, sizeof why), "the other one comes back");
    is_int(most, prepares_that_wait(desk, "a", &ballot), "and has room, too");
    is_int(2 * most, lists_of(desk_close(desk)), "those who wait at the end are told");
}

/* ---- Together ---- */

static uint64_t asked_of_all(struct voter_host *host) {
    static struct voter_host_view views[TOGETHER];
    uint64_t asked = 0;
    unsigned count = voter_host_view(host, views, TOGETHER);
    for (unsigned i = 0; i < count; i++)
        asked += views[i].asked;
    return asked;
}

static void saved_together(void) {
    static struct cast each;
    uint8_t bytes[ASK_BYTES];
    use_directory("together");
    struct voter_host *host = host_must_open(&cast, path);
    each = cast;
    for (unsigned i = 0; i < TOGETHER; i++) {
        each.config.volume_id[3] = (uint8_t)(i + 1);
        host_must_serve(host, &each, NULL);
    }
    struct caller *a = caller_of(&cast, 0);
    struct ask_answer answer = ask(a, question_of(&each, "a", ASK_QUERY));
    uint64_t asked_before = asked_of_all(host);
    unsigned hung_before = atomic_load(&hung);
    atomic_store(&hangs, true);
    for (unsigned i = 0; i < TOGETHER; i++) {
        each.config.volume_id[3] = (uint8_t)(i + 1);
        struct ask_question question = prepare_of(&each, "a", 1);
        caller_send(a, bytes, ask_encode_question(&question, bytes), false);
    }
    ok(wait_for(&hung, hung_before), "a save hangs");
    int64_t until = clock_boot() + 60 * S;
    while (asked_of_all(host) < asked_before + TOGETHER && clock_boot() < until)
        usleep(1000);
    ok(asked_of_all(host) >= asked_before + TOGETHER, "meanwhile %u volumes have promised something", TOGETHER);
    unsigned before = atomic_load(&syncs);
    atomic_store(&hangs, false);
    unsigned yes = 0;
    while (yes < TOGETHER && caller_receive(a, &answer, 60000) == 0)
        yes += says(&answer, VOTER_YES);
    is_int(TOGETHER, yes, "all are answered");
    ok(atomic_load(&syncs) - before <= 4, "after %u flushes", atomic_load(&syncs) - before);
    voter_host_close(host);
    caller_hang_up(a);
}

int main(void) {
    plan_lazy();
    cast_make(&cast, 1, TRANSPORT_CURVE);
    killed(); /* before there are threads */
    disk_fault_set(fault);
    quiet_for_the_longest_lease();
    failing(ENOSPC);
    failing(EIO);
    nothing_is_promised_when_failing();
    hanging();
    nodes_change_places();
    saved_together();
    return 0;
}
