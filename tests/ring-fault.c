/* ring-fault.so: an LD_PRELOAD layer in which io_uring cannot be put to use after it was set up, as when the kernel lacks
 * memory then. */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENABLE_RINGS 12

long syscall(long number, ...) {
    static long (*real)(long number, ...);
    va_list list;
    long arguments[6];

    va_start(list, number);
    for (int i = 0; i < 6; i++)
        arguments[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_io_uring_register && arguments[1] == ENABLE_RINGS) {
        errno = ENOMEM;
        return -1;
    }
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    return real(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}
