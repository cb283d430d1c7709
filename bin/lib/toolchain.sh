# shellcheck shell=bash
# The compilers that a build needs. Invariant: a missing Rust toolchain is reported and never
# installed automatically; a C linker is installed with the system's packages. Next: bin/setup,
# bin/test.

ensure_linker() {
  have cc && return
  if is_macos; then fail "no C compiler (cc) is installed" "Run: xcode-select --install — then this script again."; fi
  install_packages "a C compiler" build-essential gcc
  have cc || fail "a C compiler (cc) is still missing" "Install gcc or clang, then run this script again."
}

# version_at_least HAVE WANT, comparing major.minor.
version_at_least() {
  local have_major=${1%%.*} have_rest=${1#*.} want_major=${2%%.*} want_rest=${2#*.}
  [ "$have_major" -gt "$want_major" ] ||
    { [ "$have_major" -eq "$want_major" ] && [ "${have_rest%%.*}" -ge "${want_rest%%.*}" ]; }
}

ensure_rust() {
  local want found
  want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  have cargo || fail "no Rust toolchain (cargo) is installed" \
    "Install it from https://rustup.rs (one line), open a new shell, then run this script again."
  found=$(cargo --version | awk '{ print $2 }')
  version_at_least "$found" "$want" || fail "Rust $want or newer is needed, this is $found" "Run: rustup update stable"
}

# ensure_component NAME COMMAND: some toolchains lack rustfmt or clippy.
ensure_component() {
  cargo "$2" --version >/dev/null 2>&1 && return
  have rustup || fail "cargo $2 is missing" "Install $1 with the tool that installed cargo, or pass --fast."
  step "Installing $1"
  retry_once rustup component add "$1" || fail "could not install $1" "Run: rustup component add $1"
}

# In CI a lock file that does not match the manifests is an error; on a developer's machine cargo
# updates it.
cargo_build() {
  if in_ci; then cargo build --locked "$@"; else cargo build "$@"; fi
}
