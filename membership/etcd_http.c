#include "membership/etcd_http.h"
#include "fs/text.h"

#include <pthread.h>
#include <stdio.h>

#define MS INT64_C(1000000)
#define CONNECT_MS 2000L

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void begin_curl(void) {
    PROMISE(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
}

static size_t take_text(char *bytes, size_t size, size_t count, void *context) {
    struct etcd_http *http = context;
    size_t length = size * count;
    if (length > ETCD_ANSWER_MAX - http->length)
        return 0; /* ends the transfer */
    memcpy(http->text + http->length, bytes, length);
    http->length += length;
    http->text[http->length] = 0;
    return length;
}

#define SET(http, option, value) PROMISE(curl_easy_setopt((http)->easy, (option), (value)) == CURLE_OK)

struct etcd_http *etcd_http_open(struct etcd_access *access) {
    pthread_once(&once, begin_curl);
    struct etcd_http *http = calloc(1, sizeof *http);
    PROMISE(http != NULL);
    http->access = access;
    http->easy = curl_easy_init();
    PROMISE(http->easy != NULL);
    SET(http, CURLOPT_NOSIGNAL, 1L);
    SET(http, CURLOPT_PROTOCOLS_STR, "http,https");
    SET(http, CURLOPT_FOLLOWLOCATION, 0L);
    SET(http, CURLOPT_PROXY, "");
    SET(http, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    SET(http, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    SET(http, CURLOPT_USERAGENT, "baton");
    SET(http, CURLOPT_TCP_KEEPALIVE, 1L);
    SET(http, CURLOPT_TCP_KEEPIDLE, 10L);
    SET(http, CURLOPT_TCP_KEEPINTVL, 5L);
    SET(http, CURLOPT_ERRORBUFFER, http->trouble);
    SET(http, CURLOPT_WRITEFUNCTION, take_text);
    SET(http, CURLOPT_WRITEDATA, http);
    return http;
}

void etcd_http_close(struct etcd_http *http) {
    if (!http)
        return;
    curl_easy_cleanup(http->easy);
    curl_slist_free_all(http->headers);
    etcd_credentials_free(&http->credentials);
    free(http);
}

static void set_blob(struct etcd_http *http, CURLoption option, const struct etcd_file *file) {
    struct curl_blob blob = {file->text, file->length, CURL_BLOB_COPY};
    if (file->text)
        SET(http, option, &blob);
}

static void set_credentials(struct etcd_http *http) {
    uint64_t before = http->credentials.generation;
    etcd_access_credentials(http->access, &http->credentials);
    if (http->credentials.generation == before)
        return;
    set_blob(http, CURLOPT_CAINFO_BLOB, &http->credentials.ca);
    set_blob(http, CURLOPT_SSLCERT_BLOB, &http->credentials.certificate);
    set_blob(http, CURLOPT_SSLKEY_BLOB, &http->credentials.key);
}

static void add_header(struct etcd_http *http, const char *header) {
    struct curl_slist *longer = curl_slist_append(http->headers, header);
    PROMISE(longer != NULL);
    http->headers = longer;
}

static void set_headers(struct etcd_http *http, const char *token) {
    char line[ETCD_TOKEN_MAX + 20];
    curl_slist_free_all(http->headers);
    http->headers = NULL;
    add_header(http, "Content-Type: application/json");
    add_header(http, "Expect:");
    if (token[0]) {
        snprintf(line, sizeof line, "Authorization: %s", token);
        add_header(http, line);
    }
    SET(http, CURLOPT_HTTPHEADER, http->headers);
}

void etcd_http_prepare(struct etcd_http *http, unsigned endpoint, const char *path, const char *body, const char *token,
                       int64_t limit) {
    const char *base = etcd_access_config(http->access)->endpoints[endpoint];
    char url[256];
    size_t length = strlen(base);
    while (length > 0 && base[length - 1] == '/')
        length--;
    snprintf(url, sizeof url, "%.*s%s", (int)length, base, path);
    http->endpoint = endpoint;
    http->trouble[0] = 0;
    http->text[http->length = 0] = 0;
    set_credentials(http);
    set_headers(http, token);
    long limit_ms = limit ? (long)MAX(limit / MS, 1) : 0;
    SET(http, CURLOPT_URL, url);
    SET(http, CURLOPT_POSTFIELDS, body);
    SET(http, CURLOPT_POSTFIELDSIZE, (long)strlen(body));
    SET(http, CURLOPT_TIMEOUT_MS, limit_ms);
    SET(http, CURLOPT_CONNECTTIMEOUT_MS, limit ? MIN(limit_ms, CONNECT_MS) : CONNECT_MS);
}

bool etcd_http_sent(const struct etcd_http *http) {
    long bytes = 0;
    curl_easy_getinfo(http->easy, CURLINFO_REQUEST_SIZE, &bytes);
    return bytes > 0;
}

long etcd_http_status(const struct etcd_http *http) {
    long status = 0;
    curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

void etcd_http_why(const struct etcd_http *http, CURLcode code, char *why, size_t why_room) {
    if (code == CURLE_OPERATION_TIMEDOUT)
        snprintf(why, why_room, "%s", etcd_http_sent(http) ? "it does not answer in time" : "it cannot be reached in time");
    else if (code == CURLE_WRITE_ERROR)
        snprintf(why, why_room, "its answer is longer than any of etcd's");
    else
        snprintf(why, why_room, "%s", http->trouble[0] ? http->trouble : curl_easy_strerror(code));
    text_mend(why);
}
