#!/usr/bin/env bash
# Brings what `make test-containers` needs, three Debian packages by name. Safe to run again.
#
# Images are made FROM scratch by the tests, and kept by podman: nothing is fetched, and nothing lies in the checkout.
set -euo pipefail
say() { printf 'containers: %s\n' "$*" >&2; }

if [ "$(id -u)" != 0 ]; then
  say "containers with capabilities take root. Run: sudo make test-containers"
  exit 1
fi
missing=()
command -v podman >/dev/null 2>&1 || missing+=(podman)
command -v runc >/dev/null 2>&1 || missing+=(runc)
[ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 || missing+=(busybox-static)
[ ${#missing[@]} = 0 ] && exit 0
if ! command -v apt-get >/dev/null 2>&1; then
  say "install ${missing[*]}, then again."
  exit 1
fi
say "installing ${missing[*]} with apt-get"
DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
