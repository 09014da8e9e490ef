/* [export NAME]: a share of the volume. Which keys it has beside those that the runner needs is its exporter's to know, and
 * `NAME check` tells (exporters/exports.h); here they are kept as they are.
 */
#include "fs/config_parts.h"

#include <arpa/inet.h>

#define KEY_MAX 32u
#define TIMEOUT_MAX (10u * 60 * 1000)

bool config_enter_export(struct parse *parse, const char *name) {
    static const struct section section_export = {"export", NULL};
    struct config *config = parse->config;

    if (!config_name_valid(name))
        return config_complain(parse, "\"%s\" cannot name an export; take up to 63 letters, digits, '-', '_' and '.'", name);
    if (strcmp(name, "vip") == 0)
        return config_complain(parse, "no section is needed for the address itself: address = ADDRESS/BITS in any [export NAME]");
    for (unsigned i = 0; i < config->export_count; i++)
        if (strcmp(config->exports[i].name, name) == 0)
            return config_complain(parse, "there is another [export %s] above; give this one another name, and type = %s", name,
                                   config->exports[i].type);
    if (config->export_count == EXPORTS_MAX)
        return config_complain(parse, "more than %u exports; a volume cannot have that many", EXPORTS_MAX);
    struct export_config *export = &config->exports[config->export_count];
    uint16_t at = config->export_count ? config->exports[config->export_count - 1].keys_end : 0;
    config->export_count++;
    *export = (struct export_config){.start_ms = 30000, .stop_ms = 5000, .monitor_ms = 10000, .every_ms = 10000, .keys = at,
                                     .keys_end = at};
    memcpy(export->name, name, strlen(name) + 1);
    memcpy(export->type, name, strlen(name) + 1);
    parse->section = &section_export;
    parse->export = export;
    return true;
}

/* ADDRESS/BITS[@INTERFACE] */
static bool is_address(const char *text) {
    char copy[128];
    uint8_t binary[16];
    if (strlen(text) >= sizeof copy)
        return false;
    memcpy(copy, text, strlen(text) + 1);
    char *interface = strchr(copy, '@'), *bits = strchr(copy, '/');
    if (!bits || (interface && interface < bits))
        return false;
    if (interface) {
        *interface++ = '\0';
        size_t length = strspn(interface, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-");
        if (length == 0 || length > 15 || interface[length] || interface[0] == '-')
            return false;
    }
    *bits++ = '\0';
    bool four = inet_pton(AF_INET, copy, binary) == 1;
    size_t digits = strspn(bits, "0123456789");
    if ((!four && inet_pton(AF_INET6, copy, binary) != 1) || digits == 0 || digits > 3 || bits[digits])
        return false;
    return strtoul(bits, NULL, 10) <= (four ? 32 : 128);
}

static bool has_address(const char *list, const char *address) {
    size_t length = strlen(address);
    for (const char *at = strstr(list, address); at; at = strstr(at + 1, address))
        if ((at == list || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

static bool add_addresses(struct parse *parse, const char *value) {
    struct config *config = parse->config;
    char copy[sizeof config->addresses], *rest = NULL;

    if (strlen(value) >= sizeof copy)
        return config_complain(parse, "address is too long: at most %zu characters", sizeof copy - 1);
    memcpy(copy, value, strlen(value) + 1);
    for (char *one = strtok_r(copy, " \t", &rest); one; one = strtok_r(NULL, " \t", &rest)) {
        size_t used = strlen(config->addresses);
        if (!is_address(one))
            return config_complain(parse, "\"%s\" is no address here; write ADDRESS/BITS or ADDRESS/BITS@INTERFACE, as in "
                                          "10.0.0.100/24", one);
        if (has_address(config->addresses, one))
            continue;
        if (used + strlen(one) + 2 > sizeof config->addresses)
            return config_complain(parse, "too many addresses: they may have %zu characters together", sizeof config->addresses - 1);
        snprintf(config->addresses + used, sizeof config->addresses - used, "%s%s", used ? " " : "", one);
    }
    return true;
}

static bool time_limit(struct parse *parse, const char *name, const char *value, uint64_t least, uint64_t *ms) {
    if (parse_duration(value, ms) != 0 || *ms < least || *ms > TIMEOUT_MAX)
        return config_complain(parse, "%s = \"%s\": write a time between %llu ms and 10 min, as in 5s", name, value,
                               (unsigned long long)least);
    return true;
}

static bool keep_key(struct parse *parse, const char *name, const char *value) {
    struct config *config = parse->config;
    struct export_config *export = parse->export;
    size_t length = strlen(name), whole = length + 1 + strlen(value) + 1;

    if (length == 0 || length >= KEY_MAX || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != length)
        return config_complain(parse, "\"%s\" cannot be a key of an export: small letters, digits and '-', at most %u", name,
                               KEY_MAX - 1);
    for (unsigned at = export->keys; at < export->keys_end; at += (unsigned)strlen(config->export_text + at) + 1)
        if (strncmp(config->export_text + at, name, length) == 0 && config->export_text[at + length] == '=')
            return config_complain(parse, "%s is given twice in [export %s]; remove one", name, export->name);
    if (export->keys_end + whole > EXPORT_TEXT_MAX)
        return config_complain(parse, "the sections [export NAME] are too long: %u characters together", EXPORT_TEXT_MAX);
    char *at = config->export_text + export->keys_end;
    memcpy(at, name, length);
    at[length] = '=';
    memcpy(at + length + 1, value, whole - length - 1);
    export->keys_end = (uint16_t)(export->keys_end + whole);
    export->key_count++;
    return true;
}

bool config_export_key(struct parse *parse, const char *name, const char *value) {
    struct export_config *export = parse->export;

    if (*value == '\0')
        return config_complain(parse, "%s has no value; give it one or remove the line", name);
    if (strcmp(name, "type") == 0) {
        if (!config_name_valid(value) || strcmp(value, "vip") == 0)
            return config_complain(parse, "type = \"%s\" is no exporter's name", value);
        memcpy(export->type, value, strlen(value) + 1);
        return true;
    }
    if (strcmp(name, "address") == 0)
        return add_addresses(parse, value);
    if (strcmp(name, "start-timeout") == 0)
        return time_limit(parse, name, value, 100, &export->start_ms);
    if (strcmp(name, "stop-timeout") == 0)
        return time_limit(parse, name, value, 100, &export->stop_ms);
    if (strcmp(name, "monitor-timeout") == 0)
        return time_limit(parse, name, value, 100, &export->monitor_ms);
    if (strcmp(name, "monitor-every") == 0)
        return time_limit(parse, name, value, 0, &export->every_ms);
    return keep_key(parse, name, value);
}
