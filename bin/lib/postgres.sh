# shellcheck shell=bash
# The private PostgreSQL of this checkout: find or install, create, start, stop. Invariant: data is
# never removed, and a server counts as the private one only if its process uses its data directory.
# It listens on TCP at 127.0.0.1 only, so that the length of the checkout's path does not matter
# (the path of a Unix socket is limited to 107 bytes). Next: bin/services.

POSTGRES_MIN=15

postgres_major() { "$1/postgres" --version 2>/dev/null | sed -n 's/^[^0-9]*\([0-9]*\).*/\1/p'; }

postgres_candidates() {
  local dir
  for dir in "${PG_BIN:-}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
    /usr/local/opt/postgresql*/bin "$(dirname "$(readlink -f "$(command -v postgres || echo /none/none)")")"; do
    if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ] && [ -x "$dir/psql" ]; then
      printf '%s %s\n' "$(postgres_major "$dir")" "$dir"
    fi
  done
}

# find_postgres [MAJOR]: sets PG_BIN to the newest supported version, or to that major version.
find_postgres() {
  local found
  found=$(postgres_candidates | awk -v min="$POSTGRES_MIN" -v want="${1:-0}" \
    '$1 + 0 >= min && (want == 0 || $1 == want)' | sort -s -r -n -k 1,1 | head -n 1)
  [ -n "$found" ] || return 1
  export PG_BIN=${found#* }
}

ensure_postgres_binaries() {
  find_postgres && return
  install_packages "PostgreSQL ($POSTGRES_MIN or newer)" postgresql postgresql@17
  find_postgres || fail "PostgreSQL $POSTGRES_MIN or newer is not installed" \
    "Found: $(postgres_candidates | tr '\n' ' ')" \
    "For newer packages see https://www.postgresql.org/download/linux/ — or set PG_BIN to the directory of initdb." \
    "Or use a server elsewhere: set DATABASE_URL and DATABASE_OWNER_URL."
}

# PostgreSQL refuses to run as root; it then runs as the owner of its data, or as the user of the
# system's package.
as_postgres() {
  if is_root; then
    (cd / && LC_ALL=C runuser -u "$PG_USER" -- "$@")
  else
    LC_ALL=C "$@"
  fi
}

choose_postgres_user() {
  PG_USER=$(id -un)
  is_root || return 0
  have runuser || fail "PostgreSQL does not run as root, and runuser is missing" "Run this script as an ordinary user."
  PG_USER=postgres
  if ! id postgres >/dev/null 2>&1; then
    PG_USER=rota-postgres
    id "$PG_USER" >/dev/null 2>&1 || useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin "$PG_USER"
  fi
}

# Sets PG_HOME: .local/postgres, or, if PG_USER has no access to it, a folder with a stable name
# under a temporary directory that survives reboots.
locate_postgres() {
  choose_postgres_user
  PG_HOME=$(cat "$STATE/postgres.path" 2>/dev/null || true)
  [ -n "$PG_HOME" ] || PG_HOME=$(choose_postgres_home)
  PG_DATA="$PG_HOME/data"
  if is_root && [ -d "$PG_HOME" ] && [ "$(owner_of "$PG_HOME")" != root ]; then PG_USER=$(owner_of "$PG_HOME"); fi
}

choose_postgres_home() {
  local base name
  name="rota-$(printf '%s' "$STATE" | cksum | awk '{ print $1 }')"
  if ! is_root || as_postgres test -x "$STATE"; then
    printf '%s' "$STATE/postgres"
    return
  fi
  for base in "${TMPDIR:-}" /var/tmp; do
    if [ -n "$base" ] && as_postgres test -x "$base"; then
      printf '%s' "$base/$name"
      return
    fi
  done
  fail "the user $PG_USER can reach neither $STATE nor /var/tmp" "Run this script as an ordinary user, or move the checkout."
}

# A folder with a guessable name in a shared directory may have been created by another user: check
# its owner.
make_postgres_home() {
  if mkdir -m 700 "$PG_HOME" 2>/dev/null; then
    if is_root; then chown "$PG_USER" "$PG_HOME"; fi
  elif [ -L "$PG_HOME" ] || [ "$(owner_of "$PG_HOME")" != "$PG_USER" ] || [ "$PG_USER" = root ]; then
    fail "$PG_HOME belongs to $(owner_of "$PG_HOME"), not to $PG_USER" \
      "Run this script as that user, or move the folder away and run it again."
  fi
  printf '%s\n' "$PG_HOME" >"$STATE/postgres.path"
}

# The files of the cluster belong to PG_USER; on some file systems root cannot read them, but
# PG_USER can.
init_postgres() {
  local locale=C
  if locale -a 2>/dev/null | grep -qix 'C\.utf-\{0,1\}8'; then locale=C.UTF-8; fi
  step "Creating a PostgreSQL cluster in $PG_DATA"
  as_postgres rm -rf "$PG_HOME/data.new" "$PG_HOME/password"
  # shellcheck disable=SC2016 # $1 is for that sh
  secret owner | as_postgres sh -c 'umask 077; cat >"$1"' sh "$PG_HOME/password"
  as_postgres "$PG_BIN/initdb" -D "$PG_HOME/data.new" -U rota_owner --pwfile="$PG_HOME/password" \
    --auth=scram-sha-256 --encoding=UTF8 --locale="$locale" --data-checksums >"$STATE/initdb.log" 2>&1 ||
    fail "initdb failed: $(tail -n 3 "$STATE/initdb.log")" "The complete output is in $STATE/initdb.log"
  as_postgres rm -f "$PG_HOME/password"
  echo "include 'rota.conf'" | as_postgres tee -a "$PG_HOME/data.new/postgresql.conf" >/dev/null
  as_postgres mv "$PG_HOME/data.new" "$PG_DATA"
}

# fsync stays on: the guarantee of a 202 response holds on a developer's machine too.
configure_postgres() {
  as_postgres tee "$PG_DATA/rota.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
port = $1
unix_socket_directories = ''
max_connections = 300
fsync = on
CONF
}

postgres_pid() {
  local pid
  pid=$(as_postgres sed -n 1p "$PG_DATA/postmaster.pid" 2>/dev/null) || return 0
  case "$(process_args "$pid")" in
    *postgres*"$PG_DATA"*) printf '%s' "$pid" ;;
  esac
}

# After a reboot the number in postmaster.pid may belong to another program, and in a container
# without an init it may be that of a zombie (without arguments): PostgreSQL and pg_ctl take both
# for a server. Other cases are left to PostgreSQL; it finds backends that outlive their server by
# their shared memory, not by this file.
forget_stale_pid() {
  local pid args
  pid=$(as_postgres sed -n 1p "$PG_DATA/postmaster.pid" 2>/dev/null) || return 0
  args=$(process_args "$pid")
  case "$args" in
    *postgres*) return 0 ;;
    '') kill -0 "$pid" 2>/dev/null || return 0 ;;
  esac
  say "removing a stale postmaster.pid (process $pid is not a server)"
  as_postgres rm -f "$PG_DATA/postmaster.pid"
}

psql_as_owner() { PGCONNECT_TIMEOUT=5 "$PG_BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }

postgres_port() { cat "$STATE/postgres.port" 2>/dev/null || true; }

# Whether the private server is up and accepts the password.
postgres_up() {
  [ -n "$(postgres_port)" ] && [ -e "$STATE/postgres.path" ] && has_secret owner || return 1
  [ -n "$(postgres_pid)" ] || return 1
  psql_as_owner -d "postgres://rota_owner:$(secret owner)@127.0.0.1:$(postgres_port)/postgres" -c 'select 1' >/dev/null 2>&1
}

# If .local/secrets is lost, the cluster still has the previous passwords; single-user mode needs
# none.
reset_passwords() {
  step "Setting new passwords for the roles of the private PostgreSQL (those in .local were lost)"
  as_postgres "$PG_BIN/pg_ctl" -D "$PG_DATA" -m fast -w stop >/dev/null 2>&1 || true
  local pair role
  for pair in owner app system; do
    role="rota_$pair"
    printf "do \$\$ begin if exists (select from pg_roles where rolname = '%s') then alter role %s password '%s'; end if; end \$\$\n" \
      "$role" "$role" "$(secret "$pair")"
  done | as_postgres "$PG_BIN/postgres" --single -D "$PG_DATA" postgres >>"$STATE/initdb.log" 2>&1
}

launch_postgres() {
  local port try
  port=$(postgres_port)
  : "${port:=$((20000 + $(printf '%s' "$STATE" | cksum | awk '{ print $1 % 8000 }')))}"
  for try in 1 2 3 4 5; do
    port=$(free_port "$port")
    configure_postgres "$port"
    printf '%s\n' "$port" >"$STATE/postgres.port"
    as_postgres "$PG_BIN/pg_ctl" -D "$PG_DATA" -l "$PG_HOME/log" -w -t 120 start >/dev/null 2>&1 && return
    # Another process may have taken the port in the meantime, or a killed server has not ended
    # completely.
    if tcp_open 127.0.0.1 "$port"; then port=$((port + 1)); else sleep 1; fi
    forget_stale_pid
  done
  as_postgres tail -n 5 "$PG_HOME/log" >&2 || true
  fail "PostgreSQL does not start ($try attempts)" "Its log: $PG_HOME/log"
}

start_postgres() {
  local lost=false
  locate_postgres
  find_postgres "$(as_postgres cat "$PG_DATA/PG_VERSION" 2>/dev/null || true)" || {
    if as_postgres test -e "$PG_DATA/PG_VERSION"; then
      fail "$PG_DATA was created by PostgreSQL $(as_postgres cat "$PG_DATA/PG_VERSION"), which is no longer installed" \
        "Install that version, or remove $PG_HOME (the development data) and run this script again."
    fi
    ensure_postgres_binaries
    locate_postgres
  }
  # A server that is recovering after a crash gets time to do so.
  if [ -n "$(postgres_pid)" ] && has_secret owner && wait_until 60 postgres_up; then
    say "PostgreSQL is already running at 127.0.0.1:$(postgres_port)"
  else
    make_postgres_home
    has_secret owner || lost=true
    forget_stale_pid
    if ! as_postgres test -e "$PG_DATA/PG_VERSION"; then init_postgres; elif $lost; then reset_passwords; fi
    if [ -n "$(postgres_pid)" ]; then as_postgres "$PG_BIN/pg_ctl" -D "$PG_DATA" -m fast -w stop >/dev/null || true; fi
    launch_postgres
    say "PostgreSQL $(postgres_major "$PG_BIN") started at 127.0.0.1:$(postgres_port), data in $PG_DATA"
  fi
  private_database_urls "$(postgres_port)"
  create_database
}

create_database() {
  local server="${DATABASE_OWNER_URL%/*}/postgres"
  [ -n "$(psql_as_owner -d "$server" -c "select 1 from pg_database where datname = 'rota'")" ] ||
    psql_as_owner -d "$server" -c 'create database rota'
}

stop_postgres() {
  locate_postgres
  find_postgres || return 0
  if [ -n "$(postgres_pid)" ]; then
    as_postgres "$PG_BIN/pg_ctl" -D "$PG_DATA" -m fast -w -t 60 stop >/dev/null ||
      fail "PostgreSQL does not stop" "Its log: $PG_HOME/log"
    say "PostgreSQL stopped"
  else
    say "PostgreSQL was not running"
  fi
}
