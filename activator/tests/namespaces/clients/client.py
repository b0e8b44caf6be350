# A service by the protocol alone, without a library of systemd's.
import os
import socket
import stat

assert os.environ["LISTEN_PID"] == str(os.getpid())
count = int(os.environ["LISTEN_FDS"])
names = os.environ["LISTEN_FDNAMES"].split(":")
assert len(names) == count
with open(os.environ["REPORT"], "a") as report:
    for number, name in zip(range(3, 3 + count), names):
        assert os.get_blocking(number)
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            kind = "fifo"
        else:
            # The family and the kind are asked of the kernel.
            it = socket.socket(fileno=os.dup(number))
            family = {socket.AF_INET: "inet", socket.AF_UNIX: "unix"}[it.family]
            listening = it.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            kind = {
                ("inet", socket.SOCK_STREAM, 1): "tcp",
                ("inet", socket.SOCK_DGRAM, 0): "udp",
                ("unix", socket.SOCK_STREAM, 1): "unix",
            }[family, it.type, listening]
        print("fd", number, name, kind, file=report)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
address = os.environ["NOTIFY_SOCKET"]
notify.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)
client, _ = socket.socket(fileno=3).accept()
client.sendall(b"Python")
