/* POSIX access control lists, in the form of the system.posix_acl_… attributes: what they mean for the mode bits, and
 * how they are inherited. The rules are those of POSIX 1003.1e draft 17 and of Linux (acl(5)). Pure functions.
 */
#ifndef BATON_FS_ACL_H
#define BATON_FS_ACL_H

#include "fs/base.h"

/* 0, or -EINVAL: another version, length, order, unknown tag, permission or a missing entry. */
int acl_check(const void *acl, size_t length);

/* The others take lists that acl_check accepted. */

/* The permission bits that the list stands for, put into *mode. True if it says no more than the mode does. */
bool acl_mode(const void *acl, size_t length, uint32_t *mode);
/* A new file's access list, made of its directory's default list in place; *mode gets masked by it. True if the list
 * says no more than the mode does. */
bool acl_inherit(void *acl, size_t length, uint32_t *mode);
/* chmod: the list's entries follow the mode, in place. */
void acl_chmod(void *acl, size_t length, uint32_t mode);

#endif
