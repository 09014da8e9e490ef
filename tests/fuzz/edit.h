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

#endif
