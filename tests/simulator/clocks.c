/* Clocks of nodes and of the witness: each has begun at another time, and runs apart from the schedule's by at most half of
 * the thousandth by which two may differ (membership/ask.h). CLOCK_MONOTONIC stands still while its machine sleeps.
 */
#include "tests/simulator/sim.h"

#define HALF_PPM 500 /* of the thousandth */
#define OFFSET_MOST (1000 * 1000 * SIM_MS)

static struct {
    int64_t ppm, offset, slept;
} clocks[SIM_PLACES];

void clocks_begin(bool apart) {
    for (unsigned i = 0; apart && i < SIM_PLACES; i++) {
        if (i == SIM_NOBODY)
            continue;
        clocks[i].ppm = (int64_t)sim_below(2 * HALF_PPM + 1) - HALF_PPM;
        if (mistake == MISTAKE_FAST_CLOCK)
            clocks[i].ppm *= 400;
        clocks[i].offset = (int64_t)sim_below((uint64_t)OFFSET_MOST);
    }
}

void clocks_suspend(unsigned place, int64_t ns) {
    clocks[place].slept += ns;
}

int64_t clock_of(unsigned place, bool monotonic) {
    int64_t now = sim_now(), local = now + now / 1000000 * clocks[place].ppm + clocks[place].offset;
    return monotonic ? local - clocks[place].slept : local;
}

int64_t clock_until(unsigned place, int64_t monotonic) {
    int64_t ppm = clocks[place].ppm, local = monotonic + clocks[place].slept - clocks[place].offset;
    return ppm ? (local / (1000000 + ppm) + 1) * 1000000 : local; /* a moment late, as timers are */
}
