/* liblog.so: what an Android library logs goes to stderr. */
#include <stdarg.h>
#include <stdio.h>
int __android_log_vprint(int p, const char *tag, const char *format, va_list a) {
    fprintf(stderr, "%d/%s: ", p, tag);
    int r = vfprintf(stderr, format, a);
    fputc('\n', stderr);
    return r;
}
int __android_log_print(int p, const char *tag, const char *format, ...) {
    va_list a;
    va_start(a, format);
    int r = __android_log_vprint(p, tag, format, a);
    va_end(a);
    return r;
}
int __android_log_write(int p, const char *tag, const char *m) { return fprintf(stderr, "%d/%s: %s\n", p, tag, m); }
