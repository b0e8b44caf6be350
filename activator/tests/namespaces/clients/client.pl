# A service by the protocol alone, with what every Debian has of Perl.
use strict;
use warnings;
use IO::Handle;
use IO::Socket;
use Socket;

die "not for us" unless $ENV{LISTEN_PID} == $$;
my @names = split /:/, $ENV{LISTEN_FDNAMES}, -1;
die "names" unless @names == $ENV{LISTEN_FDS};
open(my $report, '>>', $ENV{REPORT}) or die;
for my $number (3 .. 2 + $ENV{LISTEN_FDS}) {
    open(my $fd, '+<&', $number) or die "fd $number: $!";
    my $kind = 'fifo';
    if (-S $fd) {
        my $type = unpack 'i', getsockopt($fd, SOL_SOCKET, SO_TYPE);
        my $family = sockaddr_family(getsockname($fd));
        $kind = $family == AF_UNIX ? 'unix' : $type == SOCK_DGRAM ? 'udp' : 'tcp';
    } elsif (!-p $fd) {
        die "fd $number is neither";
    }
    print $report "fd $number $names[$number - 3] $kind\n";
}
close $report;
socket(my $notify, AF_UNIX, SOCK_DGRAM, 0) or die;
(my $address = $ENV{NOTIFY_SOCKET}) =~ s/^@/\0/;
send($notify, 'READY=1', 0, pack_sockaddr_un($address)) or die "notify: $!";
open(my $listener, '+<&=', 3) or die;
accept(my $client, $listener) or die "accept: $!";
$client->autoflush;
print $client 'Perl';
