#!/usr/bin/env bash
# Boots Debian's newest kernel for arm64 in an emulator, and runs there what tests the kernel's programs: that each of
# them is loaded, who is watched, and that calls go by their names. The programs are the ones in git; their layouts and
# numbers are that machine's.
#
# Needs root and apt-get, and takes some minutes: nothing of it runs at the speed of this machine. The kernel and a
# Python for it come from Debian, into the user's cache.
#
#   tools/arm64.sh [EXPRESSION]      which tests, as pytest's -k has it
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/proofbeat/arm64
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=trixie-backports
tests=${1:-"first_call or often_each or first_use_of or writes_into or there_before_is or by_its_own_name or descends"}
say() { printf 'arm64: %s\n' "$*" >&2; }

[ "$(id -u)" = 0 ] || { say "packages are installed by root only. Run: sudo $0"; exit 2; }
command -v apt-get >/dev/null || { say "this takes Debian's packages: apt-get is missing"; exit 2; }
command -v qemu-system-aarch64 >/dev/null || apt-get install --quiet --yes --no-install-recommends qemu-system-arm

# 1. Debian's packages for that machine, by an apt-get of their own: this machine's knows nothing of them.
mkdir -p "$cache"/{lists/partial,archives/partial,packages}
signed=/usr/share/keyrings/debian-archive-keyring.gpg
for each in "${suite%-backports}" "$suite"; do printf 'deb [signed-by=%s] %s %s main\n' "$signed" "$mirror" "$each"; done >"$cache/sources.list"
foreign=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
  -o "Dir::Etc::SourceList=$cache/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
  -o "Dir::State::Lists=$cache/lists" -o Dir::State::status=/dev/null -o "Dir::Cache=$cache")
if ! [ -f "$cache/system/complete" ]; then
  say "fetching a kernel and a Python for arm64"
  apt-get "${foreign[@]}" update
  image=$(apt-cache "${foreign[@]}" depends --target-release "$suite" linux-image-cloud-arm64 | sed -n 's/.*Depends: linux-image-//p' | head -1)
  rm -rf "$cache/packages" "$cache/system"
  mkdir -p "$cache"/{packages,system}
  (cd "$cache/packages" && apt-get "${foreign[@]}" download --target-release "$suite" "linux-binary-$image" &&
    apt-get "${foreign[@]}" download python3.13-minimal libpython3.13-minimal libpython3.13-stdlib libc6 libexpat1 \
      zlib1g libssl3t64 libffi8 libgcc-s1 libzstd1 libuuid1)
  for each in "$cache"/packages/*.deb; do dpkg-deb --extract "$each" "$cache/system"; done
  find "$cache/system" -name 'vmlinuz*' -exec mv {} "$cache/kernel" \;
  rm -rf "$cache"/system/usr/share "$cache"/system/usr/lib/modules "$cache"/system/etc
  ln -s usr/lib "$cache/system/lib"
  ln -s usr/bin "$cache/system/bin"
  touch "$cache/system/complete"
fi

# 2. A file system in memory: that, our sources and pytest, which is Python alone.
system=$(mktemp -d "$cache/run.XXXXXX")
trap 'rm -rf "$system"' EXIT
cp -a "$cache/system/." "$system"
mkdir -p "$system"/{proc,sys,dev,tmp,root,src/tests/system}
cp -a "$checkout"/{attestation,measurer} "$system/src/"
cp -a "$checkout/tests/system/measurer" "$system/src/tests/system/"
packages=$("$checkout/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp -a "$packages"/{pytest,_pytest,py.py,pluggy,iniconfig,packaging,pygments} "$packages"/pluggy-*.dist-info "$system/src/"
cp "$checkout/tools/arm64.py" "$system/init.py"
printf '%s' "$tests" >"$system/src/which"
find "$system" -name __pycache__ -prune -exec rm -rf {} +
(cd "$system" && find . -print0 | cpio --quiet --null --create --format=newc) >"$cache/memory.cpio"

# 3. Run. The last line says what came of it.
say "booting; each test takes some ten seconds"
qemu-system-aarch64 -machine virt -cpu cortex-a72 -smp 2 -m 1536 -nographic -no-reboot -nic none \
  -kernel "$cache/kernel" -initrd "$cache/memory.cpio" \
  -append "console=ttyAMA0 quiet panic=-1 rdinit=/usr/bin/python3.13 -- /init.py" </dev/null | tee "$cache/last.log"
grep -q '^arm64: 0' "$cache/last.log"
