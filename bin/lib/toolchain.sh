# shellcheck shell=bash
# The compilers that a build needs. Invariant: a Rust toolchain is never installed behind the user's back, only asked for;
# a C linker comes with the system's packages. Next: bin/setup, bin/test.

ensure_linker() {
  have cc && return
  if is_macos; then fail "there is no C compiler (cc)" "Run: xcode-select --install — then this script again."; fi
  install_packages "a C compiler" build-essential gcc
  have cc || fail "there is still no C compiler (cc)" "Install gcc or clang, then run this script again."
}

# version_at_least HAVE WANT, on major.minor.
version_at_least() {
  local have_major=${1%%.*} have_rest=${1#*.} want_major=${2%%.*} want_rest=${2#*.}
  [ "$have_major" -gt "$want_major" ] ||
    { [ "$have_major" -eq "$want_major" ] && [ "${have_rest%%.*}" -ge "${want_rest%%.*}" ]; }
}

ensure_rust() {
  local want found
  want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  have cargo || fail "there is no Rust toolchain (cargo)" \
    "Install it from https://rustup.rs (one line), open a new shell, then run this script again."
  found=$(cargo --version | awk '{ print $2 }')
  version_at_least "$found" "$want" || fail "Rust $want or newer is needed, this is $found" "Run: rustup update stable"
}

# ensure_component NAME COMMAND: rustfmt and clippy are not in every toolchain.
ensure_component() {
  cargo "$2" --version >/dev/null 2>&1 && return
  have rustup || fail "cargo $2 is missing" "Install $1 with what installed cargo, or pass --fast."
  step "Installing $1"
  retry_once rustup component add "$1" || fail "could not install $1" "Run: rustup component add $1"
}

# In CI a lock file that does not fit the manifests is an error; on a developer's machine cargo brings it up to date.
cargo_build() {
  if in_ci; then cargo build --locked "$@"; else cargo build "$@"; fi
}
