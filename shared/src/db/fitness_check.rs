//! Whether the database is usable for a role, and if not, why.
//!
//! Invariant: the reasons are a closed set of texts without an address, a user name or a password.
//! No tenant transaction begins as a role that row level security does not apply to
//! ([`require_confined`]).

use std::{io, time::Duration};

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::{sleep, timeout};

use super::{fitness::Fitness, migrate, role_pool::RolePool};

/// Time that a health probe waits for the result.
const PROBE: Duration = Duration::from_millis(1_200);
/// Time-outs of a check: for a pooled connection; then the delay before a separate connection is
/// tried in parallel, whose error gives the reason; then for that connection.
const POOLED: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_millis(900);
const DIRECT: Duration = Duration::from_secs(4);
/// `server_version_num` of the oldest supported PostgreSQL.
const OLDEST_SERVER: i32 = 150_000;
/// With this many free connections or fewer, the next process may get none.
const FEW: i64 = 1;

const SCARCE: &str = "fewer connections than needed: processing is slow (connection limit of the role or the server)";

/// The role to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    App,
    System,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::App => "rota_app",
            Self::System => "rota_system",
        }
    }
}

/// Checks the database as the role. A check that takes longer than a probe waits continues in the
/// background, so that a slow connection is available to the next check, and the next probe can
/// report the result.
pub(super) async fn examine(pool: &RolePool, role: Role) -> Fitness {
    let looking = pool.clone();
    let look = tokio::spawn(async move {
        let found = look(&looking, role).await;
        looking.findings().note(found.clone());
        found
    });
    match timeout(PROBE, look).await {
        Ok(Ok(fitness)) => fitness,
        _ if pool.scarcity().is_survived() => Fitness::Flawed(SCARCE.into()),
        _ => pool.findings().last_failure().unwrap_or_else(|| Fitness::Unfit("no answer in time".into())),
    }
}

async fn look(pool: &RolePool, role: Role) -> Fitness {
    let pooled = async {
        let mut session = pool.session().await?;
        classify(&mut session, role, pool.is_behind_pooler()).await
    };
    // The pool retries on its own and does not report the reason.
    let failing = async {
        sleep(PATIENCE).await;
        match look_directly(pool).await {
            unfit @ Fitness::Unfit(_) => unfit,
            _ => std::future::pending().await,
        }
    };
    let pooled = tokio::select! {
        pooled = timeout(POOLED, pooled) => pooled,
        unfit = failing => return unfit,
    };
    match pooled {
        Ok(Ok(Fitness::Fit)) => {
            pool.scarcity().note_work();
            if pool.scarcity().holds() { Fitness::Flawed(SCARCE.into()) } else { Fitness::Fit }
        }
        Ok(Ok(fitness)) => fitness,
        Ok(Err(error)) if !matches!(error, sqlx::Error::PoolTimedOut) => Fitness::Unfit(cause(&error).into()),
        _ => Fitness::Flawed("no connection in this process's pool was free in time".into()),
    }
}

async fn look_directly(pool: &RolePool) -> Fitness {
    match timeout(DIRECT, pool.connect_options().connect()).await {
        Err(_) => Fitness::Unfit("no answer in time".into()),
        Ok(Err(error)) if is_refused_for_number(&error) => {
            pool.scarcity().note();
            if pool.scarcity().is_survived() {
                Fitness::Flawed(SCARCE.into())
            } else {
                Fitness::Unfit(cause(&error).into())
            }
        }
        Ok(Err(error)) => Fitness::Unfit(cause(&error).into()),
        Ok(Ok(connection)) => {
            let _ = connection.close().await;
            Fitness::Flawed("no connection in this process's pool was free in time".into())
        }
    }
}

/// Records scarcity if the connections of this role, the database or the server are nearly used up.
pub(super) async fn look_for_scarcity(pool: &RolePool) {
    let looked = async {
        let mut session = pool.session().await?;
        sqlx::query_scalar!(
            r#"select least(
                 (select case when r.rolconnlimit < 0 then null else r.rolconnlimit end from pg_roles r where r.rolname = session_user)
                   - (select count(*) from pg_stat_activity where usename = session_user),
                 (select case when d.datconnlimit < 0 then null else d.datconnlimit end from pg_database d where d.datname = current_database())
                   - (select count(*) from pg_stat_activity where datname = current_database()),
                 current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
                   - coalesce(current_setting('reserved_connections', true), '0')::integer
                   - (select count(*) from pg_stat_activity where backend_type = 'client backend')) as "free!""#
        )
        .fetch_one(&mut *session)
        .await
    };
    if let Ok(Ok(free)) = timeout(POOLED, looked).await
        && free <= FEW
    {
        pool.scarcity().note();
    }
}

/// Refuses a tenant transaction if the role could see the rows of all tenants.
pub(super) async fn require_confined(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    match role_flaw(&standing(connection, Role::App).await?, Role::App) {
        None => Ok(()),
        Some(flaw) => Err(sqlx::Error::Configuration(flaw.into())),
    }
}

#[expect(clippy::struct_excessive_bools, reason = "the columns of a row")]
struct Standing {
    server: i32,
    standby: bool,
    read_only: bool,
    statement_timeout: String,
    bypasses: bool,
    is_member: bool,
    is_other: bool,
    is_owner: bool,
    migrated: bool,
    may_read_migrations: bool,
}

async fn standing(connection: &mut PgConnection, role: Role) -> Result<Standing, sqlx::Error> {
    let other = if role == Role::App { Role::System } else { Role::App };
    sqlx::query_as!(
        Standing,
        r#"select current_setting('server_version_num')::integer as "server!", pg_is_in_recovery() as "standby!",
                  current_setting('transaction_read_only') = 'on' as "read_only!",
                  current_setting('statement_timeout') as "statement_timeout!",
                  (select rolsuper or rolbypassrls from pg_roles where rolname = current_user) as "bypasses!",
                  coalesce(pg_has_role(current_user, to_regrole($1)::oid, 'usage'), false) as "is_member!",
                  coalesce(pg_has_role(current_user, to_regrole($2)::oid, 'member'), false) as "is_other!",
                  coalesce((select pg_has_role(current_user, relowner, 'member') from pg_class where oid = to_regclass('jobs')), false)
                    as "is_owner!",
                  to_regclass('_sqlx_migrations') is not null as "migrated!",
                  coalesce(has_table_privilege(current_user, to_regclass('_sqlx_migrations')::oid, 'select'), false)
                    as "may_read_migrations!""#,
        role.name(),
        other.name()
    )
    .fetch_one(connection)
    .await
}

async fn classify(connection: &mut PgConnection, role: Role, is_behind_pooler: bool) -> Result<Fitness, sqlx::Error> {
    let standing = standing(connection, role).await?;
    if standing.server < OLDEST_SERVER {
        return Ok(Fitness::Unfit("PostgreSQL is older than 15".into()));
    }
    if standing.standby || standing.read_only {
        return Ok(Fitness::Unfit("the database is read-only (a standby, or default_transaction_read_only)".into()));
    }
    if standing.bypasses {
        return Ok(Fitness::Unfit(BYPASSES.into()));
    }
    if !standing.migrated {
        return Ok(Fitness::Unfit("the database was never migrated: run `api migrate`".into()));
    }
    if let Some(flaw) = role_flaw(&standing, role) {
        return Ok(Fitness::Unfit(flaw.into()));
    }
    if !is_behind_pooler && standing.statement_timeout == "0" {
        return Ok(Fitness::Unfit(
            "a pooler drops the settings of connections: set ROTA_DATABASE_POOLER=transaction".into(),
        ));
    }
    if !standing.may_read_migrations {
        return Ok(Fitness::Unfit(OLDER.into()));
    }
    schema(connection).await
}

const BYPASSES: &str =
    "the role bypasses row level security (a superuser, or BYPASSRLS): use the role that `api migrate` created";
pub(super) const OLDER: &str = "the schema is older than this release, or missing: run `api migrate`";

fn role_flaw(standing: &Standing, role: Role) -> Option<&'static str> {
    match role {
        _ if standing.bypasses => Some(BYPASSES),
        _ if standing.is_owner => Some("the role owns the tables: use the role that `api migrate` created"),
        Role::App if standing.is_other => {
            Some("the role is rota_system, or a member of it, and sees all tenants: use rota_app")
        }
        Role::App if standing.migrated && !standing.is_member => Some("the role is not a member of rota_app"),
        Role::System if standing.migrated && !standing.is_member => Some("the role is not a member of rota_system"),
        _ => None,
    }
}

/// Every migration is compatible with the release that runs during it, so a newer schema is only
/// reported as a flaw.
async fn schema(connection: &mut PgConnection) -> Result<Fitness, sqlx::Error> {
    let ours = migrate::versions();
    let found = sqlx::query!(
        r#"select count(*) filter (where success and version = any($1)) as "known!", max(version) filter (where success) as newest
           from _sqlx_migrations"#,
        &ours
    )
    .fetch_one(connection)
    .await?;
    if usize::try_from(found.known).unwrap_or(0) < ours.len() {
        return Ok(Fitness::Unfit(OLDER.into()));
    }
    if found.newest > ours.last().copied() {
        return Ok(Fitness::Flawed("the schema is newer than this release: upgrade this process".into()));
    }
    Ok(Fitness::Fit)
}

/// SQLSTATE 53300: too many connections, of the role, the database or the server.
fn is_refused_for_number(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "53300")
}

/// The kind of error, in words that contain no value.
fn cause(error: &sqlx::Error) -> &'static str {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match (code.as_deref(), error) {
        (Some("28P01"), _) => "the password is refused",
        (Some("28000"), _) => "the login is refused (pg_hba.conf, TLS required, or no such role)",
        (Some("3D000"), _) => "there is no such database",
        (Some("53300"), _) => "too many connections (connection limit of the role, the database or the server)",
        (Some("57P03"), _) => "PostgreSQL is starting up or shutting down",
        (Some("08P01"), _) => "the pooler refuses the connection's settings: set ROTA_DATABASE_POOLER=transaction",
        (Some("42501"), _) => "privileges are missing: run `api migrate`",
        (Some(code), _) if code.starts_with("42") || code.starts_with("3F") => OLDER,
        (Some(code), _) if code.starts_with("53") => "PostgreSQL is out of resources",
        (Some(_), _) => "PostgreSQL rejects the check",
        (None, sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "the connection is refused"
        }
        (None, sqlx::Error::Io(_)) => "PostgreSQL cannot be reached",
        (None, sqlx::Error::Tls(_)) => "the TLS handshake failed (sslmode, certificates)",
        (None, _) => "PostgreSQL's response is not as expected",
    }
}
