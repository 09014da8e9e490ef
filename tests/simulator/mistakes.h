/* Mistakes that the test plants, one at a time, to see that schedules with voters find them. */
#ifndef BATON_TESTS_SIMULATOR_MISTAKES_H
#define BATON_TESTS_SIMULATOR_MISTAKES_H

#include <stdbool.h>

enum mistake {
    MISTAKE_NONE,
    MISTAKE_UNSAVED,        /* a voter answers before its disk has it, and forgets at a crash */
    MISTAKE_LOUD,           /* …lets challengers in while it should be silent */
    MISTAKE_FORGETS_GRANT,  /* …while somebody else's grant lasts */
    MISTAKE_LOST_DISK,      /* …has the old id when it has lost its disk */
    MISTAKE_FROM_ARRIVAL,   /* the holder counts from when a grant arrives */
    MISTAKE_WRONG_LIST,     /* …a majority of a list that is not the value's: its own voter alone */
    MISTAKE_UNCHECKED,      /* a primary does not look at the lease after the waiting */
    MISTAKE_HALF_DONE,      /* a proposer does not complete what it finds half done */
    MISTAKE_FAST_CLOCK,     /* clocks that run apart by more than the margin */
    MISTAKE_ANYBODY_RUNS,   /* a node stands that is no member */
    MISTAKES
};
extern enum mistake mistake;
const char *mistake_name(enum mistake which);
bool mistake_explains(enum mistake which, const char *why); /* that a schedule failed */

#endif
