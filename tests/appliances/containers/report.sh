# Says what a process of this container sees, a line for each fact, and then does what the first
# argument asks for.
for applet in awk cat date env grep head hostname id ls ln mkdir mknod readlink sleep stat touch tr; do
    eval "$applet() { /bin/busybox $applet \"\$@\"; }"
done
fact() {
    name=$1
    shift
    echo "$name=$(eval "$*" 2>&1 | tr -s '\n\t' '  ')"
}
env | awk '{ print "env." $0 }'
awk '{ print "mount." $2 "=" $3 " " $4 }' /proc/mounts
awk '/^(Cap|NoNewPrivs|Seccomp|Umask)/ { print "status." $1 "=" $2 }' /proc/1/status
fact first 'cat /proc/1/comm'
fact ids 'id -u; id -g; id -G'
fact cwd 'echo $PWD'
fact hostname hostname
fact etc-hostname 'cat /etc/hostname'
fact hosts 'cat /etc/hosts'
fact resolv 'cat /etc/resolv.conf'
fact nofile 'ulimit -Sn; ulimit -Hn'
fact pids 'cat /sys/fs/cgroup/pids.max'
fact memory 'cat /sys/fs/cgroup/memory.max'
fact msgmax 'cat /proc/sys/kernel/msgmax'
fact oom 'cat /proc/1/oom_score_adj'
fact zone 'date +%Z'
fact net 'readlink /proc/self/ns/net'
fact userns 'readlink /proc/self/ns/user'
fact uid-map 'head -n 1 /proc/self/uid_map'
fact version 'cat /proc/version'
fact firmware 'ls /sys/firmware'
fact timers 'head -c 5 /proc/timer_list'
fact device 'stat -c %t:%T /dev/given; ls /dev/not-there'
[ ! -e /dev/given ] || fact device-write '(echo x >/dev/given) && echo written'
fact mknod 'mknod /made c 1 3 && echo made'
fact secret 'cat /run/secrets/key; stat -c %a:%u /run/secrets/key'
fact volume 'cat /data/seed; stat -c %u /data'
fact given 'touch /given/new && stat -c %u:%g /given'
fact bound 'cat /etc/app.conf'
fact bound-write 'touch /etc/app.conf && echo written'
fact overlay-write 'touch /over/new && ls /over'
fact root-before '[ -e /new ] && echo written || echo fresh'
fact root-write 'touch /new && echo written'
fact tmp-write 'touch /tmp/new && echo written'
fact image 'cat /other/inside/other; touch /other/new'
fact link 'ln -s a /tmp/link && echo linked'
echo end=1
case $1 in
'') exec /bin/busybox sleep 100000 ;;
stubborn) trap '' TERM ;;
polite) trap 'echo got=usr1; exit 7' USR1 ;;
ready)
    # Through a program of the guest's: busybox sends no datagrams to a Unix socket.
    printf READY=1 | /usr/bin/socat - "UNIX-SENDTO:$NOTIFY_SOCKET"
    ;;
end) exit 0 ;;
esac
while :; do sleep 1; done
