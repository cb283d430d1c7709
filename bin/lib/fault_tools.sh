# shellcheck shell=bash
# Programs of some tests: they inject faults, or run the software around the processes. Invariant:
# without them those tests are skipped and say so. Next: bin/setup, bin/test.

ensure_fault_tools() {
  have strace && have foreman && { have pgbouncer || [ -x /usr/sbin/pgbouncer ]; } && [ -n "$(find /usr/lib -name 'libfaketimeMT.so.1' -print -quit 2>/dev/null)" ] && return
  have apt-get || return 0
  (install_packages "strace, libfaketime, pgbouncer and foreman" "strace faketime pgbouncer ruby-foreman" "") ||
    say "continuing without strace, libfaketime, pgbouncer or foreman: the tests that need them will be skipped"
}
