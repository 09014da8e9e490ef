#include "membership/etcd_access.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

struct etcd_access {
    const struct etcd_config *config;
    pthread_mutex_t lock;
    struct etcd_credentials credentials;
    char password[ETCD_PASSWORD_MAX];
    char token[ETCD_TOKEN_MAX];
    uint64_t token_number, tokens;
    unsigned preferred;
    struct etcd_member members[ETCD_ENDPOINTS_MAX];
};

/* ---- Files ----------------------------------------------------------------------------------------------------------- */

static int read_file(const char *what, const char *path, bool secret, size_t most, struct etcd_file *file, char *why,
                     size_t why_room) {
    struct stat status;
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &status) < 0) {
        int error = errno;
        snprintf(why, why_room, "[etcd] %s: %s cannot be read: %s", what, path, strerror(error));
        return -error;
    }
    if (secret && (status.st_mode & 077)) {
        snprintf(why, why_room, "[etcd] %s: others can read %s; run: chmod 600 %s", what, path, path);
        return -EACCES;
    }
    if (!S_ISREG(status.st_mode) || status.st_size <= 0 || (size_t)status.st_size > most) {
        snprintf(why, why_room, "[etcd] %s: %s is no file of 1 to %zu bytes", what, path, most);
        return -EINVAL;
    }
    file->length = (size_t)status.st_size;
    file->text = malloc(file->length + 1);
    PROMISE(file->text != NULL);
    int rc = pread_all(fd, file->text, file->length, 0);
    file->text[file->length] = 0;
    if (rc)
        snprintf(why, why_room, "[etcd] %s: %s cannot be read: %s", what, path, strerror(-rc));
    return rc;
}

static int read_credentials(const struct etcd_config *config, struct etcd_credentials *read, char *why, size_t why_room) {
    int rc = 0;
    if (config->ca[0])
        rc = read_file("ca", config->ca, false, ETCD_FILE_MAX, &read->ca, why, why_room);
    if (rc == 0 && config->certificate[0])
        rc = read_file("certificate", config->certificate, false, ETCD_FILE_MAX, &read->certificate, why, why_room);
    if (rc == 0 && config->key[0])
        rc = read_file("key", config->key, true, ETCD_FILE_MAX, &read->key, why, why_room);
    return rc;
}

static int read_password(const struct etcd_config *config, char password[ETCD_PASSWORD_MAX], char *why, size_t why_room) {
    struct etcd_file file = {0};
    password[0] = 0;
    if (!config->password_file[0])
        return 0;
    int rc = read_file("password-file", config->password_file, true, ETCD_PASSWORD_MAX - 1, &file, why, why_room);
    if (rc == 0) {
        size_t length = strcspn(file.text, "\r\n");
        if (length == 0 || strlen(file.text) != file.length || strspn(file.text + length, "\r\n") != file.length - length) {
            snprintf(why, why_room, "[etcd] password-file: %s is not one line with a password", config->password_file);
            rc = -EINVAL;
        } else {
            memcpy(password, file.text, length);
            password[length] = 0;
        }
    }
    if (file.text)
        explicit_bzero(file.text, file.length);
    free(file.text);
    return rc;
}

static void free_file(struct etcd_file *file) {
    if (file->text)
        explicit_bzero(file->text, file->length);
    free(file->text);
    *file = (struct etcd_file){0};
}

void etcd_credentials_free(struct etcd_credentials *credentials) {
    free_file(&credentials->ca);
    free_file(&credentials->certificate);
    free_file(&credentials->key);
    credentials->generation = 0;
}

static struct etcd_file copy_file(const struct etcd_file *file) {
    struct etcd_file copy = {NULL, file->length};
    if (file->text) {
        copy.text = malloc(file->length + 1);
        PROMISE(copy.text != NULL);
        memcpy(copy.text, file->text, file->length + 1);
    }
    return copy;
}

static bool same_file(const struct etcd_file *a, const struct etcd_file *b) {
    return a->length == b->length && (a->length == 0 || memcmp(a->text, b->text, a->length) == 0);
}

int etcd_access_refresh(struct etcd_access *access, char *why, size_t why_room) {
    struct etcd_credentials read = {0};
    char password[ETCD_PASSWORD_MAX];
    int rc = read_credentials(access->config, &read, why, why_room);
    if (rc == 0)
        rc = read_password(access->config, password, why, why_room);
    if (rc == 0) {
        pthread_mutex_lock(&access->lock);
        struct etcd_credentials *now = &access->credentials, old = *now;
        if (!now->generation || !same_file(&now->ca, &read.ca) || !same_file(&now->certificate, &read.certificate) ||
            !same_file(&now->key, &read.key)) {
            read.generation = now->generation + 1;
            *now = read;
            read = old;
        }
        memcpy(access->password, password, sizeof password);
        pthread_mutex_unlock(&access->lock);
        explicit_bzero(password, sizeof password);
    }
    etcd_credentials_free(&read);
    return rc;
}

/* ---- The rest -------------------------------------------------------------------------------------------------------- */

int etcd_access_open(const struct etcd_config *config, struct etcd_access **access, char *why, size_t why_room) {
    struct etcd_access *made = calloc(1, sizeof *made);
    PROMISE(made != NULL);
    made->config = config;
    pthread_mutex_init(&made->lock, NULL);
    for (unsigned i = 0; i < ETCD_ENDPOINTS_MAX; i++)
        made->members[i].heard = INT64_MIN;
    int rc = etcd_access_refresh(made, why, why_room);
    if (rc) {
        etcd_access_close(made);
        made = NULL;
    }
    *access = made;
    return rc;
}

void etcd_access_close(struct etcd_access *access) {
    etcd_credentials_free(&access->credentials);
    pthread_mutex_destroy(&access->lock);
    explicit_bzero(access, sizeof *access);
    free(access);
}

const struct etcd_config *etcd_access_config(const struct etcd_access *access) {
    return access->config;
}

void etcd_access_credentials(struct etcd_access *access, struct etcd_credentials *credentials) {
    pthread_mutex_lock(&access->lock);
    const struct etcd_credentials *now = &access->credentials;
    if (credentials->generation != now->generation) {
        etcd_credentials_free(credentials);
        *credentials = (struct etcd_credentials){now->generation, copy_file(&now->ca), copy_file(&now->certificate),
                                                 copy_file(&now->key)};
    }
    pthread_mutex_unlock(&access->lock);
}

bool etcd_access_password(struct etcd_access *access, char password[ETCD_PASSWORD_MAX]) {
    pthread_mutex_lock(&access->lock);
    memcpy(password, access->password, ETCD_PASSWORD_MAX);
    pthread_mutex_unlock(&access->lock);
    return access->config->user[0] != 0;
}

uint64_t etcd_access_token(struct etcd_access *access, char token[ETCD_TOKEN_MAX]) {
    pthread_mutex_lock(&access->lock);
    memcpy(token, access->token, ETCD_TOKEN_MAX);
    uint64_t number = access->token_number;
    pthread_mutex_unlock(&access->lock);
    return number;
}

uint64_t etcd_access_logged_in(struct etcd_access *access, uint64_t old, const char *token) {
    pthread_mutex_lock(&access->lock);
    if (access->token_number == old) { /* else another client was quicker; its token is as good */
        snprintf(access->token, sizeof access->token, "%s", token);
        access->token_number = ++access->tokens;
    }
    uint64_t number = access->token_number;
    pthread_mutex_unlock(&access->lock);
    return number;
}

unsigned etcd_access_preferred(struct etcd_access *access) {
    pthread_mutex_lock(&access->lock);
    unsigned preferred = access->preferred;
    pthread_mutex_unlock(&access->lock);
    return preferred;
}

void etcd_access_prefer(struct etcd_access *access, unsigned endpoint) {
    pthread_mutex_lock(&access->lock);
    access->preferred = endpoint;
    pthread_mutex_unlock(&access->lock);
}

void etcd_access_heard(struct etcd_access *access, unsigned endpoint, const char *why) {
    pthread_mutex_lock(&access->lock);
    struct etcd_member *member = &access->members[endpoint];
    snprintf(member->why, sizeof member->why, "%s", why ? why : "");
    if (!why)
        member->heard = clock_boot();
    pthread_mutex_unlock(&access->lock);
}

void etcd_access_member(struct etcd_access *access, unsigned endpoint, struct etcd_member *member) {
    pthread_mutex_lock(&access->lock);
    *member = access->members[endpoint];
    pthread_mutex_unlock(&access->lock);
}
