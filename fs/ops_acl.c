#include "fs/acl.h"

/* Little-endian on disk; so is this host (fs/record.c asserts it). */
struct acl_entry {
    uint16_t tag;
    uint16_t permissions;
    uint32_t id;
} __attribute__((packed));

#define ACL_VERSION 2u
enum { TAG_USER_OBJ = 1, TAG_USER = 2, TAG_GROUP_OBJ = 4, TAG_GROUP = 8, TAG_MASK = 16, TAG_OTHER = 32 };

static size_t entry_count(size_t length) {
    return (length - 4) / sizeof(struct acl_entry);
}

static struct acl_entry *entries_of(void *acl) {
    return (struct acl_entry *)((uint8_t *)acl + 4);
}

/* States of the walk: the tag that came last decides which may come next. */
static bool may_follow(uint16_t before, uint16_t tag) {
    switch (tag) {
    case TAG_USER_OBJ:
        return before == 0;
    case TAG_USER:
        return before == TAG_USER_OBJ || before == TAG_USER;
    case TAG_GROUP_OBJ:
        return before == TAG_USER_OBJ || before == TAG_USER;
    case TAG_GROUP:
        return before == TAG_GROUP_OBJ || before == TAG_GROUP;
    case TAG_MASK:
        return before == TAG_GROUP_OBJ || before == TAG_GROUP;
    case TAG_OTHER:
        return before == TAG_GROUP_OBJ || before == TAG_GROUP || before == TAG_MASK;
    default:
        return false;
    }
}

int acl_check(const void *acl, size_t length) {
    uint32_t version;
    uint16_t before = 0;
    bool needs_mask = false, has_mask = false;

    if (length < 4 || length > BATON_XATTR_VALUE_MAX || (length - 4) % sizeof(struct acl_entry) != 0)
        return -EINVAL;
    memcpy(&version, acl, 4);
    if (version != ACL_VERSION)
        return -EINVAL;
    for (size_t i = 0; i < entry_count(length); i++) {
        struct acl_entry entry;
        memcpy(&entry, (const uint8_t *)acl + 4 + i * sizeof entry, sizeof entry);
        if (entry.permissions & ~7u || !may_follow(before, entry.tag))
            return -EINVAL;
        if ((entry.tag == TAG_USER || entry.tag == TAG_GROUP) && entry.id == UINT32_MAX)
            return -EINVAL;
        needs_mask |= entry.tag == TAG_USER || entry.tag == TAG_GROUP;
        has_mask |= entry.tag == TAG_MASK;
        before = entry.tag;
    }
    return before != TAG_OTHER || (needs_mask && !has_mask) ? -EINVAL : 0;
}

bool acl_mode(const void *acl, size_t length, uint32_t *mode) {
    const struct acl_entry *entries = entries_of((void *)acl);
    uint32_t bits = 0, group = 0;
    bool plain = true, masked = false;

    for (size_t i = 0; i < entry_count(length); i++) {
        switch (entries[i].tag) {
        case TAG_USER_OBJ:
            bits |= (uint32_t)entries[i].permissions << 6;
            break;
        case TAG_GROUP_OBJ:
            group = masked ? group : entries[i].permissions;
            break;
        case TAG_MASK:
            group = entries[i].permissions;
            masked = true;
            plain = false;
            break;
        case TAG_OTHER:
            bits |= entries[i].permissions;
            break;
        default:
            plain = false;
        }
    }
    *mode = (*mode & ~0777u) | bits | group << 3;
    return plain;
}

/* The entry that the mode's group bits stand for. */
static struct acl_entry *group_class(void *acl, size_t length) {
    struct acl_entry *entries = entries_of(acl), *found = NULL;
    for (size_t i = 0; i < entry_count(length); i++)
        if (entries[i].tag == TAG_MASK || (entries[i].tag == TAG_GROUP_OBJ && !found))
            found = &entries[i];
    return found;
}

bool acl_inherit(void *acl, size_t length, uint32_t *mode) {
    struct acl_entry *entries = entries_of(acl), *group = group_class(acl, length);
    uint32_t unused = 0;

    group->permissions &= (uint16_t)(*mode >> 3 & 7);
    for (size_t i = 0; i < entry_count(length); i++) {
        if (entries[i].tag == TAG_USER_OBJ)
            entries[i].permissions &= (uint16_t)(*mode >> 6 & 7);
        else if (entries[i].tag == TAG_OTHER)
            entries[i].permissions &= (uint16_t)(*mode & 7);
    }
    bool plain = acl_mode(acl, length, &unused);
    *mode = (*mode & ~0777u) | unused;
    return plain;
}

void acl_chmod(void *acl, size_t length, uint32_t mode) {
    struct acl_entry *entries = entries_of(acl);
    group_class(acl, length)->permissions = (uint16_t)(mode >> 3 & 7);
    for (size_t i = 0; i < entry_count(length); i++) {
        if (entries[i].tag == TAG_USER_OBJ)
            entries[i].permissions = (uint16_t)(mode >> 6 & 7);
        else if (entries[i].tag == TAG_OTHER)
            entries[i].permissions = (uint16_t)(mode & 7);
    }
}
