/* Does the state follow from the journal, as far as undoing it goes? From the newest record back: a row that a record made
 * is there after it. Rows are counted as there or not, by a hash of table and key; what they said is not compared.
 */
#include "fs/check_parts.h"

#include <xxhash.h>

typedef unsigned long long ull;

/* Rows that records have touched, and whether they are there at the point that has been reached: open addressing; the
 * lowest bit says it, 0 is nobody. Two rows of one hash (of 10 million: once in 400,000 stores) would be one. */
struct touched {
    uint64_t *rows;
    size_t count, room;
};
#define THERE 1u

static uint64_t *touched_find(struct touched *touched, uint64_t hash) {
    size_t at = (size_t)(hash >> 1) & (touched->room - 1);
    while (touched->rows[at] && (touched->rows[at] | THERE) != (hash | THERE))
        at = (at + 1) & (touched->room - 1);
    return &touched->rows[at];
}

static void touched_grow(struct touched *touched) {
    struct touched bigger = {.count = touched->count, .room = touched->room ? touched->room * 2 : 4096};
    bigger.rows = calloc(bigger.room, sizeof *bigger.rows);
    PROMISE(bigger.rows != NULL);
    for (size_t i = 0; i < touched->room; i++)
        if (touched->rows[i])
            *touched_find(&bigger, touched->rows[i]) = touched->rows[i];
    free(touched->rows);
    *touched = bigger;
}

static uint64_t hash_of(const struct undo_image *image) {
    uint64_t hash = XXH3_64bits_withSeed(image->key.data, image->key.length, image->table) | THERE;
    return hash == THERE ? hash + 2 : hash;
}

static bool is_there(struct check *check, struct touched *touched, const struct undo_image *image, uint64_t hash) {
    uint64_t *row = touched_find(touched, hash);
    if (*row)
        return *row & THERE;
    MDB_val key = {image->key.length, (void *)image->key.data}, data;
    return mdb_get(check->store->txn, check->store->dbi[image->table], &key, &data) == 0;
}

/* Takes a record's images back, last first, as undo_restore does. */
static void take_back(struct check *check, struct touched *touched, uint64_t lsn, struct span undo) {
    struct undo_image image;
    uint32_t count = 0, at = 0;
    while (undo_next(&undo, &at, &image) == 1)
        count++;
    AUTO_FREE uint32_t *starts = malloc((count + 1) * sizeof *starts);
    PROMISE(starts != NULL);
    at = 0;
    for (uint32_t i = 0; i < count; i++) {
        starts[i] = at;
        undo_next(&undo, &at, &image);
    }
    while (count-- > 0) {
        at = starts[count];
        undo_next(&undo, &at, &image);
        uint64_t hash = hash_of(&image);
        if (!image.existed && !is_there(check, touched, &image, hash))
            found(check,
                  "record %llu of the journal made a row of table \"%s\" that is not there: the state is not what the "
                  "journal made, and this record cannot be undone",
                  (ull)lsn, table_names[image.table]);
        if (2 * (touched->count + 1) > touched->room)
            touched_grow(touched);
        uint64_t *row = touched_find(touched, hash);
        touched->count += *row == 0;
        *row = image.existed ? hash | THERE : hash & ~(uint64_t)THERE;
    }
}

void check_undo(struct check *check) {
    struct touched touched = {0};
    looking_at(check, "how the journal can be undone");
    touched_grow(&touched);
    for (uint64_t lsn = check->position.lsn; lsn >= check->position.first && lsn > 0; lsn--) {
        struct key key = key_u64(lsn);
        struct span value;
        struct journal_row row;
        if (get(check, TABLE_JOURNAL, &key, &value) != 0 || journal_row_parse(value, &row) != 0)
            break; /* told already */
        take_back(check, &touched, lsn, row.undo);
    }
    free(touched.rows);
}
