#include "tests/rig.h"

#include "fs/config.h"
#include "fs/store.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

static pid_t daemon_pid, owner;
static char config_path[600], mount_path[600];

pid_t rig_pid(void) {
    return daemon_pid;
}

static const char *join(const char *a, const char *b, const char *c) {
    static _Thread_local char buffers[16][1200];
    static _Thread_local unsigned next;
    char *to = buffers[next++ % 16];
    snprintf(to, sizeof buffers[0], "%s/%s%s", a, b, c);
    return to;
}

const char *rig_outside(const char *name) {
    return join(test_directory(), "", name);
}

const char *rig_path(const char *name) {
    return join(test_directory(), RIG_MOUNT "/", name);
}

static void rig_end(void) {
    if (getpid() != owner)
        return;
    if (daemon_pid > 0)
        rig_stop(SIGKILL);
    while (umount2(rig_outside(RIG_MOUNT), MNT_DETACH) == 0)
        ;
}

/* At a signal: no lock, no memory, no log. */
static void rig_end_now(void) {
    if (daemon_pid > 0 && kill(daemon_pid, SIGKILL) == 0)
        waitpid(daemon_pid, NULL, 0);
    while (umount2(mount_path, MNT_DETACH) == 0)
        ;
}

void rig_settings(const char *settings) {
    FILE *file = fopen(config_path, "we");
    if (!file)
        bail("cannot write %s: %s", config_path, strerror(errno));
    const char *loop = strstr(settings, "request-loop") ? NULL : getenv("RIG_REQUEST_LOOP");
    fprintf(file,
            "[volume]\nname = rig\nid = 0123456789abcdef0123456789abcdef\ncreated = 1700000000000000000\n"
            "transport = clear\n%s\n%s%s\n"
            "[node a]\naddress = tcp://127.0.0.1:7397\npublic-key = aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
            "store = %s\nmount = %s\n",
            settings, loop ? "request-loop = " : "", loop ? loop : "", rig_outside(RIG_STORE), rig_outside(RIG_MOUNT));
    fclose(file);
}

void rig_create(const char *settings) {
    static struct config config;
    struct store_options options = {0};
    char why[1024];

    if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0)
        skip_all("needs root and /dev/fuse");
    test_directory(); /* its own exit handler comes first, so runs last */
    owner = getpid();
    atexit(rig_end);
    snprintf(mount_path, sizeof mount_path, "%s", rig_outside(RIG_MOUNT));
    test_at_signal(rig_end_now);
    snprintf(config_path, sizeof config_path, "%s/volume.conf", test_directory());
    if (mkdir(rig_outside(RIG_MOUNT), 0755) < 0)
        bail("cannot set up %s: %s", test_directory(), strerror(errno));
    rig_settings(settings);
    if (config_load(config_path, &config, why, sizeof why) ||
        store_format(config.nodes[0].store, config.volume_id, config.volume, config.created, &options, why, sizeof why))
        bail("%s", why);
}

bool rig_has_rings(void) {
    char state = 'N';
    int fd = open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, &state, 1) != 1)
        state = 'N';
    if (fd >= 0)
        close(fd);
    return state == 'Y';
}

/* The child's side of rig_start. */
static void exec_batond(char **arguments, int output) {
    const char *build = getenv("BATON_BUILD");
    int log = open(rig_outside("log"), O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(output, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    arguments[0] = (char *)join(build ? build : ".", "", "batond");
    execv(arguments[0], arguments);
    _exit(127);
}

enum { SHOWN = 40 };
static void show_log(void) { /* its end */
    FILE *file = fopen(rig_outside("log"), "re");
    char lines[SHOWN][512];
    unsigned count = 0;

    while (file && fgets(lines[count % SHOWN], sizeof lines[0], file)) {
        lines[count % SHOWN][strcspn(lines[count % SHOWN], "\n")] = 0;
        count++;
    }
    for (unsigned i = count > SHOWN ? count - SHOWN : 0; i < count; i++)
        diag("log: %s", lines[i % SHOWN]);
    if (file)
        fclose(file);
}

bool rig_start(const char *options) {
    char *arguments[16] = {NULL, (char *)"--config", config_path, (char *)"--node", (char *)"a", (char *)"--no-supervisor"};
    int ends[2], used = 6;
    char said[64] = "", words[2048], *rest = words;

    snprintf(words, sizeof words, "%s", options);
    for (char *word; used < 15 && (word = strsep(&rest, " "));)
        if (*word)
            arguments[used++] = word;
    if (pipe2(ends, O_CLOEXEC) < 0)
        bail("pipe: %s", strerror(errno));
    daemon_pid = fork();
    if (daemon_pid == 0)
        exec_batond(arguments, ends[1]);
    close(ends[1]);
    struct pollfd output = {.fd = ends[0], .events = POLLIN};
    ssize_t length = poll(&output, 1, 60000) > 0 ? read(ends[0], said, sizeof said - 1) : 0;
    close(ends[0]);
    if (length > 0 && strncmp(said, "ready", 5) == 0)
        return true;
    rig_stop(SIGKILL);
    show_log();
    return false;
}

int rig_stop(int signal_number) {
    int status = 0;

    if (daemon_pid <= 0)
        return -1;
    kill(daemon_pid, signal_number);
    if (signal_number != SIGKILL && !rig_ended(30000, &status)) {
        show_log();
        diag("batond did not end at signal %d", signal_number);
        signal_number = SIGKILL;
        kill(daemon_pid, SIGKILL);
    }
    if (daemon_pid > 0 && waitpid(daemon_pid, &status, 0) == daemon_pid)
        daemon_pid = 0;
    if (status != 0 && signal_number != SIGKILL)
        show_log();
    return status;
}

bool rig_ended(int timeout_ms, int *status) {
    for (int waited = 0; waited <= timeout_ms; waited += 20) {
        if (waitpid(daemon_pid, status, WNOHANG) == daemon_pid) {
            daemon_pid = 0;
            return true;
        }
        usleep(20000);
    }
    return false;
}

void rig_drop_caches(void) {
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "3", 1) != 1)
        diag("caches cannot be dropped: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

bool rig_logged(const char *text) {
    FILE *file = fopen(rig_outside("log"), "re");
    char line[2048];
    bool found = false;

    while (file && !found && fgets(line, sizeof line, file))
        found = strstr(line, text) != NULL;
    if (file)
        fclose(file);
    return found;
}

bool rig_until(int seconds, bool (*condition)(void *context), void *context) {
    int64_t until = clock_boot() + seconds * INT64_C(1000000000);
    while (!condition(context)) {
        if (clock_boot() > until)
            return false;
        usleep(20000);
    }
    return true;
}
