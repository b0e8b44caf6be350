// The floor of a relay: one client at a time, one process each, blocking, two children for the two
// directions. Nothing is configured, checked, counted or limited.
//
//   relay splice|copy FRONT SERVER
//
// Each is two words, see address.h
#define _GNU_SOURCE
#include "address.h"
#include <fcntl.h>
#include <signal.h>

enum { PIPE = 256 * 1024, COPY = 128 * 1024 };

static void carry(int splices, int from, int to) {
    static char buffer[COPY];
    int pipes[2];
    if (splices && pipe(pipes) == 0) fcntl(pipes[1], F_SETPIPE_SZ, PIPE);
    for (;;) {
        ssize_t count = splices ? splice(from, NULL, pipes[1], NULL, PIPE, SPLICE_F_MOVE)
                                : read(from, buffer, sizeof buffer);
        if (count <= 0) break;
        for (ssize_t done = 0; done < count;) {
            ssize_t moved = splices
                ? splice(pipes[0], NULL, to, NULL, count - done, SPLICE_F_MOVE)
                : write(to, buffer + done, count - done);
            if (moved <= 0) _exit(1);
            done += moved;
        }
    }
    shutdown(to, SHUT_WR);
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    int splices = argv[1][0] == 's', front = at(argv + 2, 1);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int client = accept(front, NULL, NULL), server = at(argv + 4, 0);
        if (fork() == 0) carry(splices, client, server);
        if (fork() == 0) carry(splices, server, client);
        close(client), close(server);
    }
}
