# A pre-forking Perl service: two workers, replaced by SIGHUP; each opens its log for each line.
use strict; use warnings; use IO::Socket::INET; use POSIX ();
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 64, ReuseAddr => 1) or die $!;
my %workers;
sub work {
    open(my $file, '<', 'conf') or die; local $/; my $body = <$file>; $/ = "\n";
    while (my $client = $server->accept) {
        while (defined(my $line = <$client>)) {
            while (defined(my $header = <$client>)) { last if $header =~ /^\r?\n$/ }
            print $client "HTTP/1.1 200 OK\r\ncontent-length: " . length($body) . "\r\n\r\n$body"; $client->flush;
            open(my $log, '>>', 'log/service.log'); print $log $line;
        }
    }
    exit 0;
}
sub start { for (1 .. 4) { my $pid = fork; $SIG{HUP} = 'DEFAULT', work() if !$pid; $workers{$pid} = 1 } }
$SIG{HUP} = sub { my @old = keys %workers; %workers = (); start(); kill 'TERM', @old; };
start();
while (1) { sleep 1; 1 while waitpid(-1, POSIX::WNOHANG()) > 0; }
