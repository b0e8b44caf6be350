// The floor of an init: mounts, brings the loopback up, and then
// * with /etc/next, becomes the program that it names, a word a line: for inits that do not mount;
// * else listens on three ports, and says so.
#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void) {
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

    FILE *next = fopen("/etc/next", "r");
    if (next != NULL) {
        static char lines[16][128];
        static char *words[17];
        for (int i = 0; i < 16 && fgets(lines[i], sizeof lines[i], next); i++) {
            lines[i][strcspn(lines[i], "\n")] = 0, words[i] = lines[i];
        }
        execv(words[0], words);
    }
    int failed = 0;
    for (int port = 3000; port < 3003; port++) {
        struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
        four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        failed |= bind(fd, (void *)&four, sizeof four) != 0 || listen(fd, 4096) != 0;
    }
    puts(failed ? "FAILED" : "READY");
    fflush(stdout);
    reboot(RB_POWER_OFF);
    for (;;) pause();
}
