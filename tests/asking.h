/* A volume's config with keys, and its nodes asking voters over sockets, for tests. */
#ifndef BATON_TESTS_ASKING_H
#define BATON_TESTS_ASKING_H

#include "membership/voter_host.h"

struct cast { /* of a volume: two nodes and a witness */
    struct config config;
    char secrets[CONFIG_NODES_MAX][KEY_TEXT];
    char witness_secret[KEY_TEXT];
};

/* Nodes a and b at 127.0.0.1 and .2 (no store, no mount), the witness at 127.0.0.1 and a port that is free now. Another
 * `number`: another volume. */
void cast_make(struct cast *cast, unsigned number, enum transport transport);
unsigned free_port(void);
struct voter_host *host_must_open(const struct cast *cast, const char *directory);
void host_must_serve(struct voter_host *host, const struct cast *cast, const struct register_watch *watch);

struct caller;
/* Dials the witness of `config` as a node of it. `public_key` NULL: in the clear, from the address `from`. */
struct caller *caller_dial(const struct config *config, const char *public_key, const char *secret, const char *from);
struct caller *caller_of(const struct cast *cast, unsigned node);
void caller_send(struct caller *caller, const void *bytes, size_t length, bool more);
/* The next answer within so many ms. 0; -ETIMEDOUT; -EBADMSG */
int caller_receive(struct caller *caller, struct ask_answer *answer, int ms);
/* The answer to that question; others that come meanwhile are dropped. 0 or -ETIMEDOUT */
int caller_await(struct caller *caller, const struct ask_question *question, struct ask_answer *answer, int ms);
/* Asks, again every second, until an answer to it comes; 60 s, then it bails out. */
void caller_ask(struct caller *caller, struct ask_question *question, struct ask_answer *answer);
void caller_hang_up(struct caller *caller);

/* Questions of a cast's node, each with a new number. */
struct ask_question question_of(const struct cast *cast, const char *from, enum ask_type type);
/* A value: `version`, primary and epoch counter, with a and b in sync. */
struct register_value value_of(const struct cast *cast, uint64_t version, const char *primary, uint32_t counter);
struct ask_question prepare_of(const struct cast *cast, const char *from, uint64_t ballot);
struct ask_question accept_of(const struct cast *cast, const char *from, uint64_t ballot, const struct register_value *value);
struct ask_question renew_of(const struct cast *cast, const struct register_value *value, uint64_t session);
struct ask_question release_of(const struct cast *cast, const struct register_value *value, uint64_t session);

#endif
