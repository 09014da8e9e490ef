/* materialize LOG EVENTS|end SEED|newest DIRECTORY — builds what a disk might hold if the power failed after EVENTS
 * events of a log of record.so; DIRECTORY must be new or empty. `materialize LOG` says what the log has. */
#include "tests/powercut/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void print_mark(void *context, uint64_t event, const char *text) {
    (void)context;
    printf("%llu\t%s\n", (unsigned long long)event, text);
}

int main(int count, char **arguments) {
    char why[512];

    if (count != 2 && count != 5) {
        fprintf(stderr, "usage: materialize LOG [EVENTS|end SEED|newest DIRECTORY]\n");
        return 2;
    }
    struct model *model = model_open(arguments[1], why, sizeof why);
    if (model == NULL) {
        fprintf(stderr, "materialize: %s\n", why);
        return 1;
    }
    if (count == 2) {
        printf("%llu events\n", (unsigned long long)model_events(model));
        model_marks(model, print_mark, NULL);
        model_close(model);
        return 0;
    }
    uint64_t cut = strcmp(arguments[2], "end") == 0 ? model_events(model) : strtoull(arguments[2], NULL, 10);
    int result = model_advance(model, cut);
    if (result != 0)
        fprintf(stderr, "materialize: the log has %llu events\n", (unsigned long long)model_events(model));
    else if (mkdir(arguments[4], 0700) != 0 && errno != EEXIST)
        result = -errno;
    else
        result = model_write(model, strtoull(arguments[3], NULL, 10), strcmp(arguments[3], "newest") == 0,
                             arguments[4]);
    if (result != 0)
        fprintf(stderr, "materialize: %s: %s\n", arguments[4], strerror(-result));
    model_close(model);
    return result == 0 ? 0 : 1;
}
