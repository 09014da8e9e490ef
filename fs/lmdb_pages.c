#include "fs/lmdb_pages.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

/* The format, see mdb.c of LMDB 0.9: a page's header, then offsets of nodes from the page's begin (they grow upwards),
 * then room, then the nodes (they grow downwards, without gaps). */
struct header {
    uint64_t pgno;
    uint16_t pad, flags;
    union {
        struct {
            uint16_t lower, upper; /* where the room begins and ends */
        };
        uint32_t pages; /* of an overflow page: how many follow each other */
    };
} __attribute__((packed));

struct node {
    uint16_t low, high, flags,
        key_size; /* low, high, in a branch flags too: the child; in a leaf: the length of the data */
    uint8_t key[];
} __attribute__((packed));

struct tree { /* MDB_db */
    uint32_t pad;
    uint16_t flags, depth;
    uint64_t branches, leaves, overflows, entries, root;
} __attribute__((packed));

enum page_flags { BRANCH = 1, LEAF = 2, OVERFLOW = 4 };
enum node_flags { BIG_DATA = 1, SUB_DATA = 2 };
enum { INTEGER_KEYS = 8 };
#define AT_MAP_SIZE 32u
#define AT_FREE_TREE 40u
#define AT_MAIN_TREE 88u
#define AT_LAST_PAGE 136u
#define AT_TXNID 144u
#define FIRST_PAGE 2u /* behind the meta pages */
#define NO_PAGE UINT64_MAX
#define KEY_SIZE_MAX 511u
#define DEPTH_MAX 32u                                 /* of liblmdb's cursors */
#define NODE_MAX ((((LMDB_PAGE - 16) / 2) & ~1u) - 2) /* longer data lie on overflow pages */
#define EVEN(n) (((n) + 1u) & ~1u)
#define PAGES_OF(size) ((sizeof(struct header) - 1 + (size)) / LMDB_PAGE + 1)

_Static_assert(sizeof(struct header) == 16 && sizeof(struct node) == 8 && sizeof(struct tree) == 48, "LMDB's format");

struct verify {
    int fd;
    uint64_t last;    /* page */
    uint64_t in_file; /* pages: free ones at the end need not have been written */
    uint64_t txnid;
    uint8_t *seen; /* a bit a page */
    char *why;
    size_t why_room;
};

struct walk {
    struct verify *verify;
    char name[64]; /* of the tree, for sentences */
    bool free_list, main;
    struct tree counted, says;
};

struct key_range { /* a child's keys: from `low` on, below `high`; NULL: no bound */
    const uint8_t *low, *high;
    size_t low_size, high_size;
};

static int damaged(struct verify *verify, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int damaged(struct verify *verify, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(verify->why, verify->why_room, format, arguments);
    va_end(arguments);
    return -EBADMSG;
}

#define PAGE(number) ((unsigned long long)(number))

/* One more page that something names, to use it or as a free one. */
static int take_page(struct verify *verify, uint64_t number, bool used) {
    if (number < FIRST_PAGE || number > verify->last)
        return damaged(verify, "a page %llu is named, the last one is %llu", PAGE(number), PAGE(verify->last));
    if (used && number >= verify->in_file)
        return damaged(verify, "page %llu is behind the file's end", PAGE(number));
    if (verify->seen[number / 8] & 1u << number % 8)
        return damaged(verify, "page %llu is named twice", PAGE(number));
    verify->seen[number / 8] |= (uint8_t)(1u << number % 8);
    return 0;
}

static int read_at(struct verify *verify, uint64_t page, void *to, size_t length, uint64_t offset) {
    int rc = pread_all(verify->fd, to, length, page * LMDB_PAGE + offset);
    if (rc)
        snprintf(verify->why, verify->why_room, "page %llu cannot be read: %s", PAGE(page), strerror(-rc));
    return rc;
}

static int compare_keys(const struct walk *walk, const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size) {
    if (walk->free_list) {
        uint64_t x, y;
        memcpy(&x, a, sizeof x);
        memcpy(&y, b, sizeof y);
        return x < y ? -1 : x > y;
    }
    int order = memcmp(a, b, MIN(a_size, b_size));
    return order ? order : a_size < b_size ? -1 : a_size > b_size;
}

/* ---- What a leaf's rows have elsewhere ---- */

/* The run of overflow pages that a row's data lie on. */
static int take_overflow(struct walk *walk, uint64_t first, uint64_t size) {
    struct verify *verify = walk->verify;
    struct header header;
    int rc = take_page(verify, first, true);
    if (rc == 0)
        rc = read_at(verify, first, &header, sizeof header, 0);
    if (rc)
        return rc;
    if (header.pgno != first || header.flags != OVERFLOW)
        return damaged(verify, "page %llu of %s should be an overflow page", PAGE(first), walk->name);
    if (header.pages < PAGES_OF(size) || header.pages > verify->last - first + 1)
        return damaged(verify, "page %llu of %s: an overflow of %u pages for %llu bytes", PAGE(first), walk->name,
                       header.pages, PAGE(size));
    for (uint32_t i = 1; i < header.pages && rc == 0; i++)
        rc = take_page(verify, first + i, true);
    walk->counted.overflows += header.pages;
    return rc;
}

/* A row of the free list: how many, and their numbers, descending; in `data`, or from page `first` on. */
static int take_free_pages(struct walk *walk, const uint8_t *key, const uint8_t *data, uint64_t size, uint64_t first) {
    struct verify *verify = walk->verify;
    uint64_t piece[LMDB_PAGE / 8], txnid, count = 0, above = NO_PAGE;
    memcpy(&txnid, key, sizeof txnid);
    if (size < sizeof count)
        return damaged(verify, "a row of the free list is empty");
    for (uint64_t at = 0; at <= count; at++) {
        size_t within = at % (LMDB_PAGE / 8);
        if (within == 0) {
            size_t length = (size_t)MIN(size - at * 8, (uint64_t)sizeof piece);
            int rc = data ? 0 : read_at(verify, first, piece, length, sizeof(struct header) + at * 8);
            if (rc)
                return rc;
            if (data)
                memcpy(piece, data + at * 8, length);
        }
        if (at == 0) {
            count = piece[0];
            if (count > size / 8 - 1 || txnid == 0 || txnid > verify->txnid)
                return damaged(verify, "the free list of transaction %llu says that it has %llu pages", PAGE(txnid),
                               PAGE(count));
            continue;
        }
        int rc = piece[within] < above ? take_page(verify, piece[within], false)
                                       : damaged(verify, "the free list is out of order");
        if (rc)
            return rc;
        above = piece[within];
    }
    return 0;
}

static int tree_walk(struct verify *verify, const char *name, size_t name_size, const struct tree *says, bool free_list,
                     bool main);

static int leaf_row(struct walk *walk, const struct node *node, uint64_t page) {
    struct verify *verify = walk->verify;
    const uint8_t *data = node->key + node->key_size;
    uint64_t size = node->low | (uint64_t)node->high << 16, first = 0;
    struct tree says;
    walk->counted.entries++;
    if (node->flags & SUB_DATA) {
        if (!walk->main || node->flags != SUB_DATA || size != sizeof says)
            return damaged(verify, "page %llu of %s has a tree below it that cannot be", PAGE(page), walk->name);
        memcpy(&says, data, sizeof says);
        return tree_walk(verify, (const char *)node->key, node->key_size, &says, false, false);
    }
    if (node->flags & BIG_DATA) {
        memcpy(&first, data, sizeof first);
        data = NULL;
        int rc = take_overflow(walk, first, size);
        if (rc)
            return rc;
    }
    return walk->free_list ? take_free_pages(walk, node->key, data, size, first) : 0;
}

/* ---- Pages ---- */

/* The bytes that it takes on its page; 0: it cannot be one. */
static size_t node_size(const struct walk *walk, const struct node *node, bool leaf) {
    if (!leaf)
        return sizeof *node + node->key_size;
    if (node->key_size == 0 || node->flags & ~(unsigned)(BIG_DATA | SUB_DATA) ||
        (walk->free_list && node->key_size != 8))
        return 0;
    if (node->flags & BIG_DATA)
        return sizeof *node + node->key_size + sizeof(uint64_t);
    size_t size = sizeof *node + node->key_size + (node->low | (size_t)node->high << 16);
    return size <= NODE_MAX ? size : 0;
}

/* Each node lies between the room's end and the page's, and together they fill that: none on another. */
static int nodes_verify(struct walk *walk, const uint8_t *page, uint64_t number, unsigned count, bool leaf) {
    const struct header *header = (const struct header *)page;
    uint8_t taken[LMDB_PAGE / 2] = {0}; /* nodes lie at even places */
    size_t all = 0;
    for (unsigned i = 0; i < count; i++) {
        uint16_t at;
        memcpy(&at, page + sizeof *header + i * sizeof at, sizeof at);
        const struct node *node = (const struct node *)(page + at);
        size_t size = 0;
        if (at % 2 == 0 && at >= header->upper && at <= LMDB_PAGE - sizeof *node && node->key_size <= KEY_SIZE_MAX)
            size = EVEN(node_size(walk, node, leaf));
        if (size == 0 || size > (size_t)LMDB_PAGE - at)
            return damaged(walk->verify, "page %llu of %s: node %u is none", PAGE(number), walk->name, i);
        for (size_t byte = at; byte < at + size; byte += 2)
            if (taken[byte / 2]++)
                return damaged(walk->verify, "page %llu of %s: node %u lies on another", PAGE(number), walk->name, i);
        all += size;
    }
    return all == (size_t)LMDB_PAGE - header->upper
               ? 0
               : damaged(walk->verify, "page %llu of %s: its nodes do not fill it", PAGE(number), walk->name);
}

static const struct node *nth(const uint8_t *page, unsigned i) {
    uint16_t at;
    memcpy(&at, page + sizeof(struct header) + i * sizeof at, sizeof at);
    return (const struct node *)(page + at);
}

/* Keys ascend, within the bounds. A branch's first is its own lower bound, and is not looked at by liblmdb. */
static int keys_verify(struct walk *walk, const uint8_t *page, uint64_t number, unsigned count, bool leaf,
                       const struct key_range *range) {
    const uint8_t *last = range->low;
    size_t last_size = range->low_size;
    for (unsigned i = leaf ? 0 : 1; i < count; i++) {
        const struct node *node = nth(page, i);
        if (walk->free_list && node->key_size != 8)
            return damaged(walk->verify, "page %llu of %s: a key of %u bytes", PAGE(number), walk->name,
                           node->key_size);
        int order = last ? compare_keys(walk, last, last_size, node->key, node->key_size) : -1;
        bool first = i == (leaf ? 0u : 1u);
        if (order > 0 || (order == 0 && !(leaf && first)) ||
            (range->high && compare_keys(walk, node->key, node->key_size, range->high, range->high_size) >= 0))
            return damaged(walk->verify, "page %llu of %s: its keys are out of order", PAGE(number), walk->name);
        last = node->key;
        last_size = node->key_size;
    }
    return 0;
}

static int page_walk(struct walk *walk, uint64_t number, unsigned depth, const struct key_range *range) {
    uint8_t page[LMDB_PAGE] __attribute__((aligned(8)));
    const struct header *header = (const struct header *)page;
    bool leaf = depth == walk->says.depth;
    int rc = take_page(walk->verify, number, true);
    if (rc == 0)
        rc = read_at(walk->verify, number, page, sizeof page, 0);
    if (rc)
        return rc;
    if (header->pgno != number || header->flags != (leaf ? LEAF : BRANCH))
        return damaged(walk->verify, "page %llu of %s should be a %s", PAGE(number), walk->name,
                       leaf ? "leaf" : "branch");
    unsigned count = header->lower < sizeof *header ? 0 : (header->lower - (unsigned)sizeof *header) / 2;
    unsigned least = leaf ? 1 : 2;
    if (header->lower % 2 || header->upper < header->lower || header->upper > LMDB_PAGE || count < least)
        return damaged(walk->verify, "page %llu of %s: a wrong header", PAGE(number), walk->name);
    rc = nodes_verify(walk, page, number, count, leaf);
    if (rc == 0)
        rc = keys_verify(walk, page, number, count, leaf, range);
    if (leaf)
        walk->counted.leaves++;
    else
        walk->counted.branches++;
    for (unsigned i = 0; rc == 0 && i < count; i++) {
        const struct node *node = nth(page, i);
        if (leaf) {
            rc = leaf_row(walk, node, number);
            continue;
        }
        struct key_range below = *range;
        if (i > 0)
            below.low = node->key, below.low_size = node->key_size;
        if (i + 1 < count)
            below.high = nth(page, i + 1)->key, below.high_size = nth(page, i + 1)->key_size;
        rc = page_walk(walk, node->low | (uint64_t)node->high << 16 | (uint64_t)node->flags << 32, depth + 1, &below);
    }
    return rc;
}

static int tree_walk(struct verify *verify, const char *name, size_t name_size, const struct tree *says, bool free_list,
                     bool main) {
    struct walk walk = {.verify = verify, .free_list = free_list, .main = main, .says = *says};
    const struct key_range all = {0};
    snprintf(walk.name, sizeof walk.name, "%s", free_list ? "the free list" : main ? "the list of tables" : "table \"");
    size_t length = strlen(walk.name);
    for (size_t i = 0; !free_list && !main && i < name_size && length < sizeof walk.name - 2; i++)
        walk.name[length++] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
    if (!free_list && !main)
        walk.name[length] = '"';
    if (says->flags != (free_list ? INTEGER_KEYS : 0) || says->depth > DEPTH_MAX ||
        (says->root == NO_PAGE) != (says->depth == 0))
        return damaged(verify, "what is said of %s contradicts itself", walk.name);
    int rc = says->root == NO_PAGE ? 0 : page_walk(&walk, says->root, 1, &all);
    if (rc)
        return rc;
    const struct tree *counted = &walk.counted;
    if (counted->branches != says->branches || counted->leaves != says->leaves ||
        counted->overflows != says->overflows || counted->entries != says->entries)
        return damaged(verify, "%s has %llu rows on %llu pages, but counts %llu on %llu", walk.name,
                       PAGE(counted->entries), PAGE(counted->branches + counted->leaves + counted->overflows),
                       PAGE(says->entries), PAGE(says->branches + says->leaves + says->overflows));
    return 0;
}

int lmdb_pages_verify(int fd, const uint8_t meta[LMDB_PAGE], char *why, size_t why_room) {
    struct verify verify = {.fd = fd, .why = why, .why_room = why_room};
    struct tree free_list, main;
    struct stat st;
    uint64_t map_size;
    memcpy(&verify.last, meta + AT_LAST_PAGE, sizeof verify.last);
    memcpy(&verify.txnid, meta + AT_TXNID, sizeof verify.txnid);
    memcpy(&free_list, meta + AT_FREE_TREE, sizeof free_list);
    memcpy(&main, meta + AT_MAIN_TREE, sizeof main);
    snprintf(why, why_room, "no memory");
    if (fstat(fd, &st) < 0) {
        int rc = -errno;
        snprintf(why, why_room, "the file cannot be looked at: %s", strerror(-rc));
        return rc;
    }
    memcpy(&map_size, meta + AT_MAP_SIZE, sizeof map_size);
    verify.in_file = (uint64_t)st.st_size / LMDB_PAGE;
    if (verify.last < FIRST_PAGE - 1 || verify.last >= map_size / LMDB_PAGE)
        return damaged(&verify, "the last page is %llu, of a map of %llu", PAGE(verify.last),
                       PAGE(map_size / LMDB_PAGE));
    verify.seen = calloc(verify.last / 8 + 1, 1);
    if (!verify.seen)
        return -ENOMEM;
    int rc = tree_walk(&verify, "", 0, &main, false, true);
    if (rc == 0)
        rc = tree_walk(&verify, "", 0, &free_list, true, false);
    free(verify.seen);
    if (rc == 0)
        why[0] = '\0';
    return rc;
}
