/* A record as a person would tell it, and as JSON. One thread. */
#ifndef BATON_FS_JOURNAL_TEXT_H
#define BATON_FS_JOURNAL_TEXT_H

#include "fs/config.h"
#include "fs/journal_names.h"

#include <jansson.h>

/* "3.a": counter and node. The node's name is known from the config file, if there is one, else its number is shown. */
void epoch_text(const struct config *config_or_null, epoch_t epoch, char *text, size_t room);
/* 2026-11-21 00:50:12.123456789, local time */
void time_text(struct file_time time, char *text, size_t room);

/* What the record did, "created file projects/x.c (inode 5) mode 0644", without time and epoch. */
void record_text(const struct record *record, struct names *names, char *text, size_t room);

/* {"lsn", "time", "nanoseconds", "epoch", "type", "inode", "path", …, "text", "chain"}. NULL: no memory. */
json_t *record_json(const struct record *record, struct names *names, const struct config *config_or_null);

#define RECORD_INODES_MAX 5
/* Every inode that the record names; returns how many. */
unsigned record_inodes(const struct record *record, uint64_t inos[RECORD_INODES_MAX]);

#endif
