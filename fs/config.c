#include <config.h>
#include "fs/config_parts.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define CONFIG_FILE_MAX (1 << 20)
#define CONFIG_LINE_MAX 2048
#define SPARE_AFTER_MAX (28u * 24 * 3600 * 1000)
#define FENCE_TIMEOUT_MAX 600000u

bool config_complain(struct parse *parse, const char *format, ...) {
    if (parse->failed)
        return false;
    parse->failed = true;
    int head = snprintf(parse->why, parse->why_room, "%s:%d: ", parse->config->path, parse->line);
    if (head < 0 || (size_t)head >= parse->why_room)
        return false;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(parse->why + head, parse->why_room - (size_t)head, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

struct unit {
    const char *name;
    uint64_t factor;
};

static int parse_units(const char *text, const struct unit *units, uint64_t *value) {
    uint64_t number = 0;
    const char *at = text;

    for (; *at >= '0' && *at <= '9'; at++) {
        if (MUL_OVERFLOWS(number, (uint64_t)10, &number) || ADD_OVERFLOWS(number, (uint64_t)(*at - '0'), &number))
            return -EINVAL;
    }
    if (at == text)
        return -EINVAL;
    while (*at == ' ')
        at++;
    for (; units->name != NULL; units++) {
        if (strcmp(at, units->name) == 0)
            return MUL_OVERFLOWS(number, units->factor, value) ? -EINVAL : 0;
    }
    *value = 0;
    return *at == '\0' && number == 0 ? 0 : -EINVAL;
}

int parse_duration(const char *text, uint64_t *ms) {
    static const struct unit units[] = {{"ms", 1},          {"s", 1000},       {"min", 60000}, {"m", 60000},
                                        {"h", 3600000},     {"d", 86400000},   {"w", 604800000}, {NULL, 0}};
    return parse_units(text, units, ms);
}

int parse_size(const char *text, uint64_t *bytes) {
    static const struct unit units[] = {{"", 1},
                                        {"B", 1},
                                        {"KiB", 1ull << 10},
                                        {"MiB", 1ull << 20},
                                        {"GiB", 1ull << 30},
                                        {"TiB", 1ull << 40},
                                        {NULL, 0}};
    return parse_units(text, units, bytes);
}

bool config_name_valid(const char *name) {
    size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
    return length > 0 && length < 64 && name[length] == '\0' && strchr("_.-", name[0]) == NULL;
}

bool config_key_valid(const char *text) {
    static const char z85[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    return strspn(text, z85) == KEY_TEXT - 1 && text[KEY_TEXT - 1] == '\0';
}

int config_address(const char *address, char host[64], uint16_t *port) {
    uint8_t binary[16];
    const char *end;
    unsigned number = 0;

    if (strncmp(address, "tcp://", 6) != 0)
        return -EINVAL;
    const char *begin = address + 6;
    bool six = *begin == '[';
    if (six)
        begin++;
    end = six ? strchr(begin, ']') : strchr(begin, ':');
    if (end == NULL || end - begin >= 64 || (six && end[1] != ':'))
        return -EINVAL;
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';
    if (inet_pton(six ? AF_INET6 : AF_INET, host, binary) != 1)
        return -EINVAL;
    const char *digits = end + (six ? 2 : 1);
    size_t length = strspn(digits, "0123456789");
    if (length == 0 || length > 5 || digits[length] != '\0')
        return -EINVAL;
    for (size_t i = 0; i < length; i++)
        number = number * 10 + (unsigned)(digits[i] - '0');
    if (number == 0 || number > UINT16_MAX - (NODE_PORTS - 1))
        return -EINVAL;
    *port = (uint16_t)number;
    return 0;
}

static bool copy_value(struct parse *parse, char *to, size_t room, const char *key, const char *value) {
    size_t length = strlen(value);
    if (length >= room)
        return config_complain(parse, "%s is too long: at most %zu characters", key, room - 1);
    memcpy(to, value, length + 1);
    return true;
}

static bool choose(struct parse *parse, const struct key_rule *rule, const char *value) {
    const char *const *words = rule->words;
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(value, words[i]) == 0) {
            memcpy((char *)parse->config + rule->at, &i, sizeof i);
            return true;
        }
    }
    return config_complain(parse, "%s = \"%s\" is not known; choose %s, %s%s%s", rule->name, value, words[0], words[1],
                    words[2] != NULL ? " or " : "", words[2] != NULL ? words[2] : "");
}

/* ---- keys ------------------------------------------------------------------------------------------------------------ */

static bool set_name(struct parse *parse, const char *value) {
    if (!config_name_valid(value))
        return config_complain(parse, "\"%s\" cannot name a volume; take up to 63 letters, digits, '-', '_' and '.'", value);
    return copy_value(parse, parse->config->volume, sizeof parse->config->volume, "name", value);
}

static bool set_id(struct parse *parse, const char *value) {
    if (strlen(value) != 32 || strspn(value, "0123456789abcdef") != 32)
        return config_complain(parse, "id must be the 32 hexadecimal digits that `baton create` wrote");
    for (size_t i = 0; i < 16; i++) {
        char digits[3] = {value[2 * i], value[2 * i + 1], '\0'};
        parse->config->volume_id[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return true;
}

static bool set_created(struct parse *parse, const char *value) {
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || number <= 0)
        return config_complain(parse, "created must be the number that `baton create` wrote (nanoseconds since 1970)");
    parse->config->created = number;
    return true;
}

static bool set_options(struct parse *parse, const char *value) {
    if (value[strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789_=,")] != '\0')
        return config_complain(parse, "mount-options = \"%s\": give options with commas between them and no spaces", value);
    return copy_value(parse, parse->config->options, sizeof parse->config->options, "mount-options", value);
}

static bool set_address(struct parse *parse, const char *value) {
    char host[64];
    uint16_t port;
    if (config_address(value, host, &port) != 0)
        return config_complain(parse,
                        "address = \"%s\" is not tcp://IP:PORT; IP is a number like 10.0.0.1 or [fd00::1], PORT at "
                        "most %d",
                        value, UINT16_MAX - (NODE_PORTS - 1));
    return copy_value(parse, parse->node->address, sizeof parse->node->address, "address", value);
}

static bool set_public_key(struct parse *parse, const char *value) {
    if (!config_key_valid(value))
        return config_complain(parse, "public-key must be the 40 characters (Z85) that `baton create` wrote");
    return copy_value(parse, parse->node->public_key, sizeof parse->node->public_key, "public-key", value);
}

static bool set_path(struct parse *parse, char *to, size_t room, const char *key, const char *value) {
    if (value[0] != '/')
        return config_complain(parse, "%s = \"%s\" must be a full path, beginning with /", key, value);
    if (!copy_value(parse, to, room, key, value))
        return false;
    for (size_t length = strlen(to); length > 1 && to[length - 1] == '/'; length--)
        to[length - 1] = '\0';
    if (to[1] == '\0')
        return config_complain(parse, "%s = / cannot be; take a directory of its own", key);
    return true;
}

static bool set_store(struct parse *parse, const char *value) {
    return set_path(parse, parse->node->store, sizeof parse->node->store, "store", value);
}

static bool set_mount(struct parse *parse, const char *value) {
    return set_path(parse, parse->node->mount, sizeof parse->node->mount, "mount", value);
}

static bool set_history(struct parse *parse, const char *value) {
    uint64_t ms;
    if (parse_duration(value, &ms) != 0)
        return config_complain(parse, "history = \"%s\" is not a duration like 30min, 1h or 7d", value);
    if (ms > 0 && ms < 1000)
        return config_complain(parse, "history = %s is too short; at least 1s, or 0 to keep none", value);
    parse->config->history_seconds = ms / 1000;
    return true;
}

static bool set_size(struct parse *parse, const char *value) {
    if (parse_size(value, &parse->config->history_bytes) != 0)
        return config_complain(parse, "size = \"%s\" is not a size like 64MiB or 1GiB", value);
    return true;
}

static bool set_limit(struct parse *parse, const char *value) {
    if (parse_size(value, &parse->config->limit_bytes) != 0 || parse->config->limit_bytes == 0)
        return config_complain(parse, "limit = \"%s\" is not a size like 8GiB", value);
    return true;
}

static bool set_duration(struct parse *parse, const char *value) {
    uint64_t ms;
    if (parse_duration(value, &ms) != 0)
        return config_complain(parse, "duration = \"%s\" is not a duration like 2s or 500ms", value);
    if (ms < 100 || ms > 600000)
        return config_complain(parse, "duration = %s is out of range; take 100ms to 10min", value);
    parse->config->lease_ms = (uint32_t)ms;
    return true;
}

static bool take_rate(struct parse *parse, const char *value, uint64_t *rate) {
    if (parse_size(value, rate) != 0 || *rate < 64u << 10 || *rate > INT64_MAX)
        return config_complain(parse, "rate = \"%s\" is not a size like 32MiB (a second); at least 64KiB", value);
    return true;
}

static bool take_every(struct parse *parse, const char *value, uint64_t *seconds) {
    uint64_t ms;
    if (parse_duration(value, &ms) != 0)
        return config_complain(parse, "every = \"%s\" is not a duration like 7d, or 0", value);
    if (ms > 0 && ms < 60000)
        return config_complain(parse, "every = %s is too short; at least 1min, or 0 for only when asked", value);
    *seconds = ms / 1000;
    return true;
}

static bool set_scrub_rate(struct parse *parse, const char *value) {
    return take_rate(parse, value, &parse->config->scrub_rate);
}

static bool set_scrub_every(struct parse *parse, const char *value) {
    return take_every(parse, value, &parse->config->scrub_seconds);
}

static bool set_verify_rate(struct parse *parse, const char *value) {
    return take_rate(parse, value, &parse->config->verify_rate);
}

static bool set_verify_every(struct parse *parse, const char *value) {
    return take_every(parse, value, &parse->config->verify_seconds);
}

#define SHARE_MAX 90 /* percent: a primary does not stand still for a peer */
#define FLOOR_MIN (16u << 10)

static bool set_share(struct parse *parse, const char *value) {
    char *end;
    errno = 0;
    unsigned long number = strtoul(value, &end, 10);
    if (errno != 0 || value[0] < '0' || value[0] > '9' || (strcmp(end, "%") != 0 && strcmp(value, "0") != 0))
        return config_complain(parse, "share = \"%s\" is not a share like 50%%, or 0", value);
    if (number > SHARE_MAX)
        return config_complain(parse, "share = %s is out of range; take 0 to %d%%", value, SHARE_MAX);
    parse->config->catchup_share = (unsigned)number;
    return true;
}

static bool set_floor(struct parse *parse, const char *value) {
    if (parse_size(value, &parse->config->catchup_floor) != 0 || parse->config->catchup_floor < FLOOR_MIN)
        return config_complain(parse, "floor = \"%s\" is not a size like 1MiB (a second); at least 16KiB", value);
    return true;
}

static bool set_preferred(struct parse *parse, const char *value) {
    return copy_value(parse, parse->config->preferred, sizeof parse->config->preferred, "preferred", value);
}

static bool set_spare_node(struct parse *parse, const char *value) {
    return copy_value(parse, parse->config->spare, sizeof parse->config->spare, "node", value);
}

static bool set_spare_after(struct parse *parse, const char *value) {
    if (parse_duration(value, &parse->config->spare_ms) != 0 || parse->config->spare_ms < 1000 ||
        parse->config->spare_ms > SPARE_AFTER_MAX)
        return config_complain(parse, "after = \"%s\" is not a duration like 10min or 1h, from 1s to 28d", value);
    return true;
}

static bool set_hooks(struct parse *parse, const char *value) {
    return set_path(parse, parse->config->hooks, sizeof parse->config->hooks, "hooks", value);
}

static bool set_fence_program(struct parse *parse, const char *value) {
    return set_path(parse, parse->config->fence, sizeof parse->config->fence, "program", value);
}

static bool set_fence_timeout(struct parse *parse, const char *value) {
    if (parse_duration(value, &parse->config->fence_ms) != 0 || parse->config->fence_ms < 100 ||
        parse->config->fence_ms > FENCE_TIMEOUT_MAX)
        return config_complain(parse, "timeout = \"%s\" is not a duration like 30s, from 100ms to 10min", value);
    return true;
}

static bool set_endpoints(struct parse *parse, const char *value) {
    struct etcd_config *etcd = &parse->config->etcd;
    while (*value != '\0') {
        size_t length = strcspn(value, ", ");
        bool web = strncmp(value, "http://", 7) == 0 || strncmp(value, "https://", 8) == 0;
        if (!web || length <= 8 || length >= sizeof etcd->endpoints[0])
            return config_complain(parse, "endpoints: \"%.*s\" is not http://HOST:PORT or https://HOST:PORT", (int)length, value);
        if (etcd->endpoint_count == ETCD_ENDPOINTS_MAX)
            return config_complain(parse, "endpoints: at most %d", ETCD_ENDPOINTS_MAX);
        memcpy(etcd->endpoints[etcd->endpoint_count], value, length);
        etcd->endpoints[etcd->endpoint_count++][length] = '\0';
        value += length;
        value += strspn(value, ", ");
    }
    return true;
}

static bool set_prefix(struct parse *parse, const char *value) {
    if (value[strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-")] != '\0')
        return config_complain(parse, "prefix = \"%s\": take letters, digits, '-', '_', '.' and '/'", value);
    return copy_value(parse, parse->config->etcd.prefix, sizeof parse->config->etcd.prefix, "prefix", value);
}

static bool set_ca(struct parse *parse, const char *value) {
    return set_path(parse, parse->config->etcd.ca, sizeof parse->config->etcd.ca, "ca", value);
}

static bool set_certificate(struct parse *parse, const char *value) {
    return set_path(parse, parse->config->etcd.certificate, sizeof parse->config->etcd.certificate, "certificate", value);
}

static bool set_etcd_key(struct parse *parse, const char *value) {
    return set_path(parse, parse->config->etcd.key, sizeof parse->config->etcd.key, "key", value);
}

static bool set_user(struct parse *parse, const char *value) {
    return copy_value(parse, parse->config->etcd.user, sizeof parse->config->etcd.user, "user", value);
}

static bool set_password_file(struct parse *parse, const char *value) {
    return set_path(parse, parse->config->etcd.password_file, sizeof parse->config->etcd.password_file, "password-file", value);
}

#define KEY(name, set) {name, set, NULL, 0}
#define ONE_OF(name, field, ...)                                                                   \
    {name, NULL, (const char *const[]){__VA_ARGS__, NULL}, offsetof(struct config, field)}
_Static_assert(sizeof(enum acknowledge) == sizeof(int), "a word's place is stored as an int");
static const struct key_rule volume_keys[] = {KEY("name", set_name),
                                              KEY("id", set_id),
                                              KEY("created", set_created),
                                              ONE_OF("acknowledge", acknowledge, "close", "write", "never"),
                                              ONE_OF("fsync", fsync, "disk", "memory"),
                                              ONE_OF("transport", transport, "curve", "clear"),
                                              KEY("mount-options", set_options),
                                              ONE_OF("request-loop", request_loop, "auto", "device", "io_uring"),
                                              ONE_OF("cpu-idle", cpu_idle, "auto", "sleep"),
                                              KEY("preferred", set_preferred),
                                              KEY("hooks", set_hooks),
                                              ONE_OF("failback", failback, "manual", "auto"),
                                              KEY(NULL, NULL)};
static const struct key_rule node_keys[] = {KEY("address", set_address), KEY("public-key", set_public_key),
                                            KEY("store", set_store), KEY("mount", set_mount), KEY(NULL, NULL)};
static const struct key_rule witness_keys[] = {KEY("address", set_address), KEY("public-key", set_public_key),
                                               KEY(NULL, NULL)};
static const struct key_rule journal_keys[] = {KEY("history", set_history), KEY("size", set_size),
                                               KEY("limit", set_limit), KEY(NULL, NULL)};
static const struct key_rule scrub_keys[] = {KEY("rate", set_scrub_rate), KEY("every", set_scrub_every), KEY(NULL, NULL)};
static const struct key_rule verify_keys[] = {KEY("rate", set_verify_rate), KEY("every", set_verify_every), KEY(NULL, NULL)};
static const struct key_rule catchup_keys[] = {KEY("share", set_share), KEY("floor", set_floor), KEY(NULL, NULL)};
static const struct key_rule lease_keys[] = {KEY("duration", set_duration),
                                             ONE_OF("after-power-cut", after_power_cut, "wait", "go"), KEY(NULL, NULL)};
static const struct key_rule spare_keys[] = {KEY("node", set_spare_node), KEY("after", set_spare_after), KEY(NULL, NULL)};
static const struct key_rule fence_keys[] = {KEY("program", set_fence_program), KEY("timeout", set_fence_timeout),
                                             KEY(NULL, NULL)};
static const struct key_rule etcd_keys[] = {KEY("endpoints", set_endpoints),
                                            KEY("prefix", set_prefix),
                                            KEY("ca", set_ca),
                                            KEY("certificate", set_certificate),
                                            KEY("key", set_etcd_key),
                                            KEY("user", set_user),
                                            KEY("password-file", set_password_file),
                                            KEY(NULL, NULL)};

static const struct section section_volume = {"volume", volume_keys};
static const struct section section_node = {"node", node_keys};
static const struct section section_witness = {"witness", witness_keys};
static const struct section section_journal = {"journal", journal_keys};
static const struct section section_scrub = {"scrub", scrub_keys};
static const struct section section_verify = {"verify", verify_keys};
static const struct section section_catchup = {"catch-up", catchup_keys};
static const struct section section_lease = {"lease", lease_keys};
static const struct section section_spare = {"spare", spare_keys};
static const struct section section_fence = {"fence", fence_keys};
static const struct section section_etcd = {"etcd", etcd_keys};

/* ---- lines ----------------------------------------------------------------------------------------------------------- */

static bool enter_node(struct parse *parse, const char *name) {
    struct config *config = parse->config;

    if (!config_name_valid(name))
        return config_complain(parse, "\"%s\" cannot name a node; take up to 63 letters, digits, '-', '_' and '.'", name);
    if (config_node(config, name) != NULL)
        return config_complain(parse, "there is another [node %s] above; each node stands here once", name);
    if (config->node_count == CONFIG_NODES_MAX)
        return config_complain(parse, "more than %d nodes; a volume cannot have that many", CONFIG_NODES_MAX);
    struct node_config *node = &config->nodes[config->node_count];
    parse->seen = &parse->node_seen[config->node_count++];
    parse->section = &section_node;
    parse->node = node;
    memcpy(node->name, name, strlen(name) + 1);
    node->number = (uint16_t)XXH32(name, strlen(name), 0);
    if (node->number == 0)
        node->number = 1;
    for (unsigned i = 0; i + 1 < config->node_count; i++) {
        if (config->nodes[i].number == node->number)
            return config_complain(parse, "nodes \"%s\" and \"%s\" have the same number by chance; rename one of them",
                            config->nodes[i].name, name);
    }
    return true;
}

static bool enter_section(struct parse *parse, char *line) {
    char *end = strchr(line, ']');

    if (end == NULL)
        return config_complain(parse, "a section begins here but has no ]");
    *end = '\0';
    const char *name = line + 1;
    parse->node = NULL;
    parse->export = NULL;
    if (strncmp(name, "node ", 5) == 0)
        return enter_node(parse, name + 5);
    if (strncmp(name, "export ", 7) == 0)
        return config_enter_export(parse, name + 7);
    if (strcmp(name, "volume") == 0) {
        parse->section = &section_volume;
        parse->seen = &parse->volume_seen;
    } else if (strcmp(name, "scrub") == 0) {
        parse->section = &section_scrub;
        parse->seen = &parse->scrub_seen;
    } else if (strcmp(name, "verify") == 0) {
        parse->section = &section_verify;
        parse->seen = &parse->verify_seen;
    } else if (strcmp(name, "journal") == 0) {
        parse->section = &section_journal;
        parse->seen = &parse->journal_seen;
    } else if (strcmp(name, "catch-up") == 0) {
        parse->section = &section_catchup;
        parse->seen = &parse->catchup_seen;
    } else if (strcmp(name, "lease") == 0) {
        parse->section = &section_lease;
        parse->seen = &parse->lease_seen;
    } else if (strcmp(name, "spare") == 0) {
        parse->section = &section_spare;
        parse->seen = &parse->spare_seen;
    } else if (strcmp(name, "fence") == 0) {
        parse->section = &section_fence;
        parse->seen = &parse->fence_seen;
    } else if (strcmp(name, "etcd") == 0) {
        parse->section = &section_etcd;
        parse->seen = &parse->etcd_seen;
    } else if (strcmp(name, "witness") == 0) {
        parse->section = &section_witness;
        parse->seen = &parse->witness_seen;
        parse->node = &parse->config->witness;
        memcpy(parse->node->name, "witness", sizeof "witness");
        parse->config->has_witness = true;
    } else {
        return config_complain(parse, "unknown section [%s]; there are [volume], [node NAME], [witness], [journal], [scrub], [verify], "
                               "[catch-up], [lease], [spare], [fence], [etcd] and [export NAME]",
                        name);
    }
    return true;
}

/* inih's reader: the next line, or NULL at the end and after the first complaint. */
static char *next_line(char *buffer, int room, void *context) {
    struct parse *parse = context;

    if (parse->failed || fgets(buffer, room, parse->file) == NULL)
        return NULL;
    parse->line++;
    size_t length = strlen(buffer);
    if (length > 0 && buffer[length - 1] != '\n' && !feof(parse->file)) {
        config_complain(parse, "this line has more than %d characters, or a NUL among them; shorten it", room - 2);
        return NULL;
    }
    const char *begin = buffer + strspn(buffer, " \t\r\n");
    if (begin > buffer && *begin != '\0' && *begin != ';' && *begin != '#') {
        config_complain(parse, "this line begins with a space; let it begin at the margin");
        return NULL;
    }
    if (*buffer == '[') {
        char copy[CONFIG_LINE_MAX];
        memcpy(copy, buffer, MIN(length + 1, sizeof copy));
        copy[sizeof copy - 1] = '\0';
        if (!enter_section(parse, copy))
            return NULL;
    }
    return buffer;
}

static int take_key(void *context, const char *section, const char *name, const char *value) {
    struct parse *parse = context;

    (void)section;
    if (parse->section == NULL)
        return config_complain(parse, "\"%s\" stands outside any section; the file begins with [volume]", name);
    if (parse->export != NULL)
        return config_export_key(parse, name, value);
    for (unsigned i = 0; parse->section->keys[i].name != NULL; i++) {
        if (strcmp(parse->section->keys[i].name, name) != 0)
            continue;
        if (*parse->seen & (1u << i))
            return config_complain(parse, "%s is given twice in [%s]; remove one", name, parse->section->name);
        *parse->seen |= 1u << i;
        if (*value == '\0')
            return config_complain(parse, "%s has no value; give it one or remove the line", name);
        const struct key_rule *rule = &parse->section->keys[i];
        return rule->set != NULL ? rule->set(parse, value) : choose(parse, rule, value);
    }
    char known[256] = "";
    for (size_t i = 0; parse->section->keys[i].name != NULL; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "", parse->section->keys[i].name);
    }
    return config_complain(parse, "unknown key \"%s\" in [%s]; known are %s", name, parse->section->name, known);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------- */

static void set_defaults(struct config *config) {
    config->history_seconds = 3600;
    config->history_bytes = 1ull << 30;
    config->scrub_rate = 32u << 20;
    config->verify_rate = 8u << 20;
    config->limit_bytes = 8ull << 30;
    config->catchup_share = 50;
    config->catchup_floor = 1u << 20;
    config->lease_ms = 2000;
    config->spare_ms = 600000;
    config->fence_ms = 30000;
    memcpy(config->etcd.prefix, "baton", sizeof "baton");
}

static int open_config(const char *path, FILE **file, char *why, size_t why_room) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    *file = NULL;
    if (fd < 0) {
        int error = errno;
        snprintf(why, why_room, "%s cannot be read: %s", path, strerror(error));
        return -error;
    }
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > CONFIG_FILE_MAX) {
        snprintf(why, why_room, "%s is not a config file: it must be a plain file of at most 1 MiB", path);
        close(fd);
        return -EINVAL;
    }
    *file = fdopen(fd, "r");
    if (*file == NULL) {
        snprintf(why, why_room, "%s cannot be read: %s", path, strerror(errno));
        close(fd);
        return -ENOMEM;
    }
    return 0;
}

int config_load(const char *path, struct config *config, char *why, size_t why_room) {
    struct parse parse = {.config = config, .why = why, .why_room = why_room};

    memset(config, 0, sizeof *config);
    if (strlen(path) >= sizeof config->path) {
        snprintf(why, why_room, "the path of the config file is too long");
        return -ENAMETOOLONG;
    }
    memcpy(config->path, path, strlen(path) + 1);
    set_defaults(config);
    int error = open_config(path, &parse.file, why, why_room);
    if (error)
        return error;
#if HAVE_DECL_INI_MAX_LINE
    ini_use_stack = false;
    ini_max_line = CONFIG_LINE_MAX;
    ini_initial_alloc = CONFIG_LINE_MAX;
#endif
    int line = ini_parse_stream(next_line, &parse, take_key, &parse);
    if (line > 0 && !parse.failed) {
        parse.line = line;
        config_complain(&parse, "this is neither a [section] nor \"key = value\" nor a comment (; or # at its beginning)");
    }
    if (!parse.failed && (line < 0 || ferror(parse.file))) {
        parse.failed = true;
        snprintf(why, why_room, "%s cannot be read: %s", path, line < 0 ? "out of memory" : strerror(errno));
    }
    fclose(parse.file);
    return !parse.failed && config_check(&parse) ? 0 : -EINVAL;
}

const struct node_config *config_node(const struct config *config, const char *name) {
    for (unsigned i = 0; i < config->node_count; i++) {
        if (strcmp(config->nodes[i].name, name) == 0)
            return &config->nodes[i];
    }
    return NULL;
}

enum config_register config_register(const struct config *config) {
    return config->has_witness ? REGISTER_VOTERS : config->etcd.endpoint_count ? REGISTER_ETCD : REGISTER_FILE;
}

bool config_is_spare(const struct config *config, const struct node_config *node) {
    return config->spare[0] && strcmp(config->spare, node->name) == 0;
}

int config_secret(const struct config *config, const char *node, const char *path_or_null, char secret[KEY_TEXT],
                  char *why, size_t why_room) {
    char path[sizeof config->path + 80];
    char text[KEY_TEXT + 1] = "";
    struct stat status;

    snprintf(path, sizeof path, "%s.%s.key", config->path, node);
    if (path_or_null == NULL)
        path_or_null = path;
    AUTO_CLOSE int fd = open(path_or_null, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &status) != 0) {
        int error = errno;
        snprintf(why, why_room, "the secret key %s cannot be read: %s; `baton create` made it, copy it here",
                 path_or_null, strerror(error));
        return -error;
    }
    if ((status.st_mode & 077) != 0) {
        snprintf(why, why_room, "others can read the secret key %s; run: chmod 600 %s", path_or_null, path_or_null);
        return -EACCES;
    }
    ssize_t length = read(fd, text, sizeof text);
    if (length == KEY_TEXT && text[KEY_TEXT - 1] == '\n')
        text[--length] = '\0';
    if (!S_ISREG(status.st_mode) || length != KEY_TEXT - 1 || !config_key_valid(text)) {
        snprintf(why, why_room, "%s holds no secret key: one line of 40 characters (Z85) is expected", path_or_null);
        return -EINVAL;
    }
    memcpy(secret, text, KEY_TEXT - 1);
    secret[KEY_TEXT - 1] = '\0';
    return 0;
}
