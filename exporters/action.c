#include <config.h>
#include "exporters/action.h"

#include "fs/text.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MS INT64_C(1000000)
#define LINE_MAX_SHOWN 400u
#define LINES_SHOWN 200u /* of one call */
#define REST_MAX 256u    /* reads of what is left in the pipe at its end: 64 KiB, and more than that */
#define VARIABLES 48u
#define LOOK_MS 100 /* where there is no wake */
#define OWN_FOLDER "/etc/baton/exporters"

extern char **environ;

const char *action_name(const struct action *action) {
    const char *slash = action->program ? strrchr(action->program, '/') : NULL;
    return action->program ? (slash ? slash + 1 : action->program) : action->export ? action->export->name : "vip";
}

int action_find(const char *type, char *path, size_t room) {
    const char *given = getenv("BATON_EXPORTERS");
    const char *const folders[] = {given && given[0] ? given : OWN_FOLDER, BATON_LIBEXEC "/exporters"};
    for (unsigned i = 0; i < 2; i++) {
        int length = snprintf(path, room, "%s/%s", folders[i], type);
        if (length <= 0 || (size_t)length >= room || access(path, F_OK) != 0)
            continue;
        return access(path, X_OK) == 0 ? 0 : -EACCES; /* a person's own, half made: never another one of that name instead */
    }
    return -ENOENT;
}

/* ---- What it is told ------------------------------------------------------------------------------------------------- */

struct variables {
    char *all[VARIABLES + CONFIG_NODES_MAX + 32];
    unsigned count;
    bool full;
};

static void set(struct variables *variables, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void set(struct variables *variables, const char *format, ...) {
    va_list arguments;
    char *text = NULL;
    va_start(arguments, format);
    if (variables->count + 1 == sizeof variables->all / sizeof *variables->all || vasprintf(&text, format, arguments) < 0)
        variables->full = true;
    else
        variables->all[variables->count++] = text;
    va_end(arguments);
}

static void set_options(struct variables *variables, const struct config *config, const struct export_config *export) {
    for (unsigned at = export->keys; at < export->keys_end; at += (unsigned)strlen(config->export_text + at) + 1) {
        char name[64];
        const char *text = config->export_text + at, *equals = strchr(text, '=');
        size_t length = MIN((size_t)(equals - text), sizeof name - 1);
        for (size_t i = 0; i < length; i++)
            name[i] = text[i] == '-' ? '_' : text[i] >= 'a' && text[i] <= 'z' ? (char)(text[i] - 'a' + 'A') : text[i];
        name[length] = '\0';
        set(variables, "BATON_OPTION_%s=%s", name, equals + 1);
    }
}

static void folder_of(const struct action *action, const char *program, struct variables *variables) {
    const char *slash = strrchr(program, '/');
    set(variables, "BATON_LIBEXEC=%.*s", slash ? (int)(slash - program) : 1, slash ? program : ".");
    set(variables, "BATON_LOCAL=/run/baton/%s/%s/%s", action->config->volume, action->self->name, action_name(action));
    set(variables, "BATON_STATE=%s/.baton/%s", action->self->mount, action_name(action));
}

static void fill(const struct action *action, const char *program, struct variables *variables) {
    const struct config *config = action->config;
    static const char *const acknowledge[] = {[ACKNOWLEDGE_CLOSE] = "close", [ACKNOWLEDGE_WRITE] = "write", [ACKNOWLEDGE_NEVER] = "never"};
    char id[33], nodes[CONFIG_NODES_MAX * 65] = "";
    for (unsigned i = 0; i < 16; i++)
        snprintf(id + 2 * i, 3, "%02x", config->volume_id[i]);
    for (unsigned i = 0; i < config->node_count; i++)
        snprintf(nodes + strlen(nodes), sizeof nodes - strlen(nodes), "%s%s", i ? " " : "", config->nodes[i].name);
    for (char **own = environ; *own; own++)
        if (strncmp(*own, "PATH=", 5) == 0 || strncmp(*own, "LANG=", 5) == 0 || strncmp(*own, "LC_", 3) == 0 ||
            strncmp(*own, "BATON_EXPORTERS=", 16) == 0 || strncmp(*own, "BATON_TEST_", 11) == 0)
            set(variables, "%s", *own);
    set(variables, "BATON_VOLUME=%s", config->volume);
    set(variables, "BATON_VOLUME_ID=%s", id);
    set(variables, "BATON_NODE=%s", action->self->name);
    set(variables, "BATON_NODES=%s", nodes);
    set(variables, "BATON_MOUNT=%s", action->self->mount);
    set(variables, "BATON_CONFIG=%s", config->path);
    set(variables, "BATON_EXPORT=%s", action_name(action));
    set(variables, "BATON_EXPORT_TYPE=%s", action->export ? action->export->type : action->program ? "hook" : "vip");
    set(variables, "BATON_EPOCH=%" PRIu64, action->epoch);
    set(variables, "BATON_LEASE_MS=%u", config->lease_ms);
    set(variables, "BATON_ACKNOWLEDGE=%s", acknowledge[config->acknowledge]);
    set(variables, "BATON_ADDRESSES=%s", config->addresses);
    if (action->hurry)
        set(variables, "BATON_HURRY=1");
    folder_of(action, program, variables);
    if (action->export)
        set_options(variables, config, action->export);
}

/* ---- The process ----------------------------------------------------------------------------------------------------- */

static void make_folder(const char *path) {
    char copy[2200];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(copy, 0755);
        *slash = '/';
    }
    mkdir(copy, 0700);
}

static const char *value_of(const struct variables *variables, const char *name) {
    size_t length = strlen(name);
    for (unsigned i = 0; i < variables->count; i++)
        if (strncmp(variables->all[i], name, length) == 0 && variables->all[i][length] == '=')
            return variables->all[i] + length + 1;
    return "";
}

/* A folder on the volume that is root's alone: not one, and not a link, that somebody else has put there where everybody may write. */
static int own_folder(const char *path) {
    struct stat is;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &is) < 0)
        return -errno;
    if (is.st_uid != geteuid())
        return -EPERM;
    return (is.st_mode & 077) && fchmod(fd, 0700) < 0 ? -errno : 0;
}

static void own_folder_or_end(const char *path) {
    int rc = own_folder(path);
    if (rc == 0)
        return;
    if (rc == -EPERM || rc == -ELOOP || rc == -ENOTDIR)
        dprintf(STDERR_FILENO, "%s is not a folder of root's: somebody else has put it there; look at it and move it away\n", path);
    else
        dprintf(STDERR_FILENO, "%s cannot be made: %s\n", path, strerror(-rc));
    _exit(1);
}

/* In the process to be: the mount may hang, and its folder on the volume is made only where it is needed. */
static void become(const struct action *action, const char *program, struct variables *variables, int output) {
    char *arguments[] = {(char *)program, (char *)action->verb, NULL};
    struct sigaction usual = {.sa_handler = SIG_DFL};
    sigset_t none;
    setpgid(0, 0);
    for (int i = 1; i < NSIG; i++)
        sigaction(i, &usual, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    close_range(STDERR_FILENO + 1, ~0u, 0);
    if (chdir("/") < 0)
        _exit(126);
    make_folder(value_of(variables, "BATON_LOCAL"));
    if (strcmp(action->verb, "start") == 0 && !action->program) {
        char parent[1100];
        snprintf(parent, sizeof parent, "%s/.baton", action->self->mount);
        own_folder_or_end(parent);
        own_folder_or_end(value_of(variables, "BATON_STATE"));
    }
    execve(program, arguments, variables->all);
    dprintf(STDERR_FILENO, "%s cannot be run: %s\n", program, strerror(errno));
    _exit(127);
}

/* ---- Its output ------------------------------------------------------------------------------------------------------ */

struct output {
    const struct action *action;
    int fd;
    char line[LINE_MAX_SHOWN];
    size_t length;
    unsigned lines;
    char *words;
};

static void end_line(struct output *output) {
    if (output->length == 0)
        return;
    output->line[output->length] = '\0';
    text_mend(output->line); /* it goes to status as JSON */
    snprintf(output->words, ACTION_WORDS, "%.*s", (int)ACTION_WORDS - 1, output->line);
    text_mend(output->words); /* cut */
    output->length = 0;
    if (output->action->quiet || output->lines++ > LINES_SHOWN)
        return;
    if (output->lines > LINES_SHOWN)
        log_info("%s %s: there is more, which is not shown", action_name(output->action), output->action->verb);
    else
        log_info("%s %s: %s", action_name(output->action), output->action->verb, output->line);
}

/* False: at its end. */
static bool read_output(struct output *output) {
    char bytes[1024];
    ssize_t n = read(output->fd, bytes, sizeof bytes);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] == '\n' || output->length + 1 == sizeof output->line)
            end_line(output);
        if (bytes[i] != '\n')
            output->line[output->length++] = (unsigned char)bytes[i] < ' ' ? ' ' : bytes[i];
    }
    return n > 0;
}

static int wait_for(const struct action *action, pid_t pid, struct output *output, int *status) {
    AUTO_CLOSE int process = (int)syscall(SYS_pidfd_open, pid, 0);
    int64_t deadline = clock_boot() + action->timeout;
    bool open_output = true;
    if (process < 0)
        return -errno;
    for (;;) {
        int64_t left = deadline - clock_boot();
        struct pollfd events[3] = {{.fd = process, .events = POLLIN},
                                   {.fd = open_output ? output->fd : -1, .events = POLLIN},
                                   {.fd = action->cancelled ? action->wake : -1, .events = POLLIN}};
        int wait = left <= 0 ? 0 : (int)MIN(left / MS + 1, action->cancelled ? LOOK_MS : 60000);
        if (poll(events, 3, wait) < 0)
            PROMISE(errno == EINTR);
        if (events[1].revents)
            open_output = read_output(output);
        if (events[0].revents) {
            PROMISE(waitpid(pid, status, 0) == pid);
            /* what a server that it started prints later is nobody's; and one that prints without end must not hold us here */
            for (unsigned i = 0; i < REST_MAX && open_output && poll(&events[1], 1, 0) > 0 && read_output(output); i++)
                ;
            return 0;
        }
        bool over = clock_boot() >= deadline, cancelled = action->cancelled && action->cancelled(action->context);
        if (!over && !cancelled) {
            if (events[2].revents) /* readable for another reason: not in a circle */
                usleep(2000);
            continue;
        }
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL);
        /* One that waits in the mount dies when it is answered; nobody waits for that here. */
        for (unsigned i = 0; i < 50 && waitpid(pid, status, WNOHANG) == 0; i++)
            usleep(1000);
        return cancelled ? -ECANCELED : -ETIMEDOUT;
    }
}

static int judge(const struct action *action, int rc, int status, struct output *output) {
    char *words = output->words;
    if (rc == -ETIMEDOUT)
        snprintf(words, ACTION_WORDS, "%s did not end within %" PRId64 " ms and was killed", action->verb, action->timeout / MS);
    else if (rc < 0 && rc != -ECANCELED)
        snprintf(words, ACTION_WORDS, "%s cannot be watched: %s", action->verb, strerror(-rc));
    else if (rc == 0 && WIFSIGNALED(status))
        snprintf(words, ACTION_WORDS, "%s was ended by signal %d", action->verb, WTERMSIG(status));
    else if (rc == 0 && WEXITSTATUS(status) && output->lines == 0 && !words[0])
        snprintf(words, ACTION_WORDS, "%s ended with status %d and said nothing", action->verb, WEXITSTATUS(status));
    if (rc == 0)
        rc = WIFSIGNALED(status) ? -EIO : WEXITSTATUS(status);
    if (rc && rc != -ECANCELED && !action->quiet && output->lines == 0)
        log_warning("%s: %s", action_name(action), words);
    return rc;
}

static int run(const struct action *action, const char *program, struct variables *variables, char *words) {
    int ends[2], status = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        become(action, program, variables, ends[1]);
    int rc = pid < 0 ? -errno : 0;
    close(ends[1]);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    struct output output = {.action = action, .fd = ends[0], .words = words};
    if (rc == 0)
        rc = wait_for(action, pid, &output, &status);
    end_line(&output);
    close(ends[0]);
    return judge(action, rc, status, &output);
}

int action_run(const struct action *action, char words[ACTION_WORDS]) {
    char path[1200];
    const char *type = action->export ? action->export->type : "vip";
    struct variables variables = {.count = 0};
    words[0] = '\0';
    int found = action->program ? 0 : action_find(type, path, sizeof path);
    if (found != 0) {
        if (found == -EACCES)
            snprintf(words, ACTION_WORDS, "%.130s is not executable: chmod +x, or remove it", path);
        else
            snprintf(words, ACTION_WORDS, "there is no exporter %s in " OWN_FOLDER " nor in " BATON_LIBEXEC "/exporters", type);
        if (!action->quiet)
            log_error("%s: %s", action_name(action), words);
        return found;
    }
    const char *program = action->program ? action->program : path;
    fill(action, program, &variables);
    int rc = variables.full ? -E2BIG : run(action, program, &variables, words);
    if (variables.full)
        snprintf(words, ACTION_WORDS, "it has too many keys");
    if (rc < 0 && !words[0])
        snprintf(words, ACTION_WORDS, "%.120s cannot be run: %s", program, strerror(-rc));
    for (unsigned i = 0; i < variables.count; i++)
        free(variables.all[i]);
    return rc;
}
