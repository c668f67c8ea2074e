# A pod in small: a service, and a probe that is executed beside it. When the service's first process ends, all of it does,
# and it is started again after a while, in which the probe meets nobody. Usage: pod.sh PROBE COMMAND...
probe=$1
shift
(while sleep 1; do sh -c "$probe" >/dev/null 2>&1; done) &
while :; do
  setsid "$@" &
  echo $! >data/pid.new
  mv data/pid.new data/pid
  wait $!
  kill -KILL -$! 2>/dev/null
  sleep 2
done
