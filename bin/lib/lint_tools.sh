# shellcheck shell=bash
# Programs that check the sources besides cargo's own: cargo-deny, cargo-machete, typos. Invariant:
# a tool that is not on the machine is compiled once, at a fixed version, into .local/tools; one that
# cannot be compiled (no network) is reported, and its check counts as skipped, never as passed.
# Next: bin/test.

LINT_TOOLS="$ROOT/.local/tools"

# ensure_lint_tool COMMAND CRATE VERSION: whether the tool can be used.
ensure_lint_tool() {
  PATH="$LINT_TOOLS/bin:$PATH"
  have "$1" && return
  step "Compiling $2 $3 (once)"
  # In a target folder of its own: the flags of the project's builds are others.
  CARGO_TARGET_DIR="$LINT_TOOLS/target" cargo install --quiet --locked --root "$LINT_TOOLS" --version "$3" "$2" &&
    rm -rf "$LINT_TOOLS/target"
}
