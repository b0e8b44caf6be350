// What all activators start: says back what it hears from one client, and ends with it.
//
//   service wait FD   FD listens; takes one client
//   service conn      the client is on stdin and stdout
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static char buffer[65536];
    int in = 0, out = 1;
    if (argc == 3) {
        int listener = atoi(argv[2]);
        while ((in = accept(listener, NULL, NULL)) < 0) {
            struct pollfd wait = {.fd = listener, .events = POLLIN};
            if (poll(&wait, 1, 10000) < 1) return 1;
        }
        out = in;
    }
    for (;;) {
        ssize_t count = read(in, buffer, sizeof buffer);
        if (count <= 0) return 0;
        for (ssize_t done = 0; done < count;) {
            ssize_t wrote = write(out, buffer + done, count - done);
            if (wrote <= 0) return 0;
            done += wrote;
        }
    }
}
