// The floor for an appliance's init: mounts, brings the loopback up, binds the tutorial's sockets,
// says how long that took, and powers off. No modules, no supervision, no logs.
#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int listening(int family, int type, const void *address, socklen_t length) {
    int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address, length) != 0) return 1;
    return type == SOCK_STREAM && listen(fd, 4096) != 0;
}

int main(void) {
    long long start = now();
    mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755), mkdir("/run", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mount("tmpfs", "/run", "tmpfs", 0, NULL);

    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq lo = {.ifr_flags = IFF_UP | IFF_RUNNING};
    strcpy(lo.ifr_name, "lo");
    ioctl(control, SIOCSIFFLAGS, &lo);
    close(control);

    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(3000)};
    four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(3000)};
    six.sin6_addr = in6addr_loopback;
    struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "/run/echo_stream_sock"};
    int failed = listening(AF_INET, SOCK_STREAM, &four, sizeof four)
        + listening(AF_INET, SOCK_DGRAM, &four, sizeof four)
        + listening(AF_INET6, SOCK_STREAM, &six, sizeof six)
        + listening(AF_INET6, SOCK_DGRAM, &six, sizeof six)
        + listening(AF_UNIX, SOCK_STREAM, &path, sizeof path);
    printf("FLOOR %lld %d\n", now() - start, failed);
    fflush(stdout);
    reboot(RB_POWER_OFF);
    for (;;) pause();
}
