/* What a witness costs: starts baton-witness with so many volumes, each with two nodes connected, of which one renews the lease
 * every sixth of its time, and prints the program's memory and processor time.
 *
 *   tests/bench/witness VOLUMES SECONDS
 */
#include "tests/asking.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define VOLUMES_MAX 200u
#define RENEW_EVERY 6u /* of a lease time */

static struct cast casts[VOLUMES_MAX];
static struct caller *callers[2 * VOLUMES_MAX];
static unsigned volumes;

static void write_key(const char *path, const char *secret) {
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    PROMISE(fd >= 0 && write(fd, secret, KEY_TEXT - 1) == KEY_TEXT - 1);
}

static void write_config(const struct cast *cast, const char *directory) {
    char path[600], key[700];
    const struct config *config = &cast->config;
    snprintf(path, sizeof path, "%s/%s.conf", directory, config->volume);
    snprintf(key, sizeof key, "%s.witness.key", path);
    FILE *file = fopen(path, "w");
    PROMISE(file);
    fprintf(file, "[volume]\nname = %s\ncreated = 1\nid = ", config->volume);
    for (unsigned i = 0; i < 16; i++)
        fprintf(file, "%02x", config->volume_id[i]);
    for (unsigned i = 0; i < 2; i++)
        fprintf(file, "\n[node %s]\naddress = %s\npublic-key = %s\nstore = /srv/%s", config->nodes[i].name, config->nodes[i].address,
                config->nodes[i].public_key, config->nodes[i].name);
    fprintf(file, "\n[witness]\naddress = %s\npublic-key = %s\n", config->witness.address, config->witness.public_key);
    PROMISE(fclose(file) == 0);
    write_key(key, cast->witness_secret);
}

static pid_t start(const char *state, const char *configs) {
    const char *build = getenv("BATON_BUILD");
    char program[1024], byte;
    int ends[2];
    PROMISE(pipe(ends) == 0);
    snprintf(program, sizeof program, "%s/baton-witness", build ? build : ".");
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl(program, "baton-witness", "--state", state, configs, NULL);
        _exit(127);
    }
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 1)
        bail("%s does not start", program);
    return child;
}

static void show(pid_t child, const char *when) {
    char path[64], line[300], stat[1000];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)child);
    FILE *file = fopen(path, "r");
    printf("%s:", when);
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "VmRSS", 5) == 0 || strncmp(line, "RssAnon", 7) == 0)
            printf(" %.*s", (int)strcspn(line, "\n"), line);
    if (file)
        fclose(file);
    snprintf(path, sizeof path, "/proc/%d/stat", (int)child);
    file = fopen(path, "r");
    if (file && fgets(stat, sizeof stat, file) && strrchr(stat, ')'))
        sscanf(strrchr(stat, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    if (file)
        fclose(file);
    printf(" processor %ld ms\n", (long)((user + system) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK)));
}

static void renew_for(unsigned seconds) {
    uint8_t bytes[ASK_BYTES];
    struct ask_answer answer;
    int64_t end = clock_boot() + (int64_t)seconds * 1000000000;
    while (clock_boot() < end) {
        for (unsigned i = 0; i < volumes; i++) {
            struct register_value value = value_of(&casts[i], 1, "a", 1);
            struct ask_question renew = renew_of(&casts[i], &value, 7);
            caller_send(callers[2 * i], bytes, ask_encode_question(&renew, bytes), false);
        }
        for (unsigned i = 0; i < volumes; i++)
            caller_receive(callers[2 * i], &answer, 200);
        usleep(casts[0].config.lease_ms * 1000 / RENEW_EVERY);
    }
}

int main(int argc, char **argv) {
    char configs[300], state[300];
    volumes = argc > 1 ? (unsigned)atoi(argv[1]) : 1;
    if (volumes == 0 || volumes > VOLUMES_MAX)
        return 2;
    snprintf(configs, sizeof configs, "%s/configs", test_directory());
    snprintf(state, sizeof state, "%s/state", test_directory());
    PROMISE(mkdir(configs, 0700) == 0);
    for (unsigned i = 0; i < volumes; i++) {
        cast_make(&casts[i], i, TRANSPORT_CURVE);
        casts[i].config.witness = casts[0].config.witness;
        memcpy(casts[i].witness_secret, casts[0].witness_secret, KEY_TEXT);
        write_config(&casts[i], configs);
    }
    pid_t child = start(state, configs);
    show(child, "started");
    for (unsigned i = 0; i < volumes; i++) {
        struct register_value value = value_of(&casts[i], 1, "a", 1);
        struct ask_question accept = accept_of(&casts[i], "a", 1, &value), query = question_of(&casts[i], "b", ASK_QUERY);
        struct ask_answer answer;
        callers[2 * i] = caller_of(&casts[i], 0);
        callers[2 * i + 1] = caller_of(&casts[i], 1);
        caller_ask(callers[2 * i], &accept, &answer);
        caller_ask(callers[2 * i + 1], &query, &answer);
    }
    show(child, "all connected");
    renew_for(argc > 2 ? (unsigned)atoi(argv[2]) : 60);
    show(child, "after renewals");
    for (unsigned i = 0; i < 2 * volumes; i++)
        caller_hang_up(callers[i]);
    kill(child, SIGTERM);
    waitpid(child, NULL, 0);
    return 0;
}
