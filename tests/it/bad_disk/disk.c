/* A disk that hangs or fails: loaded into the node before the C library. While the directory that DISK_TROUBLE names has
 * a file `hang-write` or `hang-sync`, such calls wait for its end; `fail-write` or `fail-sync` fails the next one, and is
 * gone. Only what the node writes into files by position is meant, which is what it does for its log. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static int troubled(const char *call)
{
    const char *directory = getenv("DISK_TROUBLE");
    char path[4096];
    if (!directory)
        return 0;
    snprintf(path, sizeof path, "%s/hang-%s", directory, call);
    while (access(path, F_OK) == 0)
        usleep(5000);
    snprintf(path, sizeof path, "%s/fail-%s", directory, call);
    return unlink(path) == 0;
}

int fdatasync(int file)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (troubled("sync")) {
        errno = EIO;
        return -1;
    }
    return real(file);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (troubled("write")) {
        errno = EIO;
        return -1;
    }
    return real(file, bytes, count, offset);
}
