/* baton create: config file and keys of a new volume. */
#include "tools/tool.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <zmq.h>

enum { OPTION_WITNESS = OPTION_OWN, OPTION_WITNESS_OF, OPTION_ACKNOWLEDGE, OPTION_FSYNC, OPTION_TRANSPORT };

struct plan {
    struct tool tool;
    const char *nodes[CONFIG_NODES_MAX];
    unsigned node_count;
    const char *witness, *witness_of, *acknowledge, *fsync, *transport;
    char made[CONFIG_NODES_MAX + 2][1200]; /* files, to be removed if a later step fails */
    unsigned made_count;
};

static int write_new_file(struct plan *plan, const char *path, mode_t mode, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0 && errno == EEXIST)
        return fail("%s is there already; choose another --config, or remove the old volume's files first", path);
    if (fd < 0)
        return fail("%s cannot be made: %s", path, strerror(errno));
    snprintf(plan->made[plan->made_count], sizeof plan->made[0], "%s", path);
    plan->made_count++;
    int error = fchmod(fd, mode) != 0 ? -errno : pwrite_all(fd, text, strlen(text), 0);
    if (error == 0 && fsync(fd) != 0)
        error = -errno;
    close(fd);
    return error ? fail("%s cannot be written: %s", path, strerror(-error)) : 0;
}

/* A key pair: the secret one goes into its file, the public one is returned. */
static int make_keys(struct plan *plan, const char *name, char public_key[KEY_TEXT]) {
    char secret[KEY_TEXT], line[KEY_TEXT + 1], path[1200];

    if (zmq_curve_keypair(public_key, secret) != 0)
        return fail("keys cannot be made: %s; libzmq must be one with CURVE", zmq_strerror(errno));
    snprintf(path, sizeof path, "%s.%s.key", plan->tool.config_path, name);
    snprintf(line, sizeof line, "%s\n", secret);
    int status = write_new_file(plan, path, 0600, line);
    explicit_bzero(secret, sizeof secret);
    explicit_bzero(line, sizeof line);
    return status;
}

/* NAME=tcp://IP:PORT,store=DIR[,mount=DIR] → a section */
static int write_node(struct plan *plan, FILE *out, const char *text) {
    AUTO_FREE char *copy = strdup(text);
    char key[KEY_TEXT];

    if (copy == NULL)
        return fail("out of memory");
    char *rest = strchr(copy, '=');
    if (rest == NULL)
        return usage(plan->tool.command, "--node %s is not NAME=tcp://IP:PORT,store=DIR,mount=DIR", text);
    *rest++ = '\0';
    if (!config_name_valid(copy))
        return usage(plan->tool.command, "\"%s\" cannot name a node; take up to 63 letters, digits, '-', '_' and '.'", copy);
    if (make_keys(plan, copy, key) != 0)
        return EXIT_FAILURE;
    char *next = strchr(rest, ',');
    if (next != NULL)
        *next++ = '\0';
    fprintf(out, "\n[node %s]\naddress = %s\npublic-key = %s\n", copy, rest, key);
    while (next != NULL) {
        char *part = next;
        next = strchr(part, ',');
        if (next != NULL)
            *next++ = '\0';
        if (strncmp(part, "store=", 6) == 0)
            fprintf(out, "store = %s\n", part + 6);
        else if (strncmp(part, "mount=", 6) == 0)
            fprintf(out, "mount = %s\n", part + 6);
        else
            return usage(plan->tool.command, "--node %s: after the address come store=DIR and mount=DIR, not \"%s\"", copy,
                         part);
    }
    return 0;
}

static int write_witness(struct plan *plan, FILE *out) {
    struct config other;
    char key[KEY_TEXT], why[1024];
    const char *address = plan->witness;

    if (plan->witness_of != NULL) {
        if (config_load(plan->witness_of, &other, why, sizeof why) != 0)
            return fail("%s", why);
        if (!other.has_witness)
            return fail("%s has no [witness]; make the volume with --witness tcp://IP:PORT", plan->witness_of);
        address = other.witness.address;
        memcpy(key, other.witness.public_key, sizeof key);
    } else if (make_keys(plan, "witness", key) != 0) {
        return EXIT_FAILURE;
    }
    fprintf(out, "\n[witness]\naddress = %s\npublic-key = %s\n", address, key);
    return 0;
}

static int write_config(struct plan *plan, FILE *out) {
    uint8_t id[16];

    if (getrandom(id, sizeof id, 0) != (ssize_t)sizeof id)
        return fail("no random numbers for the volume's id: %s", strerror(errno));
    fprintf(out, "; The volume \"%s\", the same file on every node. See baton.conf(5).\n[volume]\nname = %s\nid = ",
            plan->tool.volume, plan->tool.volume);
    for (unsigned i = 0; i < sizeof id; i++)
        fprintf(out, "%02x", id[i]);
    fprintf(out, "\ncreated = %lld\n", (long long)clock_now());
    fprintf(out, "acknowledge = %s\n", plan->acknowledge != NULL ? plan->acknowledge : "close");
    fprintf(out, "fsync = %s\n", plan->fsync != NULL ? plan->fsync : "disk");
    fprintf(out, "transport = %s\n", plan->transport != NULL ? plan->transport : "curve");
    for (unsigned i = 0; i < plan->node_count; i++) {
        int status = write_node(plan, out, plan->nodes[i]);
        if (status)
            return status;
    }
    return plan->witness != NULL || plan->witness_of != NULL ? write_witness(plan, out) : 0;
}

static int make_files(struct plan *plan) {
    AUTO_FREE char *text = NULL;
    size_t length;
    char why[1024];
    FILE *out = open_memstream(&text, &length);

    if (out == NULL)
        return fail("out of memory");
    int status = write_config(plan, out);
    if (fclose(out) != 0 && status == 0)
        status = fail("out of memory");
    if (status == 0)
        status = write_new_file(plan, plan->tool.config_path, 0644, text);
    if (status == 0 && config_load(plan->tool.config_path, &plan->tool.config, why, sizeof why) != 0)
        status = fail("%s", why);
    return status;
}

static void report_witness(const struct plan *plan) {
    const char *path = plan->tool.config.path;
    if (plan->witness_of != NULL)
        printf("On the witness: have %s there, too, beside the files of its other volumes, then\n"
               "     systemctl reload baton-witness (or a SIGHUP)\n", path);
    else
        printf("On the witness: have %s and %s.witness.key there, then\n     baton-witness %s\n", path, path, path);
    printf("When all of them are there, one of the nodes begins as primary.\n");
}

static void report(const struct plan *plan) {
    const struct config *config = &plan->tool.config;

    if (plan->tool.json) {
        json_t *keys = json_array();
        for (unsigned i = 0; i + 1 < plan->made_count; i++)
            json_array_append_new(keys, json_string(plan->made[i]));
        json_t *line = json_pack("{s:s, s:s, s:o}", "volume", config->volume, "config", config->path, "keys", keys);
        print_json(line);
        json_decref(line);
        return;
    }
    printf("Made %s and the secret keys beside it.\n\nOn each node now:\n", config->path);
    for (unsigned i = 0; i < config->node_count; i++) {
        const char *name = config->nodes[i].name;
        printf("  %s: have %s and %s.%s.key there, then\n", name, config->path, config->path, name);
        printf("     baton format --config %s --node %s\n     batond --config %s --node %s\n", config->path, name,
               config->path, name);
    }
    if (config->has_witness)
        report_witness(plan);
    else
        printf("The node that shall begin as primary is formatted with --first.\n");
}

static int run(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS,
                                            {"witness", required_argument, NULL, OPTION_WITNESS},
                                            {"witness-of", required_argument, NULL, OPTION_WITNESS_OF},
                                            {"acknowledge", required_argument, NULL, OPTION_ACKNOWLEDGE},
                                            {"fsync", required_argument, NULL, OPTION_FSYNC},
                                            {"transport", required_argument, NULL, OPTION_TRANSPORT},
                                            {NULL, 0, NULL, 0}};
    static struct plan plan;
    int option;

    plan.tool.command = &command_create;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_NODE && plan.node_count == CONFIG_NODES_MAX)
            return usage(&command_create, "at most %d nodes", CONFIG_NODES_MAX);
        if (option == OPTION_NODE)
            plan.nodes[plan.node_count++] = optarg;
        else if (option == OPTION_WITNESS)
            plan.witness = optarg;
        else if (option == OPTION_WITNESS_OF)
            plan.witness_of = optarg;
        else if (option == OPTION_ACKNOWLEDGE)
            plan.acknowledge = optarg;
        else if (option == OPTION_FSYNC)
            plan.fsync = optarg;
        else if (option == OPTION_TRANSPORT)
            plan.transport = optarg;
        else
            tool_option(&plan.tool, option, optarg);
    }
    if (optind < argc)
        return usage(&command_create, "\"%s\" is too much", argv[optind]);
    if (plan.tool.config_path == NULL || plan.tool.volume == NULL || plan.node_count == 0)
        return usage(&command_create, "--config, --volume and at least one --node are needed");
    if (plan.witness != NULL && plan.witness_of != NULL)
        return usage(&command_create, "--witness is for a new witness, --witness-of for one that another volume has: not both");
    if (strlen(plan.tool.config_path) > 900)
        return fail("the path of the config file is too long");
    int status = make_files(&plan);
    if (status) {
        while (plan.made_count > 0)
            unlink(plan.made[--plan.made_count]);
        return status;
    }
    report(&plan);
    return EXIT_SUCCESS;
}

const struct command command_create = {
    "create", "make the config file and the keys of a new volume",
    "usage: baton create --config FILE --volume NAME --node NAME=tcp://IP:PORT,store=DIR[,mount=DIR]…\n"
    "\n"
    "Makes the config file of a new volume, and for each node a secret key, FILE.NODE.key, readable by root only.\n"
    "Copy FILE to every node, and to each node its own key. With a witness the nodes\n"
    "decide who begins as primary; without one it is the node that is formatted with --first.\n"
    "A node uses the five ports PORT to PORT + 4, a witness PORT.\n"
    "\n"
    "  --config FILE           the file to make; it must not be there yet\n"
    "  --volume NAME           the volume's name\n"
    "  --node …                a node: its name, address, directory of the store, mount point; once for each node\n"
    "  --witness tcp://IP:PORT a voter without a copy: a new one, whose key is made, too\n"
    "  --witness-of FILE       the witness that the volume of that config file has\n"
    "  --acknowledge MODE      what waits for the other node: close (usual), write or never\n"
    "  --fsync MODE            disk (usual) or memory\n"
    "  --transport MODE        curve (usual; encrypted) or clear\n"
    "  --json                  print the names of the files as JSON\n",
    run};
