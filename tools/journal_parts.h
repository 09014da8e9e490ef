/* What the files of `baton journal` share. */
#ifndef BATON_TOOLS_JOURNAL_PARTS_H
#define BATON_TOOLS_JOURNAL_PARTS_H

#include "tools/tool.h"

/* tools/when.c. A number that is not negative. 0 or -EINVAL. */
int parse_number(const char *text, json_int_t *value);
/* "10min" (ago), "@SECONDS", "2026-11-21", "2026-11-21 00:50", "2026-11-21T00:50:12.5+01:00", "00:50" (today); local time
 * unless an offset from UTC is given → nanoseconds since 1970. 0 or -EINVAL. */
int parse_time(const char *text, json_int_t *value);

/* tools/journal_restore.c. A path below the mount point means one in the volume. */
char *path_in_volume(const struct tool *tool, char *path);
/* Arguments: [PATH…] DIRECTORY. Exit statuses. */
int journal_restore(struct tool *tool, const char *at, char **arguments, int count);
/* tools/journal_extract.c */
int journal_extract(struct tool *tool, const char *undone, char **arguments, int count);

#endif
