#include "tests/fuzz/fuzz.h"
#include "tests/tap.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>

void (*fuzz_taker)(const char *name, const void *bytes, size_t length);

void fuzz_give(const char *name, const void *bytes, size_t length) {
    fuzz_taker(name, bytes, length);
}

void fuzz_found(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: what must be is not: %s\n", file, line, what);
    abort();
}

/* ---- Scripts ---- */

struct span script_bytes(struct script *script, size_t length) {
    struct span span = {script->at, (uint32_t)MIN(length, script->left)};
    script->at += span.length;
    script->left -= span.length;
    return span;
}

static uint64_t take(struct script *script, size_t length) {
    struct span span = script_bytes(script, length);
    uint64_t value = 0;
    if (span.length)
        memcpy(&value, span.data, span.length);
    return value;
}

uint8_t script_u8(struct script *script) {
    return (uint8_t)take(script, 1);
}

uint16_t script_u16(struct script *script) {
    return (uint16_t)take(script, 2);
}

uint64_t script_u64(struct script *script) {
    return take(script, 8);
}

uint32_t script_below(struct script *script, uint32_t n) {
    return (n > 256 ? script_u16(script) : script_u8(script)) % n;
}

uint64_t script_number(struct script *script) {
    static const uint64_t edges[] = {0,          1,          2,          UINT64_MAX, UINT64_MAX - 1, UINT64_MAX / 2,
                                     1ull << 32, UINT32_MAX, 1ull << 31, INT32_MAX,  1ull << 60,     (1ull << 60) + 1,
                                     4095,       4096,       4097,       65535,      1ull << 48,     1ull << 40};
    uint32_t choice = script_below(script, 32);
    if (choice < sizeof edges / sizeof *edges)
        return edges[choice];
    return choice < 26 ? script_u8(script) : choice < 30 ? script_u16(script) : script_u64(script);
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZED
#endif

#ifdef SANITIZED
uint8_t *fuzz_copy(const void *bytes, size_t length) {
    uint8_t *copy = malloc(length ? length : 1);
    PROMISE(copy);
    if (length)
        memcpy(copy, bytes, length);
    return copy;
}

void fuzz_free(const uint8_t *copy, size_t length) {
    (void)length;
    free((void *)copy);
}
#else
/* Without the sanitizer: it ends where a page begins that nobody may touch. */
#define PAGE 4096u

static size_t whole_pages(size_t length) {
    return (length + PAGE - 1) / PAGE * PAGE;
}

uint8_t *fuzz_copy(const void *bytes, size_t length) {
    size_t size = whole_pages(length);
    uint8_t *region = mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    PROMISE(region != MAP_FAILED && mprotect(region + size, PAGE, PROT_NONE) == 0);
    uint8_t *copy = region + size - length;
    if (length)
        memcpy(copy, bytes, length);
    return copy;
}

void fuzz_free(const uint8_t *copy, size_t length) {
    if (copy)
        munmap((uint8_t *)copy + length - whole_pages(length), whole_pages(length) + PAGE);
}
#endif

/* ---- What the product says, and how its disk behaves ---- */

/* Sentences for people are not read here; FUZZ_LOG shows them. */
void __wrap_log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void __wrap_log_write(enum log_level level, const char *format, ...) {
    char line[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments); /* in any case: its arguments are read */
    va_end(arguments);
    if (level != LOG_LEVEL_DEBUG && getenv("FUZZ_LOG"))
        fprintf(stderr, "%s\n", line);
}

/* Stores are thrown away after each input, and lie in memory, where space set aside is memory. */
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length);
int __real_fallocate(int fd, int mode, off_t offset, off_t length);

int __wrap_fsync(int fd) {
    return fcntl(fd, F_GETFD) < 0 ? -1 : 0;
}
int __wrap_fdatasync(int fd) {
    return __wrap_fsync(fd);
}
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length) {
    struct stat st;
    if (mode & FALLOC_FL_PUNCH_HOLE)
        return __real_fallocate(fd, mode, offset, length);
    if (mode & FALLOC_FL_KEEP_SIZE || fstat(fd, &st) < 0 || st.st_size >= offset + length)
        return 0;
    return ftruncate(fd, offset + length);
}

/* ---- Children ---- */

enum verdict { VERDICT_NONE, VERDICT_RETURNED, VERDICT_FAILED, VERDICT_LMDB, VERDICT_FOUND };
#define STORE_FAILED 70 /* store_fail()'s exit status */

static struct shared {
    _Atomic int verdict;
    bool result;
    _Atomic bool lmdb_died; /* in any child */
    bool must_live, may_fail;
    uint8_t coverage[];
} *shared;

/* Where clang counts what has been run: a child's counts are brought home, or the fuzzer would not see what an input reached. */
extern uint8_t __start___sancov_cntrs[] __attribute__((weak));
extern uint8_t __stop___sancov_cntrs[] __attribute__((weak));

int __llvm_profile_write_file(void) __attribute__((weak)); /* of a build for llvm-cov */

static size_t coverage_size(void) {
    return __start___sancov_cntrs ? (size_t)(__stop___sancov_cntrs - __start___sancov_cntrs) : 0;
}

static void coverage_give(void) {
    size_t size = shared ? coverage_size() : 0;
    for (size_t i = 0; i < size; i++)
        if (__start___sancov_cntrs[i] > shared->coverage[i])
            shared->coverage[i] = __start___sancov_cntrs[i];
}

static void verdict_set(int verdict) {
    int none = VERDICT_NONE;
    if (verdict == VERDICT_FOUND)
        atomic_store(&shared->verdict, verdict);
    else
        atomic_compare_exchange_strong(&shared->verdict, &none, verdict);
}

static bool in_child;

void __wrap__exit(int status) __attribute__((noreturn));
void __real__exit(int status) __attribute__((noreturn));
void __wrap__exit(int status) { /* check's child, and store_fail() */
    if (in_child) {
        coverage_give();
        if (status == STORE_FAILED)
            verdict_set(VERDICT_FAILED);
    }
    if (__llvm_profile_write_file)
        __llvm_profile_write_file();
    __real__exit(status);
}

static bool is_lmdb(const void *address) {
    Dl_info info;
    return dladdr(address, &info) && info.dli_fname && strstr(info.dli_fname, "liblmdb");
}

/* A page that a damaged one names, behind the end of the database: reading what LMDB has given dies there as LMDB would. */
static bool in_database(const void *address) {
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[4400];
    bool found = false;
    while (maps && !found && fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx", &from, &to) == 2 && strstr(line, "/data.mdb"))
            found = (unsigned long)address >= from && (unsigned long)address < to;
    }
    if (maps)
        fclose(maps);
    return found;
}

void __sanitizer_print_stack_trace(void) __attribute__((weak));

#define NEAR 6 /* frames: abort() and what it calls, or a memcpy, called by LMDB */

static void died(int signal, siginfo_t *info, void *context) {
    void *frames[64];
    int count = backtrace(frames, 64), first = 0;
    bool lmdb = false;
    (void)context;
    while (first < count && !lmdb && first < NEAR + 3) /* this one and the kernel's are among them */
        lmdb = is_lmdb(frames[first++]);
    bool hangs = signal == SIGALRM || signal == SIGPROF;
    if (!hangs && signal != SIGABRT && !lmdb)
        lmdb = in_database(info->si_addr);
    if (lmdb && !hangs) {
        atomic_store(&shared->lmdb_died, true);
        verdict_set(VERDICT_LMDB);
        coverage_give();
        __real__exit(3);
    }
    fprintf(stderr, "signal %d (%s) in a child%s\n", signal, strsignal(signal), lmdb ? ", in LMDB" : "");
    if (__sanitizer_print_stack_trace)
        __sanitizer_print_stack_trace();
    else
        backtrace_symbols_fd(frames, count, STDERR_FILENO);
    verdict_set(VERDICT_FOUND);
    __real__exit(4);
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));
/* LMDB calls nothing of ours: what lies above one of its frames is its fault, or of a memcmp that it calls with a damaged length. */
static void sanitizer_found(void) {
    void *frames[64];
    int count = backtrace(frames, 64);
    bool lmdb = false;
    for (int i = 0; i < count && !lmdb; i++)
        lmdb = is_lmdb(frames[i]);
    verdict_set(lmdb ? VERDICT_LMDB : VERDICT_FOUND);
    if (!lmdb)
        return;
    atomic_store(&shared->lmdb_died, true);
    coverage_give();
    __real__exit(3);
}

static void child_begin(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM, SIGPROF};
    static const struct itimerval busy = {.it_value.tv_sec = FUZZ_SECONDS_MAX};
    static uint8_t stack[256 << 10];
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    struct sigaction action = {.sa_sigaction = died, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
    void *warm[2];
    backtrace(warm, 2); /* loads what it needs now, not in the handler */
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(sanitizer_found);
    in_child = true;
    PROMISE(setitimer(ITIMER_PROF, &busy, NULL) == 0); /* on a busy machine little is done in a second */
    alarm(10 * FUZZ_SECONDS_MAX);
}

enum fuzz_end fuzz_child(bool (*run)(struct script *script), struct script *script, bool *result) {
    static const enum fuzz_end ends[] = {[VERDICT_RETURNED] = FUZZ_ENDED, [VERDICT_FAILED] = FUZZ_FAILED,
                                         [VERDICT_LMDB] = FUZZ_LMDB};
    struct rusage usage;
    int status;
    if (!shared) {
        shared = mmap(NULL, sizeof *shared + coverage_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        PROMISE(shared != MAP_FAILED);
    }
    memset(shared, 0, sizeof *shared + coverage_size());
    fflush(NULL);
    pid_t pid = fork();
    PROMISE(pid >= 0);
    if (pid == 0) {
        child_begin();
        shared->result = run(script);
        verdict_set(VERDICT_RETURNED);
        coverage_give();
        _exit(0);
    }
    while (wait4(pid, &status, 0, &usage) != pid)
        PROMISE(errno == EINTR); /* the fuzzer's own timer */
    for (size_t i = 0; i < coverage_size(); i++)
        __start___sancov_cntrs[i] = MAX(__start___sancov_cntrs[i], shared->coverage[i]);
    int verdict = atomic_load(&shared->verdict);
    FUZZ_MUST(verdict != VERDICT_FOUND && verdict != VERDICT_NONE);
    FUZZ_MUST(verdict == VERDICT_RETURNED || !shared->must_live || (verdict == VERDICT_FAILED && shared->may_fail));
    FUZZ_MUST((uint64_t)usage.ru_maxrss * 1024 <= FUZZ_MEMORY_MAX);
    *result = verdict == VERDICT_RETURNED && shared->result;
    return ends[verdict];
}

void fuzz_must_live(bool may_fail) {
    shared->must_live = true;
    shared->may_fail = may_fail;
}

bool fuzz_lmdb_died(void) {
    return atomic_load(&shared->lmdb_died);
}

/* ---- Folders ---- */

bool fuzz_alone;

/* The test's directory is removed with all that is in it; a fuzzer, which may die at any time, leaves that to run.sh. */
const char *fuzz_directory(void) {
    static char path[500], marks[520];
    if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    if (!fuzz_alone)
        return test_directory();
    if (!path[0]) {
        snprintf(path, sizeof path, "%s/fuzz.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        PROMISE(mkdtemp(path));
        snprintf(marks, sizeof marks, "%s/.run", path);
        setenv("BATON_RUN", marks, 1);
    }
    return path;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

void fuzz_remove(const char *path) {
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
