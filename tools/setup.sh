#!/usr/bin/env bash
# Makes .venv from uv.lock. Safe to run again; does nothing when nothing changed.
#
# Needs Python 3.11+, git and make. Takes one Debian package, python3-venv, when it is missing and
# it may (root with apt-get); otherwise says the command that brings it.
set -euo pipefail
cd "$(dirname "$0")/.."

UV_VERSION=0.13.9
say() { printf 'setup: %s\n' "$*" >&2; }

python=""
for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
  [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  say "no Python 3.11 or newer was found. Install one (Debian 12: apt-get install python3) or name it: make setup PYTHON=/path/to/python3.11"
  exit 1
fi

if [ "$(uname -s)" != Linux ]; then
  say "Proofbeat measures through the Linux kernel and runs on Linux only; this is $(uname -s)."
  exit 1
fi

# 1. uv, at one version, in a folder of the checkout.
uv=.tools/bin/uv
if ! [ -x "$uv" ] || [ "$("$uv" --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
  rm -rf .tools
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
      say "python3-venv is missing: installing it with apt-get"
      DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2
      DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-venv >&2
    else
      say "this Python cannot make a virtual environment. Run: sudo apt-get install python3-venv, then again."
      exit 1
    fi
  fi
  say "installing uv $UV_VERSION into .tools"
  "$python" -m venv .tools
  .tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
fi

# 2. Everything else, exactly as locked.
# Where PYTHONDONTWRITEBYTECODE is set, or a folder is read-only, every start of a program would compile everything anew.
compile() { .venv/bin/python -m compileall -q attestation authority measurer policies proofbeat sidecar telemetry wire xds; }

stamp=.venv/.setup-complete
if [ -f "$stamp" ] && [ "$stamp" -nt uv.lock ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt tools/setup.sh ]; then
  compile # what has changed since
  exit 0
fi
say "installing the locked packages into .venv"
"$uv" sync --quiet --frozen --all-extras --compile-bytecode --python "$("$python" -c 'import sys; print(sys.executable)')"
compile

# 3. What this machine cannot give, and what that costs.
if [ "$(id -u)" != 0 ]; then
  say "not root: files are watched by inotify instead of fanotify, open connections are cut by killing Envoy instead of socket by socket. 'proofbeat doctor' lists it all."
fi
touch "$stamp"
