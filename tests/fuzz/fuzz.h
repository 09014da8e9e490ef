/* What the fuzzing harnesses share. A harness gives bytes that somebody hostile or a bad disk may have made to the
 * product's own functions. The same harness is run by libFuzzer or AFL++ (entry.c, one program for each) and, over its
 * corpus, by tests/fuzz-corpus-test.
 *
 * Where bytes have a checksum, an input says whether it is made right: else the fuzzer would never get past it.
 *
 * One thread.
 */
#ifndef BATON_TESTS_FUZZ_FUZZ_H
#define BATON_TESTS_FUZZ_FUZZ_H

#include "fs/base.h"
#include "fs/record.h"

struct fuzz_harness {
    const char *name; /* of its program, fuzz-NAME, and of its corpus */
    void (*start)(void); /* once, before the first input; may be NULL */
    /* True: the input was good, all of it was taken. What must not be aborts. */
    bool (*one)(const uint8_t *bytes, size_t length);
    /* Gives inputs for which `one` is true, made by the product's own functions: where a fuzzer begins. */
    void (*seeds)(void);
};

extern const struct fuzz_harness fuzz_wire, fuzz_record, fuzz_apply, fuzz_config, fuzz_files, fuzz_store, fuzz_import,
    fuzz_control, fuzz_peer, fuzz_compare, fuzz_ask;

/* For `seeds`: one of them. */
void fuzz_give(const char *name, const void *bytes, size_t length);
/* Who takes them. */
extern void (*fuzz_taker)(const char *name, const void *bytes, size_t length);

/* A promise of the harness's: the product did what it must not. */
#define FUZZ_MUST(condition) \
    do { \
        if (!(condition)) \
            fuzz_found(__FILE__, __LINE__, #condition); \
    } while (0)
void fuzz_found(const char *file, int line, const char *what) __attribute__((noreturn));

/* An input as a script: numbers and bytes are taken off it, zeros when it is used up. */
struct script {
    const uint8_t *at;
    size_t left;
};
uint8_t script_u8(struct script *script);
uint16_t script_u16(struct script *script);
uint64_t script_u64(struct script *script);
uint32_t script_below(struct script *script, uint32_t n); /* n up to 65536 */
struct span script_bytes(struct script *script, size_t length); /* fewer, if there are no more */
/* Numbers at the edges of what is allowed, as often as not. */
uint64_t script_number(struct script *script);

/* A copy in memory of its own, so that reading beyond its end is noticed, with sanitizers and without. */
uint8_t *fuzz_copy(const void *bytes, size_t length);
void fuzz_free(const uint8_t *copy, size_t length);

/* ---- Inputs that may end the process: run in a child ---------------------------------------------------------------- */

enum fuzz_end {
    FUZZ_ENDED,  /* `run` has returned */
    FUZZ_FAILED, /* store_fail(): a sentence, and the process ends */
    FUZZ_LMDB    /* liblmdb died of a damaged file, in the child or in a child of that */
};
#define FUZZ_SECONDS_MAX 20u /* of processor time that a child may take; ten times as much by the clock, if it waits */
#define FUZZ_MEMORY_MAX (1200u << 20)
/* Anything else, too much time and too much memory among it, is a finding. *result: what `run` returned. */
enum fuzz_end fuzz_child(bool (*run)(struct script *script), struct script *script, bool *result);
/* In a child: from here on only FUZZ_ENDED will do, or FUZZ_FAILED too. */
void fuzz_must_live(bool may_fail);
/* In a child: LMDB died in a child of this one. */
bool fuzz_lmdb_died(void);

/* ---- Stores --------------------------------------------------------------------------------------------------------- */

extern const uint8_t fuzz_volume[16];
struct store_options fuzz_options(void); /* small; commits and checkpoints only when they are asked for */

struct image_file {
    char *name; /* below the store's folder */
    uint8_t *bytes;
    size_t length; /* without the zeros at its end */
    size_t size;
};
struct image { /* a store's files, in memory */
    struct image_file *files;
    unsigned count;
};
/* A store with a bit of everything: files with holes, unwritten and replaced blocks, links, attributes, orphans, two epochs,
 * an undone tail, records that only the tail has. Made once. */
const struct image *fuzz_template(void);
/* One that has just been formatted. */
const struct image *fuzz_empty(void);
void image_take(struct image *image, const char *path);
void image_write(const struct image *image, const char *path);
/* The folder in which harnesses work, on a file system in memory if there is one. */
const char *fuzz_directory(void);
extern bool fuzz_alone; /* it is a fuzzer that runs, not the test */
void fuzz_remove(const char *path); /* with all that is in it */

struct store;
/* Everything that can be read of it: tree, data, attributes; with `history` journal, past states, undone tails, too. How many
 * errors it met. What is no tree (hostile rows) is read up to a bound. */
unsigned fuzz_read_all(struct store *store, bool history);

#endif
