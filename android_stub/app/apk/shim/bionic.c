/* Android's C library, as far as our libraries call it, on glibc. Only what differs is written here; shim.py makes the table
   of the rest. `sF` is bionic's array of three FILEs of 152 bytes, which the libraries hold by address. A test tool. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

static char *sF;
void shim_set_sF(void *files) { sF = files; }
static FILE *std(void *file) {
    long at = (char *)file - sF;
    return at < 0 || at >= 456 ? (FILE *)file : at < 152 ? stdin : at < 304 ? stdout : stderr;
}

static int *b___errno(void) { return &errno; }
static int b___open_2(const char *path, int flags) { return open(path, flags); }
static size_t b___strlen_chk(const char *s, size_t n) { (void)n; return strlen(s); }
static char *b___strchr_chk(const char *s, int c, size_t n) { (void)n; return strchr(s, c); }
static ssize_t b___write_chk(int d, const void *b, size_t n, size_t m) { (void)m; return write(d, b, n); }
static int b___vsnprintf_chk(char *d, size_t n, int flags, size_t size, const char *f, va_list a) {
    (void)flags; (void)size;
    return vsnprintf(d, n, f, a);
}
static int b___system_property_get(const char *name, char *value) { /* without an SDK level XNNPACK is left out in silence */
    strcpy(value, strcmp(name, "ro.build.version.sdk") ? "" : "34");
    return (int)strlen(value);
}
static void b_android_set_abort_message(const char *m) { fprintf(stderr, "abort: %s\n", m); }
static void b___assert2(const char *f, int l, const char *n, const char *m) {
    fprintf(stderr, "%s:%d: %s: %s\n", f, l, n, m);
    abort();
}
static long b_sysconf(int name) { /* bionic numbers them otherwise */
    switch (name) {
    case 0x27: case 0x28: return sysconf(_SC_PAGESIZE);
    case 0x60: return sysconf(_SC_NPROCESSORS_CONF);
    case 0x61: return sysconf(_SC_NPROCESSORS_ONLN);
    case 0x62: return sysconf(_SC_PHYS_PAGES);
    default: fprintf(stderr, "shim: sysconf %#x\n", name); return -1;
    }
}
extern int __xpg_strerror_r(int, char *, size_t);
static int b_strerror_r(int e, char *b, size_t n) { return __xpg_strerror_r(e, b, n); }
static char *b___gnu_strerror_r(int e, char *b, size_t n) { return strerror_r(e, b, n); }

static int b_fclose(void *f) { return fclose(std(f)); }
static int b_fflush(void *f) { return fflush(f ? std(f) : NULL); }
static int b_fileno(void *f) { return fileno(std(f)); }
static int b_ferror(void *f) { return ferror(std(f)); }
static int b_fputc(int c, void *f) { return fputc(c, std(f)); }
static int b_getc(void *f) { return getc(std(f)); }
static int b_ungetc(int c, void *f) { return ungetc(c, std(f)); }
static wint_t b_getwc(void *f) { return getwc(std(f)); }
static wint_t b_ungetwc(wint_t c, void *f) { return ungetwc(c, std(f)); }
static wint_t b_fputwc(wchar_t c, void *f) { return fputwc(c, std(f)); }
static void b_setbuf(void *f, char *b) { setbuf(std(f), b); }
static int b_fseek(void *f, long o, int w) { return fseek(std(f), o, w); }
static int b_fseeko(void *f, off_t o, int w) { return fseeko(std(f), o, w); }
static off_t b_ftello(void *f) { return ftello(std(f)); }
static size_t b_fread(void *p, size_t s, size_t n, void *f) { return fread(p, s, n, std(f)); }
static size_t b_fwrite(const void *p, size_t s, size_t n, void *f) { return fwrite(p, s, n, std(f)); }
static int b_vfprintf(void *f, const char *m, va_list a) { return vfprintf(std(f), m, a); }
static int b_fprintf(void *f, const char *m, ...) {
    va_list a;
    va_start(a, m);
    int r = vfprintf(std(f), m, a);
    va_end(a);
    return r;
}

/* bionic's sem_t is smaller than glibc's, its sigset_t has 8 bytes */
static int b_sem_init(sem_t **s, int shared, unsigned value) {
    *s = malloc(sizeof(sem_t));
    return sem_init(*s, shared, value);
}
static int b_sem_post(sem_t **s) { return sem_post(*s); }
static int b_sem_wait(sem_t **s) { return sem_wait(*s); }
static int b_sem_timedwait(sem_t **s, const struct timespec *t) { return sem_timedwait(*s, t); }
static int b_sigfillset(unsigned long *s) { *s = ~0UL; return 0; }
static int b_pthread_sigmask(int how, const unsigned long *s, unsigned long *old) {
    sigset_t a, b;
    sigemptyset(&a);
    if (s) memcpy(&a, s, 8);
    int r = pthread_sigmask(how, s ? &a : NULL, old ? &b : NULL);
    if (old) memcpy(old, &b, 8);
    return r;
}

#include "symbols.h" /* SYMBOLS: a row a name, with b_NAME where it stands above, 0 elsewhere */
#define ROW(name, own) (void *)own,
void *shim_slots[] = {SYMBOLS};
#undef ROW
#define ROW(name, own) #name,
static const char *const names[] = {SYMBOLS};

__attribute__((constructor)) static void fill(void) {
    void *c = dlopen("libc.so.6", RTLD_NOW), *m = dlopen("libm.so.6", RTLD_NOW);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (!shim_slots[i]) shim_slots[i] = dlsym(c, names[i]);
        if (!shim_slots[i]) shim_slots[i] = dlsym(m, names[i]);
        if (!shim_slots[i]) { fprintf(stderr, "shim: no %s\n", names[i]); abort(); }
    }
}
