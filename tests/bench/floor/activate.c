// The floor of an activator: listens, waits, vforks, and does nothing else. No cgroup, no limits,
// no log, no state.
//
//   activate wait|accept|once tcp PORT PROGRAM [ARGUMENT...]
//   activate wait|accept|once unix PATH PROGRAM [ARGUMENT...]
//
// wait: the program gets the listener as fd 3, and the next one starts when it has ended.
// accept: each connection gets a program of its own, on fds 0 and 1.
// once: becomes the program when the first client is there.
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char listen_pid[32] = "LISTEN_PID=";
static char *environment[] = {"PATH=/usr/bin:/bin", "LISTEN_FDS=1", listen_pid, NULL};

static int listening(const char *kind, const char *where, int flags) {
    struct sockaddr_in four = {.sin_family = AF_INET};
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    int tcp = strcmp(kind, "tcp") == 0, on = 1;
    four.sin_port = htons(atoi(where)), four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    strncpy(path.sun_path, where, sizeof path.sun_path - 1);
    int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | flags, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int bound = tcp ? bind(fd, (void *)&four, sizeof four) : bind(fd, (void *)&path, sizeof path);
    if (bound != 0 || listen(fd, 4096) != 0) perror(where), exit(1);
    return fd;
}

static void become(int fd, char **argv) {
    if (fd != 3) dup2(fd, 3);
    sprintf(listen_pid + 11, "%d", (int)getpid());
    execve(argv[0], argv, environment);
    _exit(203);
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    char mode = argv[1][0];
    int flags = mode == 'a' ? SOCK_CLOEXEC : 0;
    int listener = listening(argv[2], argv[3], flags), poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    if (mode == 'a') signal(SIGCHLD, SIG_IGN);
    for (;;) {
        if (epoll_wait(poll, &event, 1, -1) != 1) continue;
        if (mode == 'o') become(listener, argv + 4);
        int fd = mode == 'a' ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : listener;
        pid_t pid = vfork();
        if (pid == 0 && mode == 'w') become(fd, argv + 4);
        if (pid == 0) {
            dup2(fd, 0), dup2(fd, 1);
            execve(argv[4], argv + 4, environment);
            _exit(203);
        }
        if (mode == 'w') waitpid(pid, NULL, 0);
        if (mode == 'a') close(fd);
    }
}
