// A client of an echo server on the loopback, for a guest that has no other.
//
//   trip PORT TRIPS BYTES
//
// Prints the microseconds of a round trip of one byte, the middle of all, and the MB of a second
// that came back.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// Less than what is under way in both directions, so that nobody waits for the other for good.
enum { CHUNK = 16384 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void there_and_back(int fd, size_t bytes) {
    static char buffer[CHUNK];
    if (write(fd, buffer, bytes) != (ssize_t)bytes) exit(2);
    while (bytes > 0) {
        ssize_t count = read(fd, buffer, bytes);
        if (count <= 0) exit(3);
        bytes -= count;
    }
}

static int by_size(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

int main(int argc, char **argv) {
    if (argc != 4) return 64;
    int trips = atoi(argv[2]), on = 1;
    long bytes = atol(argv[3]);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) return 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    there_and_back(fd, 1);
    double *took = malloc(trips * sizeof *took);
    for (int trip = 0; trip < trips; trip++) {
        double begun = now();
        there_and_back(fd, 1);
        took[trip] = now() - begun;
    }
    qsort(took, trips, sizeof *took, by_size);
    double begun = now();
    for (long done = 0; done < bytes; done += CHUNK) there_and_back(fd, CHUNK);
    printf("%.3f %.3f\n", took[trips / 2], bytes / (now() - begun));
    return 0;
}
