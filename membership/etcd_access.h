/* How the members of an etcd cluster are reached: certificates, password and the token that stands for it, which member
 * answered last. Shared by the clients (etcd_client.h) of one volume; any thread. No lock is held while anything is waited for.
 *
 * Files are read by etcd_access_open() and etcd_access_refresh() alone, so that a client waits for no disk.
 */
#ifndef BATON_MEMBERSHIP_ETCD_ACCESS_H
#define BATON_MEMBERSHIP_ETCD_ACCESS_H

#include "fs/config.h"
#include "membership/etcd_message.h"

#define ETCD_FILE_MAX (256u * 1024)
#define ETCD_PASSWORD_MAX 256

struct etcd_member { /* by its endpoint's number; what was last heard */
    int64_t heard;  /* CLOCK_BOOTTIME; INT64_MIN: never */
    char why[160];  /* of the last attempt; empty: it answered */
};

struct etcd_file {
    char *text;
    size_t length;
};
struct etcd_credentials { /* a copy, of that generation */
    uint64_t generation;
    struct etcd_file ca, certificate, key;
};

struct etcd_access;
/* `config` outlives it. Errors have a sentence: a file that cannot be read, a password that others can read. */
int etcd_access_open(const struct etcd_config *config, struct etcd_access **access, char *why, size_t why_room);
void etcd_access_close(struct etcd_access *access);
/* Reads the files again: certificates and passwords are replaced from time to time. On an error what was read before stays. */
int etcd_access_refresh(struct etcd_access *access, char *why, size_t why_room);
const struct etcd_config *etcd_access_config(const struct etcd_access *access);

/* Nothing is copied if `credentials` is of the present generation. */
void etcd_access_credentials(struct etcd_access *access, struct etcd_credentials *credentials);
void etcd_credentials_free(struct etcd_credentials *credentials);
/* False: no user is set. */
bool etcd_access_password(struct etcd_access *access, char password[ETCD_PASSWORD_MAX]);

/* The number of the token (0: none, log in), and the token. It may be empty: etcd has no users. */
uint64_t etcd_access_token(struct etcd_access *access, char token[ETCD_TOKEN_MAX]);
/* A login instead of token `old` has given this one. Returns its number. */
uint64_t etcd_access_logged_in(struct etcd_access *access, uint64_t old, const char *token);

/* The endpoint that answered last. */
unsigned etcd_access_preferred(struct etcd_access *access);
void etcd_access_prefer(struct etcd_access *access, unsigned endpoint);
/* What an attempt has come to; `why` NULL: answered. */
void etcd_access_heard(struct etcd_access *access, unsigned endpoint, const char *why);
void etcd_access_member(struct etcd_access *access, unsigned endpoint, struct etcd_member *member);

#endif
