// What is before and behind a relay, for a guest that has no other: a server, and two clients of it.
//
//   ends serve ADDRESS          answers everybody
//   ends trips ADDRESS COUNT    prints the microseconds of a round trip of one byte, the middle of all
//   ends bytes ADDRESS COUNT    prints the MB of a second that the server has counted
//
// The address is two words, see address.h. The first byte of a connection says what the server does
// with it: 'e', it says all back; 'c', it reads the number of eight bytes that follows, and as many
// bytes, these nine included, as that number is, and says how many came.
#include "address.h"
#include <signal.h>
#include <stdint.h>
#include <time.h>

enum { CHUNK = 65536 };
static char buffer[CHUNK];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void say(int fd, const char *what, size_t count) {
    while (count > 0) {
        ssize_t wrote = write(fd, what, count);
        if (wrote <= 0) exit(2);
        what += wrote, count -= wrote;
    }
}

static size_t hear(int fd, char *what, size_t least, size_t room) {
    size_t heard = 0;
    while (heard < least) {
        ssize_t count = read(fd, what + heard, room - heard);
        if (count <= 0) exit(3);
        heard += count;
    }
    return heard;
}

static int connected(char **where) {
    int fd = at(where, 0), on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void answer(int fd) {
    size_t count = hear(fd, buffer, 1, CHUNK);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (buffer[0] == 'e') {
        for (;;) say(fd, buffer, count), count = hear(fd, buffer, 1, CHUNK);
    }
    uint64_t total, came;
    if (count < 9) count += hear(fd, buffer + count, 9 - count, CHUNK - count);
    memcpy(&total, buffer + 1, 8);
    for (came = count; came < total;) came += hear(fd, buffer, 1, CHUNK);
    say(fd, (char *)&came, 8);
}

static int by_size(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

static double trip(int fd) {
    double begun = now();
    say(fd, "e", 1), hear(fd, buffer, 1, 1);
    return now() - begun;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "serve") == 0) {
        int listener = at(argv + 2, 1);
        signal(SIGCHLD, SIG_IGN);
        for (;;) {
            int client = accept(listener, NULL, NULL);
            if (client >= 0 && fork() == 0) answer(client), exit(0);
            close(client);
        }
    }
    if (argc != 5) return 64;
    int fd = connected(argv + 2);
    uint64_t count = strtoull(argv[4], NULL, 10);
    if (strcmp(argv[1], "trips") == 0) {
        // The first one connects.
        trip(fd);
        double *took = malloc(count * sizeof *took);
        for (uint64_t index = 0; index < count; index++) took[index] = trip(fd);
        qsort(took, count, sizeof *took, by_size);
        printf("%.3f\n", took[count / 2]);
        return 0;
    }
    buffer[0] = 'c', memcpy(buffer + 1, &count, 8);
    double begun = now();
    for (uint64_t left = count; left > 0;) {
        size_t part = left < CHUNK ? left : CHUNK;
        say(fd, buffer, part), left -= part;
    }
    uint64_t came;
    hear(fd, (char *)&came, 8, 8);
    if (came != count) return 4;
    printf("%.3f\n", count / (now() - begun));
    return 0;
}
