/* Asks the witness of a volume something, as one of its nodes, for tests in bash:
 *
 *   ask-voter CONFIG NODE query|prepare BALLOT|accept BALLOT VERSION|renew VERSION|release VERSION
 *
 * Values name NODE in the epoch (VERSION, NODE). Prints one line: yes, stale, held, quiet with the voter's id and what it has
 * accepted; unknown or failed with the reason; or silence, after BATON_ASK_MS (30000).
 */
#include "tests/asking.h"

#include <stdio.h>

static struct cast cast;

static struct ask_question question(const char *node, const char *what, uint64_t first, uint64_t second) {
    uint64_t version = strcmp(what, "accept") == 0 ? second : first;
    struct register_value value = value_of(&cast, version, node, (uint32_t)version);
    if (strcmp(what, "prepare") == 0)
        return prepare_of(&cast, node, first);
    if (strcmp(what, "accept") == 0)
        return accept_of(&cast, node, first, &value);
    if (strcmp(what, "renew") == 0)
        return renew_of(&cast, &value, 7);
    if (strcmp(what, "release") == 0)
        return release_of(&cast, &value, 7);
    return question_of(&cast, node, ASK_QUERY);
}

static void print(const struct ask_answer *answer) {
    static const char *const verdicts[] = {"?", "yes", "stale", "held", "quiet"};
    const struct voter_answer *given = &answer->answer;
    if (answer->status != ASK_ANSWERED) {
        printf("%s: %s\n", answer->status == ASK_UNKNOWN ? "unknown" : "failed", answer->why);
        return;
    }
    printf("%s id=", verdicts[given->verdict]);
    for (unsigned i = 0; i < 16; i++)
        printf("%02x", given->id[i]);
    printf(" version=%llu primary=%s holder=%s promised=%llu\n", (unsigned long long)given->value.version, given->value.primary,
           given->holder, (unsigned long long)given->promised.counter);
}

int main(int argc, char **argv) {
    char why[1024], secret[KEY_TEXT];
    if (argc < 4) {
        fprintf(stderr, "ask-voter CONFIG NODE WHAT…\n");
        return 2;
    }
    const struct config *config = &cast.config;
    const struct node_config *node;
    if (config_load(argv[1], &cast.config, why, sizeof why) || !(node = config_node(config, argv[2])) ||
        (config->transport == TRANSPORT_CURVE && config_secret(config, argv[2], NULL, secret, why, sizeof why))) {
        fprintf(stderr, "ask-voter: %s\n", why);
        return 2;
    }
    struct ask_question ask = question(argv[2], argv[3], argc > 4 ? strtoull(argv[4], NULL, 10) : 0,
                                       argc > 5 ? strtoull(argv[5], NULL, 10) : 0);
    struct caller *caller = caller_dial(config, config->transport == TRANSPORT_CURVE ? node->public_key : NULL, secret, NULL);
    const char *ms = getenv("BATON_ASK_MS");
    uint8_t bytes[ASK_BYTES];
    struct ask_answer answer;
    caller_send(caller, bytes, ask_encode_question(&ask, bytes), false);
    int rc = caller_await(caller, &ask, &answer, ms ? atoi(ms) : 30000);
    if (rc)
        puts("silence");
    else
        print(&answer);
    caller_hang_up(caller);
    return rc ? 1 : 0;
}
