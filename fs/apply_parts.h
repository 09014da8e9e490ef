/* What the files of apply share. Under the engine lock. */
#ifndef BATON_FS_APPLY_PARTS_H
#define BATON_FS_APPLY_PARTS_H

#include "fs/apply.h"
#include "fs/extent.h"

/* Attributes that one step of a RECLAIM may remove with their inode; what has more loses them by records before. */
#define RECLAIM_XATTRS_MAX 16u

#define XATTR_ACL_ACCESS "system.posix_acl_access"
#define XATTR_ACL_DEFAULT "system.posix_acl_default"
#define XATTR_CAPABILITY "security.capability"

int apply_create(struct change *change, const struct record *r);
int apply_link(struct change *change, const struct record *r);
int apply_unlink(struct change *change, const struct record *r);
int apply_rename(struct change *change, const struct record *r);
int apply_setattr(struct change *change, const struct record *r);
int apply_xattr(struct change *change, const struct record *r);
int apply_write(struct change *change, const struct record *r);
int apply_truncate(struct change *change, const struct record *r);
int apply_allocate(struct change *change, const struct record *r);
int apply_punch(struct change *change, const struct record *r);
int apply_reclaim(struct change *change, const struct record *r);

/* What a record says of the state does not hold: that is the record's fault. -ENOENT becomes -EBADMSG. */
static inline int contradiction(int error) {
    return error == -ENOENT ? -EBADMSG : error;
}

/* Is the id one of those that store_next_id() gave for this record? Then nobody else has it. -EBADMSG. */
int id_is_new(struct change *change, const struct record *r, uint64_t id);

/* Writes the row; a symlink keeps its target. */
int inode_put(struct change *change, uint64_t ino, const struct inode_row *row);
/* Sets ctime to the record's time. -EBADMSG if that would not let it grow. */
int inode_touch(struct inode_row *row, const struct record *r);

int orphan_put(struct change *change, enum orphan_kind kind, uint64_t id, uint64_t ino, int64_t time);
int orphan_remove(struct change *change, enum orphan_kind kind, uint64_t id);

/* Sets (value.data may be NULL with length 0), or removes if `remove`: -ENOENT if absent. The row's count and flags
 * follow; the caller puts it. */
int xattr_change(struct change *change, uint64_t ino, struct inode_row *row, struct span name, struct span value,
                 bool remove);
/* The same of the names above; removing what is not there is no error. */
int xattr_change_named(struct change *change, uint64_t ino, struct inode_row *row, const char *name, struct span value,
                       bool remove);

#endif
