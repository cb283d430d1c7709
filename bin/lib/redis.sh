# shellcheck shell=bash
# The private Redis (or Valkey) of this checkout. Invariant: only a server that accepts the
# generated password counts as the private one, and no other server is touched; pid files are not
# trusted. Next: bin/services.

REDIS_MIN=7

redis_major() { "$1" --version 2>/dev/null | sed -n 's/.*v=\([0-9]*\)\..*/\1/p'; }

# Sets REDIS_SERVER to the first server that is new enough.
find_redis() {
  local program path
  for program in "${REDIS_SERVER:-redis-server}" redis-server valkey-server /opt/homebrew/bin/redis-server /usr/local/bin/redis-server; do
    path=$(command -v "$program" || true)
    if [ -n "$path" ] && [ "$(redis_major "$path")" -ge "$REDIS_MIN" ] 2>/dev/null; then
      export REDIS_SERVER=$path
      return
    fi
  done
  return 1
}

ensure_redis_binary() {
  find_redis && return
  local package=redis-server
  if have apt-cache && [ -z "$(apt-cache search --names-only '^redis-server$')" ] &&
    [ -n "$(apt-cache search --names-only '^valkey-server$')" ]; then
    package=valkey-server
  fi
  install_packages "Redis ($REDIS_MIN or newer)" "$package" redis
  find_redis || fail "neither Redis $REDIS_MIN or newer nor Valkey is installed" \
    "For newer packages see https://redis.io/docs/latest/operate/oss_and_stack/install/ — or set REDIS_SERVER to the program." \
    "Or use a server elsewhere: set REDIS_URL."
}

redis_port() { cat "$STATE/redis.port" 2>/dev/null || true; }

# redis_say COMMAND: the first line of the private server's reply; nothing if there is none.
redis_say() {
  local port
  port=$(redis_port)
  [ -n "$port" ] && has_secret redis || return 0
  (
    exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 0
    printf 'AUTH %s\r\n%s\r\n' "$(secret redis)" "$1" >&3
    IFS= read -r -t 5 answer <&3
    case "$answer" in +OK*) ;; *) exit 0 ;; esac
    IFS= read -r -t 5 answer <&3
    printf '%s' "${answer%?}"
  ) 2>/dev/null || true
}

# If .local/secrets is lost, the configuration still contains the password.
adopt_redis_password() {
  local password
  password=$(sed -n 's/^requirepass //p' "$STATE/redis/redis.conf" 2>/dev/null || true)
  if ! has_secret redis && [ -n "$password" ]; then keep_secret redis "$password"; fi
}

redis_up() { [ "$(redis_say PING)" = +PONG ]; }
redis_gone() { [ -z "$(redis_say PING)" ]; }

configure_redis() {
  (
    umask 077
    cat >"$STATE/redis/redis.conf" <<CONF
bind 127.0.0.1
port $1
requirepass $(secret redis)
dir "$STATE/redis"
logfile "$STATE/redis/log"
pidfile "$STATE/redis/pid"
daemonize yes
appendonly yes
save ""
CONF
  )
}

start_redis() {
  ensure_redis_binary
  mkdir -p "$STATE/redis"
  adopt_redis_password
  if redis_up; then
    say "Redis is already running at 127.0.0.1:$(redis_port)"
  else
    launch_redis
    say "Redis $(redis_major "$REDIS_SERVER") started at 127.0.0.1:$(redis_port), data in $STATE/redis"
  fi
  export REDIS_URL
  REDIS_URL="redis://default:$(secret redis)@127.0.0.1:$(redis_port)/0"
}

# The process named by the pid file, if it is a server at the configured port.
redis_process() {
  local pid
  pid=$(cat "$STATE/redis/pid" 2>/dev/null || true)
  case "$(process_args "$pid")" in *-server*":$(redis_port)"*) printf '%s' "$pid" ;; esac
}

redis_settled() { redis_up || [ -z "$(redis_process)" ]; }

# Waits for a server that is loading or hanging: two servers must never write the same files.
launch_redis() {
  local port try
  if ! wait_until 60 redis_settled; then
    fail "Redis (process $(redis_process)) is running but does not respond" "Stop it with kill $(redis_process), then run this script again."
  fi
  if redis_up; then return; fi
  port=$(redis_port)
  : "${port:=$((28000 + $(printf '%s' "$STATE" | cksum | awk '{ print $1 % 4000 }')))}"
  for try in 1 2 3 4 5; do
    port=$(free_port "$port")
    configure_redis "$port"
    printf '%s\n' "$port" >"$STATE/redis.port"
    rm -f "$STATE/redis/pid"
    "$REDIS_SERVER" "$STATE/redis/redis.conf" >>"$STATE/redis/log" 2>&1 || true
    wait_until 2 test -s "$STATE/redis/pid" || true
    wait_until 60 redis_settled || true
    if redis_up; then return; fi
    # Another process may have taken the port in the meantime; any other failure will not go away.
    tcp_open 127.0.0.1 "$port" || break
    port=$((port + 1))
  done
  tail -n 5 "$STATE/redis/log" >&2 || true
  fail "Redis does not start (attempt $try of 5)" "Its log: $STATE/redis/log"
}

stop_redis() {
  if redis_gone; then
    say "Redis was not running"
    return
  fi
  redis_say SHUTDOWN >/dev/null
  wait_until 30 redis_gone || fail "Redis does not stop" "Its log: $STATE/redis/log"
  say "Redis stopped"
}
