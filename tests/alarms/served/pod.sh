# A pod in small: a service, and a probe that is executed beside it. Usage: pod.sh PROBE COMMAND...
probe=$1
shift
"$@" &
echo $! >data/pid.new
mv data/pid.new data/pid
(while sleep 1; do sh -c "$probe" >/dev/null 2>&1; done) &
wait %1
