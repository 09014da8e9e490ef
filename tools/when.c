/* Numbers and times, as people write them. */
#include "tools/journal_parts.h"

#include <time.h>

int parse_number(const char *text, json_int_t *value) {
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number < 0)
        return -EINVAL;
    *value = number;
    return 0;
}

/* The rest of a time: nothing, or the offset from UTC. */
static time_t seconds_of(struct tm *parts, const char *rest) {
    struct tm zone = {0};
    rest += strspn(rest, " ");
    parts->tm_isdst = -1;
    if (*rest == '\0')
        return mktime(parts);
    const char *end = strptime(rest, "%z", &zone);
    return end != NULL && *end == '\0' ? timegm(parts) - zone.tm_gmtoff : -1;
}

int parse_time(const char *text, json_int_t *value) {
    static const char *const formats[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M",
                                          "%Y-%m-%d",          "%H:%M:%S",          "%H:%M"};
    uint64_t ms;
    char *end;

    if (parse_duration(text, &ms) == 0 && ms < (uint64_t)INT64_MAX / 1000000) {
        *value = MAX(clock_now() - (int64_t)ms * 1000000, (int64_t)0);
        return 0;
    }
    if (*text == '@') {
        json_int_t seconds;
        if (parse_number(text + 1, &seconds) != 0 || seconds > INT64_MAX / 1000000000)
            return -EINVAL;
        *value = seconds * 1000000000;
        return 0;
    }
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        time_t now = time(NULL);
        struct tm parts;
        localtime_r(&now, &parts);
        parts.tm_hour = parts.tm_min = parts.tm_sec = 0;
        end = strptime(text, formats[i], &parts);
        if (end == NULL || (*end != '\0' && strchr(".+-Z ", *end) == NULL))
            continue;
        double fraction = *end == '.' ? strtod(end, &end) : 0;
        time_t seconds = seconds_of(&parts, end);
        if (seconds < 0 || seconds > INT64_MAX / 1000000000 - 1 || !(fraction >= 0 && fraction < 1))
            continue;
        *value = (json_int_t)seconds * 1000000000 + (json_int_t)(fraction * 1e9);
        return 0;
    }
    return -EINVAL;
}
