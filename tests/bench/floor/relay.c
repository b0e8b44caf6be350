// The floor of a relay: one client at a time, one process each, blocking, two children for the two
// directions. Nothing is configured, checked, counted or limited.
//
//   relay splice|copy tcp PORT|unix PATH tcp PORT|unix PATH
//
// The first address is the front, the second the server's.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PIPE = 256 * 1024, COPY = 128 * 1024 };

static int at(char **where, int front) {
    struct sockaddr_in four = {.sin_family = AF_INET};
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    int tcp = strcmp(where[0], "tcp") == 0, on = 1;
    four.sin_port = htons(atoi(where[1])), four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    strncpy(path.sun_path, where[1], sizeof path.sun_path - 1);
    const void *address = tcp ? (void *)&four : (void *)&path;
    socklen_t length = tcp ? sizeof four : sizeof path;
    int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if ((front ? bind : connect)(fd, address, length) != 0) perror(where[1]), exit(1);
    if (front && listen(fd, 4096) != 0) exit(1);
    return fd;
}

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
