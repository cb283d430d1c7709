# shellcheck shell=bash
# A private PostgreSQL of this checkout: found or installed, made, started, stopped. Invariant: data is never removed, and
# a server is only taken for ours when its process has our data directory. TCP on 127.0.0.1 alone, so that the length of
# the checkout's path (a Unix socket's limit is 107 bytes) never matters. Next: bin/services.

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

# find_postgres [MAJOR]: sets PG_BIN to the newest that will do, or the one of that major version.
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
  find_postgres || fail "there is no PostgreSQL $POSTGRES_MIN or newer on this machine" \
    "Found: $(postgres_candidates | tr '\n' ' ')" \
    "For newer packages see https://www.postgresql.org/download/linux/ — or set PG_BIN to the directory of initdb." \
    "Or use a server elsewhere: set DATABASE_URL and DATABASE_OWNER_URL."
}

# PostgreSQL refuses to run as root; then it runs as the owner of its data, or as the user of the system's package.
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

# Sets PG_HOME: .local/postgres, or where PG_USER cannot get there a folder of one stable name under a temporary
# directory that survives reboots.
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

# A folder with a guessable name in a shared directory may have been put there by somebody else: only ours will do.
make_postgres_home() {
  if mkdir -m 700 "$PG_HOME" 2>/dev/null; then
    if is_root; then chown "$PG_USER" "$PG_HOME"; fi
  elif [ -L "$PG_HOME" ] || [ "$(owner_of "$PG_HOME")" != "$PG_USER" ] || [ "$PG_USER" = root ]; then
    fail "$PG_HOME belongs to $(owner_of "$PG_HOME"), not to $PG_USER" \
      "Run this script as that user, or move the folder away and run it again."
  fi
  printf '%s\n' "$PG_HOME" >"$STATE/postgres.path"
}

# The files of the cluster belong to PG_USER; root may not be able to read them through every file system, PG_USER is.
init_postgres() {
  local locale=C
  if locale -a 2>/dev/null | grep -qix 'C\.utf-\{0,1\}8'; then locale=C.UTF-8; fi
  step "Making a PostgreSQL cluster in $PG_DATA"
  as_postgres rm -rf "$PG_HOME/data.new" "$PG_HOME/password"
  # shellcheck disable=SC2016 # $1 is for that sh
  secret owner | as_postgres sh -c 'umask 077; cat >"$1"' sh "$PG_HOME/password"
  as_postgres "$PG_BIN/initdb" -D "$PG_HOME/data.new" -U rota_owner --pwfile="$PG_HOME/password" \
    --auth=scram-sha-256 --encoding=UTF8 --locale="$locale" --data-checksums >"$STATE/initdb.log" 2>&1 ||
    fail "initdb failed: $(tail -n 3 "$STATE/initdb.log")" "The whole output is in $STATE/initdb.log"
  as_postgres rm -f "$PG_HOME/password"
  echo "include 'rota.conf'" | as_postgres tee -a "$PG_HOME/data.new/postgresql.conf" >/dev/null
  as_postgres mv "$PG_HOME/data.new" "$PG_DATA"
}

# fsync stays on: what an answer of 202 promises is to be true on a developer's machine as well.
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

# After a reboot the number in postmaster.pid may be another program's, and in a container without an init it may stay a
# zombie's (no arguments, but there): PostgreSQL and pg_ctl take both for a server. Any other is left for them to judge;
# backends that outlive their server are found by PostgreSQL through their shared memory, not through this file.
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

# Whether ours is up and lets us in.
postgres_up() {
  [ -n "$(postgres_port)" ] && [ -e "$STATE/postgres.path" ] && has_secret owner || return 1
  [ -n "$(postgres_pid)" ] || return 1
  psql_as_owner -d "postgres://rota_owner:$(secret owner)@127.0.0.1:$(postgres_port)/postgres" -c 'select 1' >/dev/null 2>&1
}

# With .local/secrets lost, the cluster still has the old passwords: single-user mode needs none.
reset_passwords() {
  step "Giving the roles of the private PostgreSQL new passwords (those in .local were lost)"
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
    # Somebody may have taken the port between the look and the start, or a killed server is not quite gone.
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
      fail "$PG_DATA was made by PostgreSQL $(as_postgres cat "$PG_DATA/PG_VERSION"), which is no longer installed" \
        "Install that version, or remove $PG_HOME (the development data) and run this script again."
    fi
    ensure_postgres_binaries
    locate_postgres
  }
  # One that is recovering after a crash is given its time.
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
