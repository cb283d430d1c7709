# shellcheck shell=bash
# The tools of the checks in bin/test: cargo-deny, cargo-machete and typos. Invariant: a tool has
# exactly the version pinned here, and one that cannot be installed is reported, never replaced by
# another version. They are installed below .local/tools, once per version. Next: bin/test.

TOOLS="$ROOT/.local/tools"

tool_version() {
  case "$1" in
    cargo-deny) printf 0.20.2 ;;
    cargo-machete) printf 0.9.2 ;;
    typos) printf 1.52.0 ;;
    *) fail "unknown tool: $1" ;;
  esac
}

# The wheels of typos for Linux (x86-64, ARM) and macOS (ARM, x86-64).
TYPOS_HASHES="
  --hash=sha256:418fd85f7fc11dec14e5482e747f6e916af56da96207cde0cdd69540a4b389f6
  --hash=sha256:5e870133c7e9cace94183e4d638697004a1473e79abcd01b8f75e362049a9b5c
  --hash=sha256:257324274303a459fef79978cae942568419d2e8b18519e5f66b93a7e2df2ba1
  --hash=sha256:791d8778c4cb07f7a3f759ac65db09f6285aa480598bff42cfca2a32b0953200"

# find_tool NAME: sets TOOL to the installed program with the pinned version.
find_tool() {
  local version path
  version=$(tool_version "$1")
  for path in "$TOOLS/$1-$version/bin/$1" "$(command -v "$1" || true)"; do
    if [ -x "$path" ] && [ "$("$path" --version | awk '{ print $NF }')" = "$version" ]; then
      # shellcheck disable=SC2034 # read by bin/test
      TOOL=$path
      return
    fi
  done
  return 1
}

# ensure_tool NAME: as find_tool, after an installation if it is necessary; false if that fails.
# The output is in .local/tools/NAME.log.
ensure_tool() {
  find_tool "$1" && return
  local home began=$SECONDS
  home="$TOOLS/$1-$(tool_version "$1")"
  step "Installing $1 $(tool_version "$1")"
  rm -rf "$home" "$home.new"
  mkdir -p "$home.new"
  install_tool "$1" "$home.new" >"$TOOLS/$1.log" 2>&1 && mv "$home.new" "$home" && find_tool "$1" || return 1
  say "installed in $((SECONDS - began)) s"
}

install_tool() {
  case "$1" in
    typos) install_typos_wheel "$2" || build_tool typos-cli "$(tool_version typos)" "$2" ;;
    *) build_tool "$1" "$(tool_version "$1")" "$2" ;;
  esac
}

# typos is on PyPI as a compiled program. pip verifies the hashes; an installation with --target
# needs no virtual environment.
install_typos_wheel() {
  have python3 && python3 -m pip --version || return 1
  # shellcheck disable=SC2086 # one line with all hashes
  echo "typos==$(tool_version typos)" $TYPOS_HASHES >"$1/requirements.txt"
  python3 -m pip install --disable-pip-version-check --no-input --no-deps --only-binary :all: \
    --require-hashes --target "$1" -r "$1/requirements.txt"
}

# build_tool CRATE VERSION DIRECTORY: without optimization, which would cost minutes and save seconds
# of a check.
build_tool() {
  CARGO_TARGET_DIR="$TOOLS/build" CARGO_PROFILE_DEV_DEBUG=0 \
    cargo install --locked --debug --root "$3" "$1@$2" || return 1
  rm -rf "$TOOLS/build"
}
