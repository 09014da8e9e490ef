/* Rows as a hostile or mistaken writer may have made them. */
#ifndef BATON_TESTS_FUZZ_EDIT_H
#define BATON_TESTS_FUZZ_EDIT_H

#include "fs/table.h"
#include "tests/fuzz/fuzz.h"

#define EDITED_VALUE_MAX (80u << 10)

struct edited_row {
    enum table table;
    struct key key; /* length 0: there was none */
    size_t length;
    uint8_t value[EDITED_VALUE_MAX + 64]; /* room for what an edit adds */
};

enum edit_effect { EDIT_REPLACE, EDIT_REMOVE, EDIT_ADD /* the old row stays */ };
/* Changes it as the script says. */
enum edit_effect edit_row(struct script *script, struct edited_row *row);

#define GIVEN_ROWS_MAX 4000u
struct given_row {
    enum table table; /* TABLE_END: it is gone */
    struct key key;
    const uint8_t *value;
    uint32_t length;
};
struct given_rows { /* the shared tables of a store, as another node would give them */
    unsigned count;
    struct given_row rows[GIVEN_ROWS_MAX];
};
void given_load(struct given_rows *rows, struct store *store);
/* One of them is changed; its new value stands in a buffer that is used again when `edits` begins at 0. */
#define GIVEN_EDITS_MAX 8u
void given_edit(struct given_rows *rows, struct script *script, unsigned edits);
void given_sort(struct given_rows *rows); /* by table and key */

#endif
