# A pod in small: a service, started again whenever it ends, and a probe that is executed beside it.
# Usage: pod.sh PROBE COMMAND...
probe=$1
shift
(while sleep 1; do sh -c "$probe" >/dev/null 2>&1; done) &
while :; do
  "$@" &
  echo $! >data/pid.new
  mv data/pid.new data/pid
  wait $!
done
