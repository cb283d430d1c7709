# shellcheck shell=bash
# The base of every script in bin/: the location of the checkout, output of steps and failures,
# ports, processes, packages. Invariant: nothing here needs more than bash 3.2 and the base system
# (no curl, ps, ss or openssl), because these scripts install everything else. Next:
# bin/lib/environment.sh (variables), bin/services (the stores).

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$ROOT"
# Finds a toolchain from rustup even if the login shell has not been restarted since its
# installation.
PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"
export PATH

step() { printf '==> %s\n' "$*"; }
say() { printf '    %s\n' "$*"; }

# fail WHAT [WHAT TO DO]…: every failure names its remedy.
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  local line
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" -eq 0 ]; }
is_macos() { [ "$(uname -s)" = Darwin ]; }
in_ci() { case "${CI:-}" in 1 | true | TRUE | yes) return 0 ;; *) return 1 ;; esac }
random_hex() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }
target_dir() { printf '%s' "${CARGO_TARGET_DIR:-$ROOT/target}"; }
# Prints the usage text of a script, which is the comment at its head.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

# wait_until SECONDS COMMAND…: true as soon as the command succeeds, false after the time-out.
wait_until() {
  local tries=$(($1 * 5))
  shift
  until "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 0.2
  done
}

tcp_open() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

# free_port FIRST: the first port from FIRST on that refuses connections.
free_port() {
  local port=$1 last=$(($1 + 500))
  while tcp_open 127.0.0.1 "$port"; do
    port=$((port + 1))
    [ "$port" -le "$last" ] || fail "no free port between $1 and $last"
  done
  printf '%s' "$port"
}

# http_status HOST PORT PATH: the status code of a GET; nothing if there is no response within 5 s.
http_status() {
  (
    exec 3<>"/dev/tcp/$1/$2" || exit 1
    printf 'GET %s HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n' "$3" "$1" "$2" >&3
    IFS=' ' read -r -t 5 _ code _ <&3 && printf '%s' "$code"
  ) 2>/dev/null
}

# process_args PID: its command line; nothing if the process does not exist.
process_args() {
  [ -n "${1:-}" ] || return 0
  if [ -d /proc/self ]; then
    { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null || true
  else
    ps -o args= -p "$1" 2>/dev/null || true
  fi
}

# shellcheck disable=SC2012 # stat is spelled differently on Linux and macOS
owner_of() { ls -ld "$1" | awk '{ print $3 }'; }

retry_once() {
  "$@" && return
  say "failed, trying once more in 5 s: $*"
  sleep 5
  "$@"
}

as_root() {
  if is_root; then
    "$@"
  elif ! have sudo; then
    fail "this needs root, and there is no sudo" "Run as root: $*"
  elif [ -t 0 ]; then
    sudo "$@"
  else
    sudo -n "$@"
  fi
}

# install_packages WHAT APT_PACKAGES BREW_PACKAGES: installs them with the machine's package
# manager, or fails with instructions for a manual installation. The lists are split at spaces on
# purpose.
# shellcheck disable=SC2086
install_packages() {
  step "Installing $1"
  if have apt-get; then
    retry_once as_root apt-get -qq update || say "apt-get update failed; continuing with the existing package lists"
    retry_once as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 \
      install -y --no-install-recommends $2 >/dev/null ||
      fail "could not install $2" "Run: sudo apt-get update && sudo apt-get install $2 — then this script again."
  elif have brew; then
    retry_once brew install --quiet $3 || fail "could not install $3" "Run: brew install $3 — then this script again."
  elif is_macos; then
    fail "$1 is missing" "Install Homebrew (https://brew.sh), then run this script again; or install manually: $3"
  else
    fail "$1 is missing, and neither apt-get nor Homebrew is available to install it" "Install it manually, then run this script again."
  fi
}

# hold NOTE / release: records for the other scripts of this checkout that the stores are in use.
# other_holders prints the notes of the other live holders.
hold() { mkdir -p "$STATE/holders" && printf '%s\n' "$1" >"$STATE/holders/$$"; }
release() { rm -f "$STATE/holders/$$"; }
other_holders() {
  local file pid
  for file in "$STATE"/holders/*; do
    pid=${file##*/}
    [ -f "$file" ] && [ "$pid" != "$$" ] || continue
    case "$(process_args "$pid")" in
      *bin/dev* | *bin/test*) cat "$file" ;;
      *) rm -f "$file" ;;
    esac
  done
}
