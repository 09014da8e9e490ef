/* What is asked of etcd and what it answers, through the JSON gateway of its v3 API: text in, text out, no I/O.
 *
 * Answers come from the network: what is not exactly what was asked for is refused with a sentence. Keys and values are bytes
 * in base64, 64-bit numbers are strings. A request is the caller's, to free.
 */
#ifndef BATON_MEMBERSHIP_ETCD_MESSAGE_H
#define BATON_MEMBERSHIP_ETCD_MESSAGE_H

#include "membership/etcd_rules.h"

#define ETCD_ANSWER_MAX 65536u /* bytes; a longer answer is none of etcd's */
#define ETCD_TOKEN_MAX 4096u

#define ETCD_PATH_TXN "/v3/kv/txn"
#define ETCD_PATH_GRANT "/v3/lease/grant"
#define ETCD_PATH_KEEP_ALIVE "/v3/lease/keepalive"
#define ETCD_PATH_REVOKE "/v3/lease/revoke"
#define ETCD_PATH_WATCH "/v3/watch"
#define ETCD_PATH_LOGIN "/v3/auth/authenticate"
#define ETCD_PATH_STATUS "/v3/maintenance/status"

struct etcd_keys { /* of a volume: PREFIX/ID/register and PREFIX/ID/holder */
    char folder[192]; /* PREFIX/ID/ */
    char register_key[200], holder_key[200];
};
void etcd_keys_make(const char *prefix, const uint8_t volume_id[16], struct etcd_keys *keys);

/* A write of both keys at once, or of one, upon the state that was seen; or a look at them. */
enum etcd_holder_write { ETCD_HOLDER_KEEP = 0, ETCD_HOLDER_PUT, ETCD_HOLDER_DELETE };
struct etcd_write {
    int64_t register_mod, holder_mod; /* as seen; 0: the key must not be there */
    const struct register_value *value; /* NULL: the register stays */
    enum etcd_holder_write holder_write;
    const struct etcd_holder *holder; /* PUT */
    int64_t lease;                    /* PUT: etcd's lease; 0: none */
};
char *etcd_ask_look(const struct etcd_keys *keys);
char *etcd_ask_write(const struct etcd_keys *keys, const struct etcd_write *write);
/* `written`: the write was made (a look always is); `seen` tells both keys after that. 0, or -EBADMSG with a sentence. */
int etcd_read_answer(const struct etcd_keys *keys, const char *text, size_t length, bool *written, struct etcd_seen *seen,
                     char *why, size_t why_room);

char *etcd_ask_grant(int64_t ttl);
int etcd_read_grant(const char *text, size_t length, int64_t *lease, int64_t *ttl, char *why, size_t why_room);
char *etcd_ask_lease(int64_t lease); /* keep it alive, revoke it */
/* `ttl` 0: etcd has no such lease. */
int etcd_read_keep_alive(const char *text, size_t length, int64_t lease, int64_t *ttl, char *why, size_t why_room);
/* An answer of which nothing matters but that it is etcd's. */
int etcd_read_any(const char *text, size_t length, char *why, size_t why_room);
/* Of a member, how it is. -EAGAIN: it knows no leader. */
int etcd_read_status(const char *text, size_t length, char *why, size_t why_room);

char *etcd_ask_login(const char *user, const char *password);
int etcd_read_login(const char *text, size_t length, char token[ETCD_TOKEN_MAX], char *why, size_t why_room);

char *etcd_ask_watch(const struct etcd_keys *keys);
enum etcd_watch_line { ETCD_WATCH_MADE = 1, ETCD_WATCH_EVENTS, ETCD_WATCH_IDLE, ETCD_WATCH_ENDED };
/* One line of a watch. An enum etcd_watch_line, or -EBADMSG; ENDED and -EBADMSG with a sentence. */
int etcd_read_watch(const char *text, size_t length, char *why, size_t why_room);

/* What an answer means that is an error: */
enum etcd_refusal {
    ETCD_REFUSED_TOKEN = 1, /* log in (again), then ask again */
    ETCD_REFUSED_RIGHT,     /* this user may not do that, or its password is wrong */
    ETCD_REFUSED_GONE,      /* there is no such lease */
    ETCD_REFUSED_NO_USERS,  /* a login, and this etcd has no users */
    ETCD_REFUSED_REQUEST,   /* for another reason: asked again, it says the same */
    ETCD_REFUSED_NOW,       /* no leader, overloaded, …: what was asked may be done or not; another member may do better */
    ETCD_REFUSED_RUBBISH,   /* that is no answer of etcd's */
};
/* `why`: always a sentence, fit to be printed. */
enum etcd_refusal etcd_read_refusal(long http_status, const char *text, size_t length, char *why, size_t why_room);

#endif
