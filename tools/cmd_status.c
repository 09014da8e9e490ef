/* baton status: asks the daemon, and answers within a second, whatever hangs. */
#include "fs/control.h"
#include "tools/status_parts.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#define PATIENCE_MS 850
#define EXIT_NOT_RUNNING 3

enum { OPTION_WHY = OPTION_OWN };

/* Everything that can hang (a disk, the daemon) is touched by a thread of its own; the main one waits for it only so
 * long. */
struct inquiry {
    char store[1024];
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool done;
    int error;      /* of connecting or receiving */
    bool formatted; /* there is a store */
    json_t *answer; /* merged lines */
};

static void publish(struct inquiry *inquiry, json_t *line, bool done, int error) {
    pthread_mutex_lock(&inquiry->mutex);
    if (line != NULL && inquiry->answer != NULL)
        json_object_update(inquiry->answer, line);
    else if (line != NULL)
        inquiry->answer = json_incref(line);
    inquiry->error = error;
    inquiry->done = done;
    pthread_cond_signal(&inquiry->changed);
    pthread_mutex_unlock(&inquiry->mutex);
    json_decref(line);
}

static void *inquire(void *argument) {
    struct inquiry *inquiry = argument;
    char path[1100];
    struct stat status;
    int fd, error;

    snprintf(path, sizeof path, "%s/lock", inquiry->store);
    inquiry->formatted = stat(path, &status) == 0;
    error = control_connect(inquiry->store, &fd);
    if (error) {
        publish(inquiry, NULL, true, error);
        return NULL;
    }
    json_t *request = json_pack("{s:s}", "command", "status");
    error = control_request(fd, request);
    json_decref(request);
    for (bool end = false; error == 0 && !end;) {
        json_t *line;
        error = control_receive(fd, &line, 10 * PATIENCE_MS);
        if (error)
            break;
        end = json_is_true(json_object_get(line, "end"));
        publish(inquiry, line, end, 0);
    }
    if (error)
        publish(inquiry, NULL, true, error);
    close(fd);
    return NULL;
}

static void wait_for_answer(struct inquiry *inquiry) {
    struct timespec until;
    pthread_condattr_t attributes;
    pthread_t thread;

    pthread_mutex_init(&inquiry->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&inquiry->changed, &attributes);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PATIENCE_MS * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    if (pthread_create(&thread, NULL, inquire, inquiry) != 0) {
        inquiry->error = -ENOMEM;
        inquiry->done = true;
        pthread_mutex_lock(&inquiry->mutex);
        return;
    }
    pthread_detach(thread);
    pthread_mutex_lock(&inquiry->mutex); /* stays locked: the thread may not change the answer while it is shown */
    while (!inquiry->done && pthread_cond_timedwait(&inquiry->changed, &inquiry->mutex, &until) == 0)
        ;
}

/* ---- for people ---------------------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "?";
}

static uint64_t number_of(const json_t *object, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static void show_bad_blocks(const json_t *bad) {
    const json_t *notes = json_object_get(bad, "unmended_blocks");
    size_t count = json_array_size(notes);
    if (bad == NULL)
        return;
    printf("  bad       %" PRIu64 " block%s on this disk could not be read or failed a checksum, %" PRIu64
           " mended from another node; look at the disk's own report\n",
           number_of(bad, "found"), number_of(bad, "found") == 1 ? "" : "s", number_of(bad, "mended"));
    if (number_of(bad, "unmended") == 0)
        return;
    printf("            %" PRIu64 " not mended: no node gave a good copy; each is tried again when it is read, all by \"baton scrub\"", number_of(bad, "unmended"));
    for (size_t i = 0; i < count; i++) {
        const json_t *note = json_array_get(notes, i);
        printf("%s inode %" PRIu64 " block %" PRIu64, i == 0 ? ":" : ",", number_of(note, "inode"), number_of(note, "block"));
    }
    putchar('\n');
}

/* The newest note; the others are in the file. */
static void show_died(const json_t *died) {
    size_t count = json_array_size(died);
    if (count > 0)
        printf("  died      %s (%zu note%s in the file beside the store, .died; remove it when it has been read)\n",
               json_string_value(json_array_get(died, count - 1)), count, count == 1 ? "" : "s");
}

static void show_state(const json_t *state, bool primary) {
    char age[32], a[32], b[32], c[32], d[32], e[32];
    const json_t *space = json_object_get(state, "space");
    uint64_t lsn = number_of(state, "lsn");

    if (lsn == 0) {
        puts("  history   nothing yet");
    } else {
        age_text(clock_now() - (int64_t)number_of(state, "last_change"), age, sizeof age);
        printf("  history   record %" PRIu64 " of epoch %s, %s ago; on this disk to %" PRIu64 "; journal from %" PRIu64 "\n", lsn,
               text_of(state, "epoch"), age, number_of(state, "durable"), number_of(state, "journal_first"));
    }
    size_t index;
    json_t *tail;
    show_died(json_object_get(state, "died"));
    json_array_foreach (json_object_get(state, "undone"), index, tail) {
        size_text(number_of(tail, "bytes"), a, sizeof a);
        printf("  undone    %s in %s: changes that only this node had; look at them with \"baton journal list --undone\", "
               "then remove the file\n",
               a, text_of(tail, "path"));
    }
    json_array_foreach (json_object_get(state, "aside"), index, tail)
        printf("  aside     an older copy of this store, with changes that only this node had, in the store's folder %s: look at "
               "it with \"baton extract --store\" and \"baton journal list --store\", then remove it\n",
               json_string_value(tail));
    show_bad_blocks(json_object_get(state, "bad_blocks"));
    if (space == NULL)
        return;
    size_text(number_of(space, "free"), a, sizeof a);
    size_text(number_of(space, "total"), b, sizeof b);
    size_text(number_of(space, "live"), c, sizeof c);
    size_text(number_of(space, "kept") + number_of(space, "dead"), d, sizeof d);
    count_text(number_of(space, "inodes"), e, sizeof e);
    printf("  space     %s free of %s; files hold %s, history %s; %s inodes\n", a, b, c, d, e);
    if (number_of(space, "free") == 0)
        printf("  full      %s\n", primary ? "new changes get \"no space left\"; deleting goes on: delete something, or make room on "
                                             "the disk of the store"
                                           : "changes of the primary are taken as long as there is any room: make room on the disk "
                                             "of the store");
}

/* Of a peer that is away: does the journal still have what it lacks? */
static void show_kept(const json_t *peers, const json_t *state) {
    size_t i;
    json_t *peer;
    json_array_foreach(peers, i, peer) {
        uint64_t from = number_of(peer, "lacks_from"), first = number_of(state, "journal_first");
        if (json_object_get(peer, "lacks_from") == NULL || first == 0 || from > number_of(state, "lsn"))
            continue;
        if (first > from)
            printf("  journal   begins at record %" PRIu64 ": what node %s lacks from %" PRIu64 " on was given up, it will be built "
                   "anew ([journal] limit in the config file)\n", first, text_of(peer, "node"), from);
        else
            printf("  journal   is kept for node %s from record %" PRIu64 " on\n", text_of(peer, "node"), from);
    }
}

static void show_catch_up(const json_t *catch_up) {
    char left[32], rate[32], more[32], time[32];
    if (catch_up == NULL)
        return;
    size_text(number_of(catch_up, "bytes_left"), left, sizeof left);
    size_text(number_of(catch_up, "bytes_per_second"), rate, sizeof rate);
    size_text(number_of(catch_up, "new_bytes_per_second"), more, sizeof more);
    printf("            lacks %" PRIu64 " records, about %s; takes %s a second, %s a second are added",
           number_of(catch_up, "records_left"), left, rate, more);
    if (json_object_get(catch_up, "seconds_left") != NULL) {
        age_text((int64_t)number_of(catch_up, "seconds_left") * 1000000000, time, sizeof time);
        printf("; %s left", time);
    } else if (json_is_true(json_object_get(catch_up, "loses_ground"))) {
        fputs("; it does not get nearer", stdout);
    }
    putchar('\n');
}

static void show_slowing(const json_t *slowing) {
    char rate[32], since[32];
    if (slowing == NULL)
        return;
    size_text(number_of(slowing, "bytes_per_second"), rate, sizeof rate);
    age_text((int64_t)number_of(slowing, "since_ms") * 1000000, since, sizeof since);
    bool copies = strcmp(text_of(slowing, "because"), "it copies") == 0;
    printf("  slowing   new work to %s a second, for %s now, because %s%s%s ([catch-up] in the config file)\n", rate, since,
           copies ? "the journal would be at its limit before node " : "node ", text_of(slowing, "for"),
           copies ? " has copied this store" : " would never catch up otherwise");
}

#define OWES_SHOWN_MS 1000

static void show_peer(const json_t *peer, uint64_t protocol) {
    const char *program = json_string_value(json_object_get(peer, "program"));
    const char *why = json_string_value(json_object_get(peer, "why"));
    bool connected = json_is_true(json_object_get(peer, "connected")), in_set = json_is_true(json_object_get(peer, "in_set"));
    char age[32];

    printf("  peer %-4s %s", text_of(peer, "node"),
           connected ? in_set                                     ? "in sync"
                       : json_object_get(peer, "catch_up") != NULL ? "catching up"
                                                                   : "connected, not in sync"
           : in_set ? "away, though in the in-sync set" : "away");
    if (json_object_get(peer, "role") != NULL)
        printf("; %s", text_of(peer, "role"));
    if (json_object_get(peer, "received") != NULL)
        printf("; has %" PRIu64 ", on disk %" PRIu64, number_of(peer, "received"), number_of(peer, "durable"));
    if (number_of(peer, "lag_records") > 0 && json_object_get(peer, "catch_up") == NULL) {
        size_text(number_of(peer, "in_flight_bytes"), age, sizeof age);
        printf("; %" PRIu64 " records (%s) on the way", number_of(peer, "lag_records"), age);
    }
    if (json_object_get(peer, "last_contact_ms") != NULL) {
        age_text((int64_t)number_of(peer, "last_contact_ms") * 1000000, age, sizeof age);
        printf("; heard %s ago", age);
    }
    putchar('\n');
    show_catch_up(json_object_get(peer, "catch_up"));
    if (number_of(peer, "owes_ms") >= OWES_SHOWN_MS) {
        age_text((int64_t)number_of(peer, "owes_ms") * 1000000, age, sizeof age);
        printf("            it lives, and has acknowledged nothing for %s: its disk may hang\n", age);
    }
    if (why != NULL)
        printf("            %s\n", why);
    if (json_object_get(peer, "protocol") != NULL && number_of(peer, "protocol") != protocol)
        printf("            it runs %s%s, with protocol %" PRIu64 "; this node speaks %" PRIu64 "\n",
               program != NULL ? "baton " : "another version of baton", program != NULL ? program : "",
               number_of(peer, "protocol"), protocol);
}

static void show_copy(const json_t *copy) {
    char rows[32], data[32], rate[32], age[32];
    count_text(number_of(copy, "rows"), rows, sizeof rows);
    size_text(number_of(copy, "blocks") * BATON_BLOCK, data, sizeof data);
    size_text(number_of(copy, "bytes_per_second"), rate, sizeof rate);
    age_text((int64_t)number_of(copy, "last_ms") * 1000000, age, sizeof age);
    printf("  feeding   node %s whole, with all that was there at record %" PRIu64 ": %s rows and %s of data so far, %s a "
           "second; it asked %s ago\n",
           text_of(copy, "node"), number_of(copy, "lsn"), rows, data, rate, age);
    if (json_object_get(copy, "journal_bytes") == NULL)
        return;
    size_text(number_of(copy, "journal_bytes"), data, sizeof data);
    size_text(number_of(copy, "journal_limit"), rate, sizeof rate);
    age_text((int64_t)number_of(copy, "seconds_left") * 1000000000, age, sizeof age);
    printf("            it needs %s of the journal until then, which may have %s; about %s left\n", data, rate, age);
}

static void show_synchronization(const json_t *sync) {
    char there[32], all[32], rate[32], left[32];
    size_text(number_of(sync, "bytes"), there, sizeof there);
    size_text(number_of(sync, "bytes_of"), all, sizeof all);
    printf("  building  the store anew from node %s, as it was at record %" PRIu64 ": ", text_of(sync, "from"),
           number_of(sync, "lsn"));
    if (strcmp(text_of(sync, "phase"), "blocks") == 0)
        printf("%s of %s", there, all);
    else if (strcmp(text_of(sync, "phase"), "rows") == 0)
        printf("%" PRIu64 " of about %" PRIu64 " rows", number_of(sync, "rows"), number_of(sync, "rows_of"));
    else
        fputs(text_of(sync, "phase"), stdout);
    if (number_of(sync, "bytes_per_second") > 0) {
        size_text(number_of(sync, "bytes_per_second"), rate, sizeof rate);
        age_text((int64_t)number_of(sync, "seconds_left") * 1000000000, left, sizeof left);
        printf(", %s a second, %s left", rate, left);
    }
    putchar('\n');
    if (number_of(sync, "unreadable_bytes") > 0) {
        size_text(number_of(sync, "unreadable_bytes"), there, sizeof there);
        printf("            %s cannot be read there either\n", there);
    }
    if (json_object_get(sync, "why") != NULL)
        printf("            %s\n", text_of(sync, "why"));
}

/* The last comparison with each node, and one that is running. */
static void show_verify(const json_t *replication) {
    const json_t *verify = json_object_get(replication, "verify"), *now = json_object_get(verify, "now");
    char age[32], rows[32], of[32];
    size_t i;
    json_t *result;

    if (now != NULL) {
        count_text(number_of(now, "rows"), rows, sizeof rows);
        count_text(number_of(now, "rows_of"), of, sizeof of);
        age_text(clock_now() - (int64_t)number_of(now, "begun"), age, sizeof age);
        printf("  comparing with node %s, as it was at record %" PRIu64 ": %s of about %s rows in %s, %" PRIu64 " differences\n",
               text_of(now, "peer"), number_of(now, "lsn"), rows, of, age, number_of(now, "differences"));
    }
    json_array_foreach(json_object_get(verify, "results"), i, result) {
        const char *outcome = text_of(result, "outcome");
        age_text(clock_now() - (int64_t)number_of(result, "ended"), age, sizeof age);
        printf("  compared  with node %s: ", text_of(result, "peer"));
        if (strcmp(outcome, "equal") == 0)
            fputs("equal", stdout);
        else if (strcmp(outcome, "different") == 0)
            printf("%" PRIu64 " DIFFERENCES", number_of(result, "differences"));
        else
            printf("not to the end (%s)", text_of(result, "why"));
        printf(" at record %" PRIu64 ", %s ago%s\n", number_of(result, "lsn"), age,
               strcmp(outcome, "different") == 0 ? "; \"baton verify\" names them" : "");
    }
    json_array_foreach(json_object_get(replication, "compares"), i, result) {
        age_text((int64_t)number_of(result, "last_ms") * 1000000, age, sizeof age);
        printf("  compared  by node %s: the journal is kept from record %" PRIu64 " on for it; it asked %s ago\n",
               text_of(result, "node"), number_of(result, "lsn"), age);
    }
}

static void show_replication(const json_t *replication) {
    const json_t *peers = json_object_get(replication, "peers");
    const char *trouble = json_string_value(json_object_get(replication, "trouble"));
    size_t i;
    json_t *peer;

    if (replication == NULL) {
        puts("  link      none: the volume has one node");
        return;
    }
    printf("  link      %s", text_of(replication, "link"));
    if (strcmp(text_of(replication, "role"), "standby") == 0)
        printf("; primary is %s%s", text_of(json_object_get(replication, "register"), "primary"),
               json_is_true(json_object_get(replication, "in_set")) ? "" : "; this node may not be promoted, it is not in sync");
    putchar('\n');
    status_lease(replication);
    status_takeover(replication);
    json_array_foreach(peers, i, peer)
        show_peer(peer, number_of(replication, "protocol"));
    json_array_foreach(json_object_get(replication, "copies"), i, peer)
        show_copy(peer);
    if (json_object_get(replication, "synchronization") != NULL)
        show_synchronization(json_object_get(replication, "synchronization"));
    show_verify(replication);
    show_slowing(json_object_get(replication, "slowing"));
    if (trouble != NULL)
        printf("  trouble   %s\n", trouble);
}

static void show(const struct tool *tool, const json_t *answer, bool whole) {
    const json_t *state = json_object_get(answer, "state");
    const char *mount = text_of(answer, "mount");

    printf("volume %s, node %s: %s%s\n", text_of(answer, "volume"), text_of(answer, "node"), text_of(answer, "role"),
           json_is_true(json_object_get(answer, "stopping")) ? ", stopping" : "");
    if (*mount == '\0')
        puts("  mount     none");
    else
        printf("  mount     %s%s\n", mount,
               !json_is_true(json_object_get(answer, "mounted"))       ? " (not mounted)"
               : strcmp(text_of(answer, "role"), "primary") == 0 ? ""
                                                                       : " (read-only: this is the standby)");
    status_exports(json_object_get(answer, "exports"));
    show_replication(json_object_get(answer, "replication"));
    if (json_is_object(state)) {
        show_state(state, strcmp(text_of(answer, "role"), "primary") == 0);
        show_kept(json_object_get(json_object_get(answer, "replication"), "peers"), state);
    } else {
        printf("  history   the store in %s does not answer%s; its disk may hang\n", tool->self->store,
               whole ? "" : " yet");
    }
    if (number_of(answer, "waiting") > 0)
        printf("  waiting   %" PRIu64 " operations for the other node or a disk\n", number_of(answer, "waiting"));
    printf("  settings  acknowledge = %s, fsync = %s, transport = %s\n", text_of(answer, "acknowledge"),
           text_of(answer, "fsync"), text_of(answer, "transport"));
}

static int not_running(const struct tool *tool, const struct inquiry *inquiry) {
    if (tool->json) {
        json_t *line = json_pack("{s:s, s:s, s:b, s:s, s:b}", "volume", tool->config.volume, "node", tool->self->name,
                                 "running", 0, "store", tool->self->store, "formatted", inquiry->formatted ? 1 : 0);
        print_json(line);
        json_decref(line);
    } else if (inquiry->formatted) {
        printf("volume %s, node %s: batond does not run here\n  start it  batond --config %s --node %s\n",
               tool->config.volume, tool->self->name, tool->config.path, tool->self->name);
    } else {
        printf("volume %s, node %s: no store here yet\n  make it   baton format --config %s --node %s\n",
               tool->config.volume, tool->self->name, tool->config.path, tool->self->name);
    }
    return EXIT_NOT_RUNNING;
}

static int run(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS, {"why", no_argument, NULL, OPTION_WHY}, {NULL, 0, NULL, 0}};
    static struct inquiry inquiry;
    static struct tool tool;
    bool why = false;
    int option;

    tool.command = &command_status;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_WHY)
            why = true;
        else
            tool_option(&tool, option, optarg);
    }
    if (optind < argc)
        return usage(&command_status, "\"%s\" is too much", argv[optind]);
    if (tool_load(&tool) != 0)
        return EXIT_FAILURE;
    snprintf(inquiry.store, sizeof inquiry.store, "%s", tool.self->store);
    wait_for_answer(&inquiry);
    json_t *answer = inquiry.answer;
    if (answer == NULL && (inquiry.error == -ENOENT || inquiry.error == -ECONNREFUSED))
        return not_running(&tool, &inquiry);
    if (answer == NULL && inquiry.error != 0)
        return fail("batond on node %s cannot be asked: %s", tool.self->name,
                    inquiry.error == -EPIPE ? "it ended the connection" : strerror(-inquiry.error));
    if (answer == NULL)
        return fail("batond on node %s does not answer; its disk or its process hangs (see: ps, dmesg)", tool.self->name);
    if (json_object_get(answer, "error") != NULL)
        return fail("%s", text_of(answer, "error"));
    json_object_del(answer, "end");
    json_object_set_new(answer, "running", json_true());
    if (tool.json)
        print_json(answer);
    else if (why)
        status_why(answer);
    else
        show(&tool, answer, inquiry.done);
    return json_is_object(json_object_get(answer, "state")) ? EXIT_SUCCESS : EXIT_FAILURE;
}

const struct command command_status = {
    "status", "who is primary, is the other node in sync, how far",
    "usage: baton status [--why]\n"
    "\n"
    "Asks batond on this node, and answers within a second even if something hangs.\n"
    "A peer is working (in sync), synchronizing (being fed from here), pending (feeding this node) or failed (lost).\n"
    "\n"
    "  --why           say in words every reason why a node is not primary or not in sync\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     the node; without it the one that has this host's name\n"
    "  --json          print all of it as JSON\n"
    "\n"
    "Exit status: 0 batond answers; 3 it does not run; 1 it or its store hangs, or another failure.\n",
    run};
