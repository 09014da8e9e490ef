/* The TAP library says what it should: run in a child, whose output is compared. */
#include "tests/tap.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The directory begins the plan; so does each of the others, in a child, too. */
static void plan_again(void) {
    test_directory();
    plan_lazy();
    pid_t other = fork();
    if (other == 0) {
        plan_lazy();
        exit(0);
    }
    waitpid(other, NULL, 0);
    ok(true, "one");
}

static void child(const char *what) {
    if (strcmp(what, "again") == 0) {
        plan_again();
        return;
    }
    plan_lazy();
    if (strcmp(what, "skip-all") == 0)
        skip_all("no %s", "reason");
    ok(true, "one # with\nnoise");
    is_int(1, 2, "two");
    is_string("a\nb", NULL, NULL);
    is_blob("abc", "abd", 3, "four");
    skip(2, "not here");
    if (strcmp(what, "bail") == 0)
        bail("enough");
    printf("# %s\n", test_directory());
    if (strcmp(what, "interrupt") == 0)
        raise(SIGINT);
    if (strcmp(what, "alarm") == 0)
        raise(SIGALRM);
}

static int run(const char *program, const char *what, char *output, size_t room) {
    char command[1024];
    snprintf(command, sizeof command, "%s %s", program, what);
    FILE *pipe = popen(command, "r");
    if (pipe == NULL)
        bail("popen failed");
    size_t length = fread(output, 1, room - 1, pipe);
    output[length] = '\0';
    return pclose(pipe);
}

static bool directory_gone(const char *output) {
    char path[256];
    struct stat status;
    const char *at = strstr(output, "# /");
    if (at == NULL || sscanf(at, "# %255s", path) != 1)
        return false;
    return lstat(path, &status) != 0;
}

int main(int argc, char **argv) {
    char output[4096];

    if (argc > 1) {
        child(argv[1]);
        return 0;
    }
    plan_lazy();
    is_int(0, run(argv[0], "plain", output, sizeof output), "exit status");
    ok(strstr(output, "ok 1 - one   with noise\nnot ok 2 - two\n") != NULL, "passes and failures");
    ok(strstr(output, "#   expected: 1\n#       seen: 2\n") != NULL, "numbers are told");
    ok(strstr(output, "not ok 3\n") != NULL && strstr(output, "seen: (null)\n") != NULL, "strings");
    ok(strstr(output, "number 2\n#   expected: 63\n#       seen: 64\n") != NULL, "blobs");
    ok(strstr(output, "ok 5 # SKIP not here\nok 6 # SKIP not here\n") != NULL, "skips");
    ok(strstr(output, "\n1..6\n") != NULL, "plan");
    ok(directory_gone(output), "the directory goes at exit");
    run(argv[0], "again", output, sizeof output);
    is_string("ok 1 - one\n1..1\n", output, "one plan, however often it is begun");
    run(argv[0], "bail", output, sizeof output);
    ok(strstr(output, "Bail out! enough\n") != NULL && strstr(output, "1..") == NULL, "bail");
    run(argv[0], "skip-all", output, sizeof output);
    is_string("1..0 # SKIP no reason\n", output, "skip all");
    int status = run(argv[0], "interrupt", output, sizeof output);
    ok(status != 0 && directory_gone(output), "the directory goes at an interrupt");
    status = run(argv[0], "alarm", output, sizeof output);
    ok(status != 0 && directory_gone(output) && strstr(output, "Bail out!") != NULL, "... and after a timeout");
    return 0;
}
