# shellcheck shell=bash
# Selects the stores and sets the variables that name them. Invariant: values from the environment
# or .env are kept; only URLs with a generated password (private-…) at 127.0.0.1 are replaced, so a
# port may change between two runs and a user's setting never does. Next: bin/lib/postgres.sh and
# bin/lib/redis.sh, which create the private stores.

STORE_KEYS="DATABASE_URL DATABASE_SYSTEM_URL DATABASE_OWNER_URL REDIS_URL"
PROCESS_KEYS="ENVIRONMENT HOST API_PORT API_METRICS_PORT WORKER_METRICS_PORT SCHEDULER_METRICS_PORT SMTP_URL ROTA_TEST_KINDS ROTA_LOG_FORMAT"

# use_instance dev|test: dev lives in .local, test in .local/test; tests never touch dev's data.
use_instance() {
  INSTANCE=$1
  case "$INSTANCE" in
    dev) STATE="$ROOT/.local" ;;
    test) STATE="$ROOT/.local/test" ;;
    *) fail "unknown instance: $INSTANCE" "There are two: dev and test." ;;
  esac
}

make_state() {
  mkdir -p "$ROOT/.local" "$STATE" "$STATE/mail"
  chmod go+x "$ROOT/.local" "$STATE"
}

keep_secret() { (umask 077 && printf '%s=%s\n' "$1" "$2" >>"$STATE/secrets"); }

# secret NAME: the password with that name, generated at its first use and kept across runs.
secret() {
  local file="$STATE/secrets" value
  value=$(sed -n "s/^$1=//p" "$file" 2>/dev/null || true)
  if [ -z "$value" ]; then
    value="private-$(random_hex)"
    keep_secret "$1" "$value"
  fi
  printf '%s' "$value"
}

has_secret() { grep -q "^$1=" "$STATE/secrets" 2>/dev/null; }

is_private_url() { case "$1" in *:private-*@127.0.0.1:*) return 0 ;; *) return 1 ;; esac }

# read_variables FILE: exports its KEY=value lines, except those that are already in the
# environment.
read_variables() {
  [ -r "$1" ] || return 0
  local line key value
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line#export }
    key=${line%%=*}
    value=${line#*=}
    case "$key" in "$line" | '' | *[!A-Za-z0-9_]* | [0-9]*) continue ;; esac
    case "$value" in \'*\' | \"*\") value=$(printf '%s' "${value:1:${#value}-2}" | sed "s/'\\\\''/'/g") ;; esac
    [ -n "${!key:-}" ] || export "$key=$value"
  done <"$1"
}

# The processes read secrets from files too (DATABASE_URL_FILE); the scripts read the files once and
# pass on the values.
read_secret_files() {
  local key file
  for key in $STORE_KEYS; do
    file="${key}_FILE"
    if [ -n "${!file:-}" ] && [ -z "${!key:-}" ]; then
      export "$key=$(cat "${!file}")"
      unset "$file"
    fi
  done
}

# Unsets what an earlier run wrote, so that it is computed again.
forget_private() {
  local key
  for key in $STORE_KEYS; do
    if is_private_url "${!key:-}"; then unset "$key"; fi
  done
  case "${SMTP_URL:-}" in file:*/.local/mail) unset SMTP_URL ;; esac
  # Some shells and tool chains set HOST to the machine's name or triple, which is not a listen
  # address.
  case "${HOST:-}" in localhost | *:*) ;; *[!0-9.]*) unset HOST ;; esac
}

# shellcheck disable=SC2034 # read by bin/services and bin/test
# Sets POSTGRES and REDIS to private or given. The test instance does not read .env, which
# configures the user's database.
decide_stores() {
  forget_private
  if [ "$INSTANCE" = dev ]; then
    read_variables "$ROOT/.env"
    forget_private
  fi
  read_secret_files
  POSTGRES=private REDIS=private
  if [ -n "${DATABASE_URL:-}${DATABASE_SYSTEM_URL:-}${DATABASE_OWNER_URL:-}" ]; then POSTGRES=given; fi
  if [ -n "${REDIS_URL:-}" ]; then REDIS=given; fi
}

# url_as USER PASSWORD URL: the same database with another user; url_password URL: the URL's
# password.
url_as() { printf '%s://%s:%s@%s' "${3%%://*}" "$1" "$2" "${3#*@}"; }
url_password() {
  local credentials=${1#*://}
  credentials=${credentials%%@*}
  case "$credentials" in *:*) printf '%s' "${credentials#*:}" ;; esac
}

# Fills in the URLs that can be derived from the given ones.
complete_given_database() {
  if [ -z "${DATABASE_OWNER_URL:-}" ]; then
    fail "DATABASE_URL is set, but DATABASE_OWNER_URL is not" \
      "Migrations need an owner of that database who may create roles: DATABASE_OWNER_URL=postgres://owner:password@host/database" \
      "Or unset DATABASE_URL (also in .env), and a private PostgreSQL is used."
  fi
  export DATABASE_URL DATABASE_SYSTEM_URL
  : "${DATABASE_URL:=$(url_as rota_app "$(secret app)" "$DATABASE_OWNER_URL")}"
  : "${DATABASE_SYSTEM_URL:=$(url_as rota_system "$(url_password "$DATABASE_URL")" "$DATABASE_URL")}"
}

private_database_urls() {
  local at="127.0.0.1:$1/rota"
  export DATABASE_OWNER_URL DATABASE_URL DATABASE_SYSTEM_URL
  DATABASE_OWNER_URL="postgres://rota_owner:$(secret owner)@$at"
  DATABASE_URL="postgres://rota_app:$(secret app)@$at"
  DATABASE_SYSTEM_URL="postgres://rota_system:$(secret system)@$at"
}

# The other variables that a process needs in development. Ports are kept once chosen; bin/dev
# chooses another one if a port is in use.
process_defaults() {
  export ENVIRONMENT HOST API_PORT API_METRICS_PORT WORKER_METRICS_PORT SCHEDULER_METRICS_PORT SMTP_URL ROTA_TEST_KINDS ROTA_LOG_FORMAT
  local api metrics worker scheduler
  api=$(recorded API_PORT) metrics=$(recorded API_METRICS_PORT) worker=$(recorded WORKER_METRICS_PORT) scheduler=$(recorded SCHEDULER_METRICS_PORT)
  : "${ENVIRONMENT:=development}" "${HOST:=127.0.0.1}" "${ROTA_TEST_KINDS:=1}" "${ROTA_LOG_FORMAT:=pretty}"
  : "${SMTP_URL:=file:$STATE/mail}"
  : "${API_PORT:=${api:-$(free_port 8080)}}"
  : "${API_METRICS_PORT:=${metrics:-$(free_port 9463)}}"
  : "${WORKER_METRICS_PORT:=${worker:-$(free_port $((API_METRICS_PORT + 1)))}}"
  : "${SCHEDULER_METRICS_PORT:=${scheduler:-$(free_port $((WORKER_METRICS_PORT + 1)))}}"
}

recorded() { sed -n "s/^export $1=//p" "$STATE/env" 2>/dev/null || true; }

quoted() {
  case "$1" in
    *[!A-Za-z0-9_./:@%+,=-]*) printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")" ;;
    *) printf '%s' "$1" ;;
  esac
}

# Writes $STATE/env atomically, readable by its owner only, because it contains passwords.
write_env() {
  local key keys=$STORE_KEYS
  if [ "$INSTANCE" = dev ]; then keys="$keys $PROCESS_KEYS"; fi
  (
    umask 077
    for key in $keys; do printf 'export %s=%s\n' "$key" "$(quoted "${!key}")"; done
    if [ "$INSTANCE" = dev ]; then printf 'export PORT=%s\n' "$API_PORT"; fi
  ) >"$STATE/env.$$"
  chmod 600 "$STATE/env.$$"
  mv "$STATE/env.$$" "$STATE/env"
}

# Updates .env, which foreman reads: Rota's keys get their values, every other line is kept.
write_dotenv() {
  local key line done_keys=" "
  (
    umask 077
    if [ -f .env ]; then
      while IFS= read -r line || [ -n "$line" ]; do
        key=${line#export }
        key=${key%%=*}
        case " $STORE_KEYS $PROCESS_KEYS " in
          *" $key "*)
            done_keys="$done_keys$key "
            line="$key=$(quoted "${!key}")"
            ;;
        esac
        printf '%s\n' "$line"
      done <.env
    else
      printf '# Written by bin/setup; edit freely, what you set here is kept. All variables: .env.sample\n'
    fi
    for key in $STORE_KEYS $PROCESS_KEYS; do
      case "$done_keys" in *" $key "*) ;; *) printf '%s=%s\n' "$key" "$(quoted "${!key}")" ;; esac
    done
  ) >"$STATE/dotenv.$$"
  chmod 600 "$STATE/dotenv.$$"
  mv "$STATE/dotenv.$$" .env
}
