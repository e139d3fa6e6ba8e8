/* A library to preload. It counts the changes that a program and its children make to files below
 * a directory, and kills the whole process group just before the n-th change.
 *
 *   CRASH_BELOW    the directory
 *   CRASH_COUNTER  a file of 8 bytes, shared by all processes: the number of changes so far
 *   CRASH_AT       the change at which to kill; 0 = only count
 *   CRASH_LOG      a file with one line per change, "<number> <call> <path>"; its last line is the
 *                  change at which a program was killed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHANGES(flags) (((flags) & (O_CREAT | O_TRUNC)) != 0)
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *below;
static const char *log_file;
static long kill_at;
static long *counter;

__attribute__((constructor)) static void start(void) {
  const char *file = getenv("CRASH_COUNTER");
  below = getenv("CRASH_BELOW");
  log_file = getenv("CRASH_LOG");
  kill_at = getenv("CRASH_AT") ? atol(getenv("CRASH_AT")) : 0;
  if (!below || !file || !log_file) return;
  int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR);
  if (fd < 0) return;
  void *shared = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared != MAP_FAILED) counter = shared;
  syscall(SYS_close, fd);
}

static void count(const char *call, const char *path) {
  if (!counter || !path || strncmp(path, below, strlen(below)) != 0) return;
  int kept = errno;
  long number = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
  char line[PATH_MAX + 64];
  int length = snprintf(line, sizeof line, "%ld %s %s\n", number, call, path);
  int fd = (int)syscall(SYS_openat, AT_FDCWD, log_file, O_WRONLY | O_APPEND);
  if (fd >= 0) {
    syscall(SYS_write, fd, line, length);
    syscall(SYS_close, fd);
  }
  if (number == kill_at) kill(0, SIGKILL);
  errno = kept;
}

static void count_fd(const char *call, int fd) {
  if (!counter || fd < 3) return;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return;
  path[length] = 0;
  count(call, path);
}

static int mode_of(int flags, va_list more) {
  return (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, int) : 0;
}

#define OPEN(name)                                         \
  int name(const char *path, int flags, ...) {             \
    va_list more;                                          \
    va_start(more, flags);                                 \
    int mode = mode_of(flags, more);                       \
    va_end(more);                                          \
    if (CHANGES(flags)) count("open", path);               \
    return REAL(name)(path, flags, mode);                  \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                       \
  int name(int at, const char *path, int flags, ...) {     \
    va_list more;                                          \
    va_start(more, flags);                                 \
    int mode = mode_of(flags, more);                       \
    va_end(more);                                          \
    if (CHANGES(flags)) count("open", path);               \
    return REAL(name)(at, path, flags, mode);              \
  }
OPENAT(openat)
OPENAT(openat64)

FILE *fopen(const char *path, const char *mode) {
  if (mode[0] != 'r') count("open", path);
  return REAL(fopen)(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
  if (mode[0] != 'r') count("open", path);
  return REAL(fopen64)(path, mode);
}
int rename(const char *from, const char *to) {
  count("rename", to);
  return REAL(rename)(from, to);
}
int link(const char *from, const char *to) {
  count("link", to);
  return REAL(link)(from, to);
}
int symlink(const char *from, const char *to) {
  count("symlink", to);
  return REAL(symlink)(from, to);
}
int unlink(const char *path) {
  count("unlink", path);
  return REAL(unlink)(path);
}
int remove(const char *path) {
  count("remove", path);
  return REAL(remove)(path);
}
int rmdir(const char *path) {
  count("rmdir", path);
  return REAL(rmdir)(path);
}
int mkdir(const char *path, mode_t mode) {
  count("mkdir", path);
  return REAL(mkdir)(path, mode);
}
int unlinkat(int at, const char *path, int flags) {
  if (path[0] == '/')
    count("unlink", path);
  else
    count_fd("unlink", at);
  return REAL(unlinkat)(at, path, flags);
}
ssize_t write(int fd, const void *bytes, size_t n) {
  count_fd("write", fd);
  return REAL(write)(fd, bytes, n);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
  count_fd("write", fd);
  return REAL(writev)(fd, parts, n);
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
  count_fd("write", fd);
  return REAL(pwrite)(fd, bytes, n, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
  count_fd("write", fd);
  return REAL(pwrite64)(fd, bytes, n, at);
}
ssize_t sendfile(int to, int from, off_t *at, size_t n) {
  count_fd("write", to);
  return REAL(sendfile)(to, from, at, n);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t n) {
  count_fd("write", to);
  return REAL(sendfile64)(to, from, at, n);
}
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t n, unsigned flags) {
  count_fd("write", to);
  return REAL(copy_file_range)(from, at, to, there, n, flags);
}
int ftruncate(int fd, off_t length) {
  count_fd("truncate", fd);
  return REAL(ftruncate)(fd, length);
}
int ftruncate64(int fd, off64_t length) {
  count_fd("truncate", fd);
  return REAL(ftruncate64)(fd, length);
}
int renameat(int from_at, const char *from, int to_at, const char *to) {
  count("rename", to);
  return REAL(renameat)(from_at, from, to_at, to);
}
int fsync(int fd) {
  count_fd("sync", fd);
  return REAL(fsync)(fd);
}
int fdatasync(int fd) {
  count_fd("sync", fd);
  return REAL(fdatasync)(fd);
}
