#!/usr/bin/env bash
# Runs the README's two commands in a bare Debian 12: python3, python3-venv, git and make, and nothing else. Once as
# root and once as an ordinary user, each in a fresh clone of this checkout's last commit.
#
# Needs root and debootstrap. What this machine uses to reach its package sources (certificates, pip's settings,
# proxies) is handed in; the first run builds the system, later ones unpack it from the cache.
#
#   tools/bare-debian.sh [root|user]...      default: both
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/proofbeat
image=$cache/debian-bookworm.tar
say() { printf 'bare-debian: %s\n' "$*" >&2; }

[ "$(id -u)" = 0 ] || { say "a root file system can be entered by root only. Run: sudo $0"; exit 2; }
command -v debootstrap >/dev/null || { say "debootstrap is missing. Run: apt-get install debootstrap"; exit 2; }

# 1. The bare system, from the cache where it is.
if ! [ -f "$image" ]; then
  say "building a bare Debian 12 (about a minute)"
  mkdir -p "$cache"
  made=$(mktemp -d "$cache/making.XXXXXX")
  debootstrap --variant=minbase --include=python3,python3-venv,git,make bookworm "$made" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$cache/debootstrap.log" 2>&1 ||
    { say "debootstrap failed; see $cache/debootstrap.log"; exit 1; }
  tar --create --file "$image.new" --directory "$made" .
  mv "$image.new" "$image"
  rm -rf "$made"
fi

# 2. What the machine needs to reach its sources, handed in by name.
handed=()
while IFS='=' read -r name value; do
  case $name in
    http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY) handed+=("$name=$value") ;;
    PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_CERT | UV_INDEX_URL | UV_DEFAULT_INDEX) handed+=("$name=$value") ;;
    SSL_CERT_FILE | SSL_CERT_DIR | REQUESTS_CA_BUNDLE) handed+=("$name=$value") ;;
  esac
done < <(env)

# 3. Each user in a system of its own, gone afterwards with everything mounted in it.
try() {
  local who=$1 home=$2 root
  root=$(mktemp -d "${TMPDIR:-/tmp}/bare-debian.XXXXXX")
  say "as $who: unpacking"
  tar --extract --file "$image" --directory "$root"
  rm -rf "$root/etc/ssl/certs"
  cp --recursive --dereference /etc/ssl/certs "$root/etc/ssl/"
  if [ -f /etc/pip.conf ]; then cp /etc/pip.conf "$root/etc/"; fi
  cp /etc/resolv.conf "$root/etc/"
  [ "$who" = root ] || chroot "$root" useradd --create-home --home-dir "$home" "$who"
  git clone --quiet --no-hardlinks "$checkout" "$root$home/proofbeat"
  chroot "$root" chown --recursive "$who:" "$home/proofbeat"
  local status=0
  unshare --mount bash -c '
    set -euo pipefail
    root=$1 who=$2 home=$3; shift 3
    mount --bind "$root" "$root"
    mount --rbind /dev "$root/dev"; mount --rbind /sys "$root/sys"; mount -t proc proc "$root/proc"
    exec chroot --userspec="$who:" "$root" env --ignore-environment --chdir="$home/proofbeat" \
      HOME="$home" LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" sh -c "
        for command in \"make demo\" \"make test\"; do
          echo; echo \"$who$ \$command\"; \$command || exit 1
        done"
  ' _ "$root" "$who" "$home" "${handed[@]}" || status=$?
  rm --recursive --force --one-file-system "$root"
  say "as $who: $([ $status = 0 ] && echo "both commands passed" || echo "FAILED, exit code $status")"
  return $status
}

[ $# -gt 0 ] || set -- root user
for as in "$@"; do
  case $as in
    root) try root /root ;;
    user) try ordinary /home/ordinary ;;
    *) say "unknown user '$as': root or user"; exit 2 ;;
  esac
done
