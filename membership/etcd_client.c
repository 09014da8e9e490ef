#include "membership/etcd_client.h"
#include "membership/etcd_http.h"

#include <stdatomic.h>
#include <stdio.h>

#define SECOND INT64_C(1000000000)
#define LOGIN_LIMIT SECOND /* a password is made to be slow to check */
#define LEAST_LIMIT (SECOND / 20)

struct etcd_client {
    struct etcd_access *access;
    struct etcd_http *http;
    CURLM *multi;
    atomic_bool stopped;
};

struct etcd_client *etcd_client_open(struct etcd_access *access) {
    struct etcd_client *client = calloc(1, sizeof *client);
    PROMISE(client != NULL);
    client->access = access;
    client->http = etcd_http_open(access);
    client->multi = curl_multi_init();
    PROMISE(client->multi != NULL);
    return client;
}

void etcd_client_close(struct etcd_client *client) {
    if (!client)
        return;
    etcd_http_close(client->http);
    curl_multi_cleanup(client->multi);
    free(client);
}

void etcd_client_stop(struct etcd_client *client) {
    atomic_store(&client->stopped, true);
    curl_multi_wakeup(client->multi);
}

/* CURLE_ABORTED_BY_CALLBACK: stopped. */
static CURLcode perform(struct etcd_client *client) {
    CURLcode code = CURLE_ABORTED_BY_CALLBACK;
    int running = 1, left;
    PROMISE(curl_multi_add_handle(client->multi, client->http->easy) == CURLM_OK);
    while (running && !atomic_load(&client->stopped)) {
        if (curl_multi_perform(client->multi, &running) != CURLM_OK)
            break;
        if (running && curl_multi_poll(client->multi, NULL, 0, 1000, NULL) != CURLM_OK)
            break;
    }
    for (CURLMsg *message; (message = curl_multi_info_read(client->multi, &left)) != NULL;)
        if (message->msg == CURLMSG_DONE)
            code = message->data.result;
    curl_multi_remove_handle(client->multi, client->http->easy);
    return code;
}

enum outcome { ANSWERED, REFUSED_TOKEN, REFUSED, NEXT, STOPPED };

/* One request to one member. REFUSED: `*rc` says how. */
static enum outcome request(struct etcd_client *client, unsigned endpoint, const char *path, const char *body, const char *token,
                            int64_t limit, bool *sent, enum etcd_refusal *refusal, char *why, size_t why_room) {
    *sent = false;
    etcd_http_prepare(client->http, endpoint, path, body, token, limit);
    CURLcode code = perform(client);
    *sent = etcd_http_sent(client->http);
    if (atomic_load(&client->stopped)) {
        snprintf(why, why_room, "stopped");
        return STOPPED;
    }
    if (code != CURLE_OK) {
        etcd_http_why(client->http, code, why, why_room);
        return NEXT;
    }
    long status = etcd_http_status(client->http);
    if (status == 200)
        return ANSWERED;
    *refusal = etcd_read_refusal(status, client->http->text, client->http->length, why, why_room);
    if (*refusal == ETCD_REFUSED_NOW || *refusal == ETCD_REFUSED_RUBBISH)
        return NEXT;
    *sent = false; /* it has said that it did not do it */
    return *refusal == ETCD_REFUSED_TOKEN ? REFUSED_TOKEN : REFUSED;
}

static int error_of(enum etcd_refusal refusal) {
    return refusal == ETCD_REFUSED_RIGHT ? -EACCES : refusal == ETCD_REFUSED_GONE ? -ENOENT : -EINVAL;
}

/* Instead of token `number`. 0, -EACCES, -ENOTCONN, -ECANCELED. */
static int log_in(struct etcd_client *client, unsigned endpoint, uint64_t number, int64_t limit, char *why, size_t why_room) {
    char password[ETCD_PASSWORD_MAX], token[ETCD_TOKEN_MAX] = "", inner[256] = "";
    const char *user = etcd_access_config(client->access)->user;
    enum etcd_refusal refusal;
    bool sent;
    etcd_access_password(client->access, password);
    char *body = etcd_ask_login(user, password);
    explicit_bzero(password, sizeof password);
    if (!body) {
        snprintf(why, why_room, "the user's name or password is no UTF-8");
        return -EACCES;
    }
    enum outcome outcome = request(client, endpoint, ETCD_PATH_LOGIN, body, "", limit, &sent, &refusal, inner, sizeof inner);
    explicit_bzero(body, strlen(body));
    free(body);
    if (outcome == REFUSED && refusal == ETCD_REFUSED_NO_USERS)
        outcome = ANSWERED; /* its users are not switched on (yet): no token, then */
    else if (outcome == ANSWERED && etcd_read_login(client->http->text, client->http->length, token, inner, sizeof inner) != 0)
        outcome = NEXT;
    if (outcome == ANSWERED)
        etcd_access_logged_in(client->access, number, token);
    else
        snprintf(why, why_room, "user \"%s\" cannot log in: %s", user, inner);
    explicit_bzero(token, sizeof token);
    return outcome == ANSWERED ? 0 : outcome == STOPPED ? -ECANCELED : outcome == REFUSED ? error_of(refusal) : -ENOTCONN;
}

/* One member, with a login or two where it takes one. -ENOTCONN: try the next one. */
static int ask_member(struct etcd_client *client, unsigned endpoint, struct etcd_ask *ask, char *why, size_t why_room) {
    bool has_user = etcd_access_config(client->access)->user[0] != 0, sent;
    enum etcd_refusal refusal;
    char token[ETCD_TOKEN_MAX];
    for (unsigned logins = 0;; logins++) {
        int64_t left = MAX(ask->deadline - clock_boot(), LEAST_LIMIT);
        uint64_t number = etcd_access_token(client->access, token);
        if (has_user && number == 0) {
            int rc = log_in(client, endpoint, number, MIN(MAX(ask->attempt, LOGIN_LIMIT), left), why, why_room);
            if (rc)
                return rc;
            number = etcd_access_token(client->access, token);
            left = MAX(ask->deadline - clock_boot(), LEAST_LIMIT);
        }
        ask->sent = clock_boot();
        enum outcome outcome = request(client, endpoint, ask->path, ask->body, token, MIN(ask->attempt, left), &sent, &refusal,
                                       why, why_room);
        if (outcome == ANSWERED && ask->accept(ask->context, client->http->text, client->http->length, why, why_room) == 0)
            return 0;
        if (outcome == ANSWERED || outcome == NEXT || outcome == STOPPED)
            ask->maybe |= sent;
        if (outcome == STOPPED)
            return -ECANCELED;
        if (outcome == REFUSED)
            return error_of(refusal);
        if (outcome != REFUSED_TOKEN)
            return -ENOTCONN;
        if (!has_user) {
            snprintf(why, why_room, "it wants to know who asks; set user and password-file in [etcd]");
            return -EACCES;
        }
        if (logins == 2)
            return -ENOTCONN;
        int rc = log_in(client, endpoint, number, MIN(MAX(ask->attempt, LOGIN_LIMIT), left), why, why_room);
        if (rc)
            return rc;
    }
}

int etcd_client_ask(struct etcd_client *client, struct etcd_ask *ask, char *why, size_t why_room) {
    const struct etcd_config *config = etcd_access_config(client->access);
    unsigned first = etcd_access_preferred(client->access);
    char trouble[256];
    int rc = -ENOTCONN;
    ask->maybe = false;
    why[0] = 0;
    for (unsigned turn = 0; turn < config->endpoint_count && (turn == 0 || clock_boot() < ask->deadline); turn++) {
        unsigned endpoint = (first + turn) % config->endpoint_count;
        rc = atomic_load(&client->stopped) ? -ECANCELED : ask_member(client, endpoint, ask, trouble, sizeof trouble);
        if (rc == -ECANCELED) {
            snprintf(why, why_room, "stopped");
            return rc;
        }
        /* What one member does not like, by itself or by what stands before it, another one may. */
        bool other = rc == -ENOTCONN || rc == -EINVAL, denied = rc == -EACCES;
        etcd_access_heard(client->access, endpoint, other || denied ? trouble : NULL);
        if (rc)
            snprintf(why, why_room, "etcd at %s: %s", config->endpoints[endpoint], trouble);
        if (!other) {
            if (turn)
                etcd_access_prefer(client->access, endpoint);
            return rc;
        }
    }
    return rc;
}
