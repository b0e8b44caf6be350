// A stream socket at "tcp PORT" (of the loopback), "unix PATH" or "vsock PORT" (of the machine's own
// loopback): listening if it is a front, else connected.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

static int at(char **where, int front) {
    struct sockaddr_in four = {.sin_family = AF_INET};
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_vm machine = {.svm_family = AF_VSOCK};
    const void *address = &path;
    socklen_t length = sizeof path;
    int family = AF_UNIX, on = 1;
    if (strcmp(where[0], "tcp") == 0) {
        family = AF_INET, address = &four, length = sizeof four;
        four.sin_port = htons(atoi(where[1])), four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else if (strcmp(where[0], "vsock") == 0) {
        family = AF_VSOCK, address = &machine, length = sizeof machine;
        machine.svm_port = atoi(where[1]);
        machine.svm_cid = front ? VMADDR_CID_ANY : VMADDR_CID_LOCAL;
    } else {
        strncpy(path.sun_path, where[1], sizeof path.sun_path - 1);
        if (front) unlink(where[1]);
    }
    int fd = socket(family, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if ((front ? bind : connect)(fd, address, length) != 0) perror(where[1]), exit(1);
    if (front && listen(fd, 4096) != 0) exit(1);
    return fd;
}
