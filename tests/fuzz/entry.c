/* The door for libFuzzer and AFL++: one harness, FUZZ_HARNESS, in one program. */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    fuzz_alone = true;
    if (FUZZ_HARNESS.start)
        FUZZ_HARNESS.start();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    FUZZ_HARNESS.one(bytes, length);
    return 0;
}
