/* The log of the power-cut rig: what record.so writes down, in the order in which it happened, and model.c reads.
 *
 * An event is a `struct event`, `text` bytes of names and `data` bytes of data. Files are named by inode number and
 * generation, so that a number used again is another file, also for a second process that goes on with the same log.
 */
#ifndef BATON_POWERCUT_LOG_H
#define BATON_POWERCUT_LOG_H

#include <stdint.h>

#define EVENT_MAGIC 0x70637574u

enum event_type {
    EVENT_START = 1,   /* a process begins; file: the directory that is recorded */
    EVENT_CREATE = 2,  /* parent, name, file */
    EVENT_LINK = 3,    /* likewise */
    EVENT_UNLINK = 4,  /* parent, name; also rmdir */
    EVENT_RENAME = 5,  /* parent, name, to_parent; text: name, NUL, new name; flags: RENAME_… */
    EVENT_WRITE = 6,   /* file, offset, data; flags: EVENT_DSYNC */
    EVENT_TRUNCATE = 7, /* file, length: the new size */
    EVENT_ZERO = 8,    /* file, offset, length: punched or zeroed */
    EVENT_SYNC_BEGIN = 9, /* file (0: everything); offset: token */
    EVENT_SYNC_END = 10,  /* offset: token; length: errno */
    EVENT_MARK = 11,   /* text: what the program says */
    EVENT_UNSUPPORTED = 12, /* text: a call whose effect the rig does not follow */
    EVENT_TYPE_END
};

#define EVENT_DSYNC 1u /* the write was durable when it returned */

struct file_key {
    uint64_t ino; /* 0: none */
    uint32_t generation;
    uint32_t directory; /* 1: is one */
} __attribute__((packed));

struct event {
    uint32_t magic;
    uint16_t type;
    uint16_t flags;
    uint32_t text;
    uint32_t data;
    uint64_t offset;
    uint64_t length;
    struct file_key file;
    struct file_key parent;
    struct file_key to_parent;
} __attribute__((packed));

#endif
