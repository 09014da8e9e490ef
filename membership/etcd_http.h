/* One HTTP request at a time to a member of an etcd cluster, by libcurl: what all of etcd_client.h and etcd_stream.h's requests
 * have in common. Nothing is followed, no proxy is asked, answers are bounded, and nothing lasts without a limit unless asked to.
 *
 * One thread at a time.
 */
#ifndef BATON_MEMBERSHIP_ETCD_HTTP_H
#define BATON_MEMBERSHIP_ETCD_HTTP_H

#include "membership/etcd_access.h"

#include <curl/curl.h>

struct etcd_http {
    CURL *easy;
    struct etcd_access *access;
    struct etcd_credentials credentials; /* that `easy` has */
    struct curl_slist *headers;
    unsigned endpoint;
    char trouble[CURL_ERROR_SIZE];
    size_t length;
    char text[ETCD_ANSWER_MAX + 1]; /* the answer, with NUL */
};

struct etcd_http *etcd_http_open(struct etcd_access *access);
void etcd_http_close(struct etcd_http *http);
/* Ready to be performed. `body` has to last until then. `limit`: ns for all of it; 0: only the connection has one. */
void etcd_http_prepare(struct etcd_http *http, unsigned endpoint, const char *path, const char *body, const char *token,
                       int64_t limit);
/* Whether what was asked may have reached the member. */
bool etcd_http_sent(const struct etcd_http *http);
long etcd_http_status(const struct etcd_http *http);
/* A sentence about a transfer that has failed. */
void etcd_http_why(const struct etcd_http *http, CURLcode code, char *why, size_t why_room);

#endif
