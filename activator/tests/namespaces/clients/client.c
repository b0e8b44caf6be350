/* A service by libsystemd's own functions. Its header comes with another package than the
   library, so what is used of it is declared here, from sd_listen_fds(3) and its kin. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int sd_listen_fds_with_names(int unset_environment, char ***ret_names);
int sd_listen_fds(int unset_environment);
int sd_is_fifo(int fd, const char *path);
int sd_is_socket(int fd, int family, int type, int listening);
int sd_is_socket_inet(int fd, int family, int type, int listening, uint16_t port);
int sd_is_socket_unix(int fd, int type, int listening, const char *path, size_t length);
int sd_notify(int unset_environment, const char *state);

int main(void) {
        char **names = NULL;
        FILE *report = fopen(getenv("REPORT"), "a");
        int count = sd_listen_fds_with_names(0, &names);
        if (!report || count < 0)
                return 10;
        for (int i = 0; i < count; i++) {
                int fd = 3 + i;
                const char *kind = "unknown";
                if (sd_is_socket_inet(fd, AF_INET, SOCK_STREAM, 1, 3000) > 0)
                        kind = "tcp";
                else if (sd_is_socket_inet(fd, AF_INET, SOCK_DGRAM, -1, 3000) > 0)
                        kind = "udp";
                else if (sd_is_socket_unix(fd, SOCK_STREAM, 1, getenv("UNIX_PATH"), 0) > 0)
                        kind = "unix";
                else if (sd_is_fifo(fd, getenv("FIFO_PATH")) > 0)
                        kind = "fifo";
                fprintf(report, "fd %d %s %s\n", fd, names[i], kind);
        }
        /* What a socket is not, it is not. */
        if (sd_is_socket(3, AF_UNIX, SOCK_STREAM, 1) != 0 || sd_is_fifo(3, NULL) != 0)
                return 11;
        /* The same count, and none for whoever asks afterwards. */
        if (sd_listen_fds(1) != count || getenv("LISTEN_FDS") || sd_listen_fds(0) != 0)
                return 12;
        fclose(report);
        if (sd_notify(0, "STATUS=from C\nREADY=1") <= 0)
                return 13;
        int client = accept(3, NULL, NULL);
        if (client < 0 || write(client, "C", 1) != 1)
                return 14;
        return 0;
}
