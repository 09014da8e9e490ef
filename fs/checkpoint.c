/* The file `checkpoint`: two slots, each naming a state of LMDB's environment by a copy of its meta page.
 *
 * LMDB with MDB_NOSYNC may write its own meta page before the pages that it names are on disk. The copy here is written
 * after they are, and the pages of its state are pinned by a read transaction until the next copy is on disk; so
 * putting the copy back over LMDB's own meta pages gives a whole environment after any crash.
 */
#include "fs/store_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

#define SLOT_SIZE 8192u
#define LMDB_MAGIC 0xBEEFC0DEu
#define LMDB_VERSION 1u
static const char slot_magic[8] = "BATONCP1";

/* LMDB 0.9's meta page, as far as we look: page header (16 bytes), magic, version, address, map size, two databases of
 * 48 bytes, last page, txnid. */
#define PAGE_PGNO 0
#define PAGE_FLAGS 10
#define META_MAGIC 16
#define META_VERSION 20
#define META_PSIZE 40 /* md_pad of the free database */
#define META_LAST_PAGE 136
#define META_TXNID 144
#define P_META 0x08

static uint64_t slot_check(const struct checkpoint *slot) {
    return XXH3_64bits(slot, offsetof(struct checkpoint, check));
}

static uint32_t page_u32(const uint8_t *page, size_t at) {
    uint32_t value;
    memcpy(&value, page + at, sizeof value);
    return value;
}

static uint64_t page_u64(const uint8_t *page, size_t at) {
    uint64_t value;
    memcpy(&value, page + at, sizeof value);
    return value;
}

static bool page_is_meta(const uint8_t *page) {
    uint16_t flags;
    memcpy(&flags, page + PAGE_FLAGS, sizeof flags);
    return flags == P_META && page_u32(page, META_MAGIC) == LMDB_MAGIC &&
           page_u32(page, META_VERSION) == LMDB_VERSION && page_u32(page, META_PSIZE) == META_PAGE;
}

int checkpoint_copy_page(struct store *store, uint64_t txnid, uint8_t page[META_PAGE]) {
    int rc = pread_all(store->meta_fd, page, META_PAGE, (txnid & 1) * META_PAGE);
    if (rc)
        return rc;
    return page_is_meta(page) && page_u64(page, META_TXNID) == txnid ? 0 : -EIO;
}

int checkpoint_write(struct store *store, struct checkpoint *slot) {
    memcpy(slot->magic, slot_magic, sizeof slot->magic);
    slot->format = STORE_FORMAT;
    slot->check = slot_check(slot);
    uint8_t bytes[SLOT_SIZE] = {0};
    _Static_assert(sizeof *slot <= SLOT_SIZE, "a slot holds a checkpoint");
    memcpy(bytes, slot, sizeof *slot);
    int rc = pwrite_all(store->checkpoint_fd, bytes, sizeof bytes, (slot->number & 1) * SLOT_SIZE);
    if (rc == 0 && fdatasync(store->checkpoint_fd) < 0)
        rc = -errno;
    return rc;
}

static bool slot_read(int fd, unsigned index, struct checkpoint *slot) {
    return pread_all(fd, slot, sizeof *slot, (uint64_t)index * SLOT_SIZE) == 0 &&
           memcmp(slot->magic, slot_magic, sizeof slot->magic) == 0 && slot->check == slot_check(slot) &&
           (slot->number & 1) == index && slot->name[sizeof slot->name - 1] == '\0';
}

int checkpoint_read(struct store *store, struct checkpoint *newest, struct checkpoint *older, bool *newest_suspect,
                    char *why, size_t why_room) {
    struct checkpoint slots[2];
    bool good[2];
    for (unsigned i = 0; i < 2; i++)
        good[i] = slot_read(store->checkpoint_fd, i, &slots[i]);
    if (!good[0] && !good[1]) {
        snprintf(why, why_room,
                 "%s/checkpoint has no readable slot: the store is damaged or was never finished; "
                 "move the folder away and make a new store with \"baton format\": it is built anew from the other node",
                 store->base);
        return -EIO;
    }
    unsigned best = good[0] && (!good[1] || slots[0].number > slots[1].number) ? 0 : 1;
    *newest = slots[best];
    if (good[1 - best])
        *older = slots[1 - best];
    else
        memset(older, 0, sizeof *older);
    /* An unreadable slot is most likely the newest one, torn in a power cut; then the other one's state is whole. It
     * may also be a newer one that rotted, and pages of the other one's state may have been used again. */
    *newest_suspect = !good[1 - best] && newest->number > 1;
    if (newest->format != STORE_FORMAT) {
        snprintf(why, why_room,
                 "the store %s has format version %u, this program serves version %u; "
                 "use the program that made it, or make the store anew from the peer",
                 store->path, newest->format, STORE_FORMAT);
        return -EPROTONOSUPPORT;
    }
    uint32_t missing = newest->features & STORE_FEATURES_REQUIRED & ~STORE_FEATURES;
    if (missing) {
        snprintf(why, why_room,
                 "the store %s has features (%#x) that this program does not know: a newer one has used it; "
                 "upgrade this node, or make the store anew from the peer",
                 store->path, missing);
        return -EPROTONOSUPPORT;
    }
    if (newest->segment_blocks == 0 || newest->segment_blocks > (1u << 24) || newest->tail_size < (1u << 20) ||
        newest->tail_size > (1u << 30) || !page_is_meta(newest->page) ||
        page_u64(newest->page, META_TXNID) != newest->txnid) {
        snprintf(why, why_room, "%s/checkpoint contradicts itself: the store is damaged; run \"baton check\"",
                 store->base);
        return -EIO;
    }
    return 0;
}

bool checkpoint_fits(struct store *store, const struct checkpoint *checkpoint) {
    struct stat st;
    return fstat(store->meta_fd, &st) == 0 &&
           (uint64_t)st.st_size / META_PAGE > page_u64(checkpoint->page, META_LAST_PAGE);
}

/* LMDB does not write pages at the end that were free again when it committed; without room set aside the file ends before them. */
int checkpoint_stretch(struct store *store, const struct checkpoint *checkpoint) {
    if (checkpoint_fits(store, checkpoint))
        return 0;
    off_t length = (off_t)((page_u64(checkpoint->page, META_LAST_PAGE) + 1) * META_PAGE);
    return ftruncate(store->meta_fd, length) < 0 ? -errno : 0;
}

/* Both of LMDB's meta pages become the saved state's: its own slot, and the other one with the transaction before, so
 * that LMDB chooses the first and overwrites the second. */
int checkpoint_restore_pages(struct store *store, const struct checkpoint *checkpoint, char *why, size_t why_room) {
    uint8_t pages[2][META_PAGE];
    int rc = checkpoint_fits(store, checkpoint) && pread_all(store->meta_fd, pages, sizeof pages, 0) == 0 ? 0 : -EIO;
    if (rc) {
        snprintf(why, why_room, "%s/meta/data.mdb is shorter than the checkpoint says: the store is damaged; "
                 "run \"baton check\"", store->base);
        return rc;
    }
    if (!page_is_meta(pages[0]) && !page_is_meta(pages[1])) {
        snprintf(why, why_room,
                 "%s/meta/data.mdb is not an LMDB environment of version %u with pages of %u bytes; "
                 "the store is damaged or was made by another LMDB",
                 store->base, LMDB_VERSION, META_PAGE);
        return -EIO;
    }
    for (unsigned i = 0; i < 2; i++) {
        uint64_t pgno = i, txnid = checkpoint->txnid - 1;
        memcpy(pages[i], checkpoint->page, META_PAGE);
        memcpy(pages[i] + PAGE_PGNO, &pgno, sizeof pgno);
        if (i != (checkpoint->txnid & 1))
            memcpy(pages[i] + META_TXNID, &txnid, sizeof txnid);
    }
    rc = pwrite_all(store->meta_fd, pages, sizeof pages, 0);
    if (rc)
        snprintf(why, why_room, "cannot write %s/meta/data.mdb: %s", store->base, strerror(-rc));
    return rc;
}
