#include "membership/witness.h"

#include "membership/voter_host.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <zmq.h>

#define FILES_MAX VOTER_HOST_VOLUMES_MAX
#define WHY 1200

struct file {
    char *path;
    unsigned argument;   /* which named it, or its directory */
    bool here;           /* still there, or nobody can tell */
    bool served;
    uint8_t volume[16];  /* served */
    char *why;           /* it is bad; NULL: it is not */
};

struct witness {
    struct witness_options options;
    struct voter_host *host;
    char address[VOTER_ADDRESS], key[KEY_TEXT];
    enum transport transport;
    bool directories[WITNESS_CONFIGS_MAX]; /* of the arguments, when they were last there */
    pthread_mutex_t lock; /* of files: witness_status() reads them */
    struct file *files;
    unsigned count, room;
    struct config config; /* the one that is being read */
};

/* ---- Files ------------------------------------------------------------------------------------------------------------- */

static struct file *find(struct witness *witness, const char *path) {
    for (unsigned i = 0; i < witness->count; i++)
        if (strcmp(witness->files[i].path, path) == 0)
            return &witness->files[i];
    return NULL;
}

static int note_file(struct witness *witness, const char *path, unsigned argument) {
    struct file *file = find(witness, path);
    if (!file) {
        if (witness->count == FILES_MAX)
            return -ENOSPC;
        if (witness->count == witness->room) {
            unsigned room = witness->room ? 2 * witness->room : 8;
            struct file *more = realloc(witness->files, room * sizeof *more);
            if (!more)
                return -ENOMEM;
            witness->files = more;
            witness->room = room;
        }
        char *copy = strdup(path);
        if (!copy)
            return -ENOMEM;
        file = &witness->files[witness->count++];
        *file = (struct file){.path = copy, .argument = argument};
    }
    file->here = true;
    return 0;
}

static int is_config(const struct dirent *entry) {
    const char *end = strrchr(entry->d_name, '.');
    return entry->d_name[0] != '.' && end && strcmp(end, ".conf") == 0;
}

static int note_directory(struct witness *witness, unsigned argument) {
    const char *directory = witness->options.configs[argument];
    struct dirent **names;
    int rc = 0, count = scandir(directory, &names, is_config, alphasort);
    if (count < 0) {
        rc = -errno;
        for (unsigned i = 0; i < witness->count; i++) /* nobody knows: they stay */
            witness->files[i].here |= witness->files[i].argument == argument;
        return rc;
    }
    for (int i = 0; i < count; i++) {
        char path[2048];
        if (rc == 0 && (size_t)snprintf(path, sizeof path, "%s/%s", directory, names[i]->d_name) < sizeof path)
            rc = note_file(witness, path, argument);
        free(names[i]);
    }
    free(names);
    return rc;
}

/* Which files there are now. */
static void gather(struct witness *witness) {
    for (unsigned i = 0; i < witness->count; i++)
        witness->files[i].here = false;
    for (unsigned i = 0; i < witness->options.count; i++) {
        struct stat status;
        const char *path = witness->options.configs[i];
        if (stat(path, &status) == 0)
            witness->directories[i] = S_ISDIR(status.st_mode);
        int rc = witness->directories[i] ? note_directory(witness, i) : note_file(witness, path, i);
        if (rc)
            log_error("the config files of %s cannot be read: %s; their volumes stay as they are", path, strerror(-rc));
    }
}

static void set_why(struct witness *witness, struct file *file, const char *why) {
    pthread_mutex_lock(&witness->lock);
    free(file->why);
    file->why = why ? strdup(why) : NULL;
    pthread_mutex_unlock(&witness->lock);
}

static void complain(struct witness *witness, struct file *file, const char *why) {
    set_why(witness, file, why);
    log_error("%s%s", why, file->served ? "; its volume is served as before" : "; it is not served");
}

/* ---- Configs ----------------------------------------------------------------------------------------------------------- */

/* 0, or a sentence: reads the file into `witness->config`. */
static int read_config(struct witness *witness, const struct file *file, char *why, size_t why_room) {
    int rc = config_load(file->path, &witness->config, why, why_room);
    if (rc == 0 && !witness->config.has_witness) {
        snprintf(why, why_room, "%s: there is no [witness]; this volume does not ask one", file->path);
        rc = -EINVAL;
    }
    return rc;
}

/* One socket serves all: they have to have told the nodes the same. */
static int check_same(const struct witness *witness, const struct file *file, char *why, size_t why_room) {
    const struct config *config = &witness->config;
    char address[VOTER_ADDRESS];
    if (voter_address(config, config->witness.name, address) != 0 || strcmp(address, witness->address) != 0)
        snprintf(why, why_room, "%s: its [witness] is at %s, but this one at %s; give it that address, or a baton-witness of its "
                                "own", file->path, config->witness.address, witness->address);
    else if (config->transport != witness->transport)
        snprintf(why, why_room, "%s: transport = %s, but the others here have transport = %s; one witness has one", file->path,
                 config->transport == TRANSPORT_CURVE ? "curve" : "clear", config->transport == TRANSPORT_CURVE ? "clear" : "curve");
    else if (config->transport == TRANSPORT_CURVE && strcmp(config->witness.public_key, witness->key) != 0)
        snprintf(why, why_room, "%s: the public-key of its [witness] is not this one's; let it say public-key = %s", file->path,
                 witness->key);
    else
        return 0;
    return -EINVAL;
}

static const struct file *served_by_other(struct witness *witness, const struct file *file) {
    for (unsigned i = 0; i < witness->count; i++) {
        const struct file *other = &witness->files[i];
        if (other != file && other->served && other->here && memcmp(other->volume, witness->config.volume_id, 16) == 0)
            return other;
    }
    return NULL;
}

static int serve(struct witness *witness, struct file *file, char *why, size_t why_room) {
    const struct config *config = &witness->config;
    int rc = check_same(witness, file, why, why_room);
    const struct file *other = rc ? NULL : served_by_other(witness, file);
    if (other) {
        snprintf(why, why_room, "%s: volume %s has the same id as that of %s; remove one of them", file->path, config->volume,
                 other->path);
        return -EEXIST;
    }
    if (rc == 0)
        rc = voter_host_serve(witness->host, config, config->witness.name, NULL, why, why_room);
    return rc;
}

/* Unless another file has it now. */
static void drop(struct witness *witness, struct file *file) {
    bool elsewhere = false;
    for (unsigned i = 0; i < witness->count; i++)
        elsewhere |= &witness->files[i] != file && witness->files[i].served &&
                     memcmp(witness->files[i].volume, file->volume, 16) == 0;
    file->served = false;
    if (elsewhere)
        return;
    log_info("the volume of %s is served no more", file->path);
    voter_host_drop(witness->host, file->volume);
}

static void take(struct witness *witness, struct file *file) {
    char why[WHY];
    int rc = read_config(witness, file, why, sizeof why);
    if (rc == 0)
        rc = serve(witness, file, why, sizeof why);
    if (rc) {
        complain(witness, file, why);
        return;
    }
    set_why(witness, file, NULL);
    bool same = file->served && memcmp(file->volume, witness->config.volume_id, 16) == 0;
    if (file->served && !same)
        drop(witness, file);
    memcpy(file->volume, witness->config.volume_id, 16);
    file->served = true;
    if (!same)
        log_info("serves volume %s of %s", witness->config.volume, file->path);
}

/* Those whose files are gone. */
static void sweep(struct witness *witness) {
    unsigned kept = 0;
    for (unsigned i = 0; i < witness->count; i++) {
        struct file *file = &witness->files[i];
        if (!file->here && file->served)
            drop(witness, file);
    }
    for (unsigned i = 0; i < witness->count; i++) {
        if (witness->files[i].here) {
            witness->files[kept++] = witness->files[i];
        } else {
            free(witness->files[i].path);
            free(witness->files[i].why);
        }
    }
    witness->count = kept;
}

void witness_reload(struct witness *witness) {
    pthread_mutex_lock(&witness->lock);
    gather(witness);
    pthread_mutex_unlock(&witness->lock);
    for (unsigned i = 0; i < witness->count; i++)
        if (witness->files[i].here) /* may wait for the disk: status need not */
            take(witness, &witness->files[i]);
    pthread_mutex_lock(&witness->lock);
    sweep(witness);
    pthread_mutex_unlock(&witness->lock);
}

/* ---- Opening ----------------------------------------------------------------------------------------------------------- */

static int key_of(const struct witness *witness, char secret[KEY_TEXT], char *why, size_t why_room) {
    const struct config *config = &witness->config;
    char key[KEY_TEXT];
    if (config->transport == TRANSPORT_CLEAR)
        return 0;
    int rc = config_secret(config, config->witness.name, witness->options.secret_key, secret, why, why_room);
    if (rc == 0 && (zmq_curve_public(key, secret) < 0 || strcmp(key, config->witness.public_key) != 0)) {
        snprintf(why, why_room, "the secret key does not belong to the public-key of [witness] in %s; take the one that `baton "
                                "create` made with it", config->path);
        rc = -EINVAL;
    }
    return rc;
}

/* The first good file that has its secret key beside it, or for which one is given, says where and as whom this witness listens.
 * Of the volumes that share a witness one alone was made with the key. */
static int introduce(struct witness *witness, char secret[KEY_TEXT], char *why, size_t why_room) {
    const struct config *config = &witness->config;
    enum { NO_FILE, BAD_FILE, NO_KEY, BAD_KEY } most = NO_FILE; /* what is told is what came furthest */
    char bad[WHY];
    int rc = -ENOENT;
    snprintf(why, why_room, "there is no config file");
    for (unsigned i = 0; i < witness->count; i++) {
        int found = read_config(witness, &witness->files[i], bad, sizeof bad), far = BAD_FILE;
        if (found == 0) {
            found = key_of(witness, secret, bad, sizeof bad);
            far = found == -ENOENT ? NO_KEY : BAD_KEY;
        }
        if (found == 0) {
            PROMISE(voter_address(config, config->witness.name, witness->address) == 0);
            witness->transport = config->transport;
            memcpy(witness->key, config->witness.public_key, sizeof witness->key);
            return 0;
        }
        if (far > (int)most) {
            snprintf(why, why_room, "%s", bad);
            most = far;
            rc = found;
        }
    }
    return rc;
}

int witness_open(const struct witness_options *options, struct witness **out, char *why, size_t why_room) {
    struct witness *witness = calloc(1, sizeof *witness);
    char secret[KEY_TEXT] = "";
    if (!witness) {
        snprintf(why, why_room, "no memory");
        return -ENOMEM;
    }
    witness->options = *options;
    PROMISE(pthread_mutex_init(&witness->lock, NULL) == 0);
    gather(witness);
    int rc = introduce(witness, secret, why, why_room);
    if (rc == 0) {
        struct voter_host_options host = {witness->address, witness->transport, secret, options->state};
        rc = voter_host_open(&host, &witness->host, why, why_room);
    }
    for (unsigned i = 0; rc == 0 && i < witness->count; i++)
        take(witness, &witness->files[i]);
    if (rc == 0 && witness_count(witness) == 0) {
        snprintf(why, why_room, "no volume can be served");
        rc = -EINVAL;
    }
    explicit_bzero(secret, sizeof secret);
    if (rc)
        witness_close(witness);
    else
        *out = witness;
    return rc;
}

void witness_close(struct witness *witness) {
    if (witness->host)
        voter_host_close(witness->host);
    for (unsigned i = 0; i < witness->count; i++) {
        free(witness->files[i].path);
        free(witness->files[i].why);
    }
    free(witness->files);
    pthread_mutex_destroy(&witness->lock);
    free(witness);
}

unsigned witness_count(const struct witness *witness) {
    return voter_host_view(witness->host, NULL, 0);
}

const char *witness_address(const struct witness *witness) {
    return witness->address;
}

/* ---- Status ------------------------------------------------------------------------------------------------------------ */

static json_t *show_volume(const struct voter_host_view *view) {
    char id[33];
    for (unsigned i = 0; i < 16; i++)
        snprintf(id + 2 * i, 3, "%02x", view->volume[i]);
    json_t *line = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:b, s:I, s:I, s:I}", "volume", view->name, "id", id,
                             "holder", view->holder, "grant_left_ms", (json_int_t)(view->grant_left / 1000000), "quiet_left_ms",
                             (json_int_t)(view->quiet_left / 1000000), "lease_ms", (json_int_t)(view->lease / 1000000), "epoch",
                             (json_int_t)EPOCH_COUNTER(view->epoch), "version", (json_int_t)view->version, "primary",
                             view->primary, "listed", view->listed, "asked", (json_int_t)view->asked, "refused",
                             (json_int_t)view->refused, "failed", (json_int_t)view->failed);
    if (line && view->why[0])
        json_object_set_new(line, "why", json_string(view->why));
    return line;
}

static json_t *show_volumes(struct witness *witness) {
    unsigned room = voter_host_view(witness->host, NULL, 0) + 8;
    AUTO_FREE struct voter_host_view *views = calloc(room, sizeof *views);
    json_t *volumes = json_array();
    unsigned count = views ? voter_host_view(witness->host, views, room) : 0;
    for (unsigned i = 0; i < MIN(count, room); i++)
        json_array_append_new(volumes, show_volume(&views[i]));
    return volumes;
}

static json_t *show_bad(struct witness *witness) {
    json_t *bad = json_array();
    pthread_mutex_lock(&witness->lock);
    for (unsigned i = 0; i < witness->count; i++)
        if (witness->files[i].why)
            json_array_append_new(bad, json_pack("{s:s, s:s, s:b}", "file", witness->files[i].path, "why", witness->files[i].why,
                                                 "served", witness->files[i].served));
    pthread_mutex_unlock(&witness->lock);
    return bad;
}

json_t *witness_status(struct witness *witness) {
    struct voter_host_counts counts;
    voter_host_counts(witness->host, &counts);
    return json_pack("{s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I}", "address", witness->address, "state", witness->options.state,
                     "volumes", show_volumes(witness), "bad_files", show_bad(witness), "strangers", (json_int_t)counts.strangers,
                     "unknown", (json_int_t)counts.unknown, "garbage", (json_int_t)counts.garbage, "dropped",
                     (json_int_t)counts.dropped);
}
