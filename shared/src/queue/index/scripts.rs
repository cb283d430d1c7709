//! The scripts, each assembled from the parts of `lua/` that it uses.
//!
//! Invariant: the work of a script is bounded by its arguments, never by the backlog.

use std::sync::LazyLock;

use redis::Script;

macro_rules! script {
    ($name:literal) => {
        script!("", $name,)
    };
    ($first_line:literal, $name:literal, $($part:literal)*) => {
        LazyLock::new(|| {
            Script::new(concat!(
                $first_line,
                include_str!("../lua/prelude.lua"),
                $(include_str!(concat!("../lua/", $part, ".lua")),)*
                include_str!(concat!("../lua/", $name, ".lua"))
            ))
        })
    };
}

pub(super) static PUSH: LazyLock<Script> =
    script!("", "push", "packed" "flows" "leases" "tenants" "fair_share" "rounds" "apply_leases" "leasing" "granting");
pub(super) static FETCH: LazyLock<Script> =
    script!("", "fetch", "flows" "leases" "tenants" "fair_share" "rounds" "readiness" "apply_leases" "leasing");
pub(super) static SETTLE: LazyLock<Script> = script!("", "settle", "packed" "flows" "leases" "tenants" "fair_share");
// Full memory must not make live holders look dead. Renewing changes existing scores, so it needs
// hardly any memory.
pub(super) static RENEW: LazyLock<Script> = script!("#!lua flags=allow-oom\n", "renew", "leases" "emptied" "tenants");
pub(super) static CHECK: LazyLock<Script> = script!("", "check", "flows" "emptied" "tenants");
pub(super) static EXPIRED: LazyLock<Script> = script!("", "expired", "leases");
pub(super) static CANCEL: LazyLock<Script> = script!("", "cancel", "emptied");
pub(super) static UNANSWERED: LazyLock<Script> = script!("", "unanswered", "leases");
pub(super) static ANNOUNCE: LazyLock<Script> = script!("announce");
pub(super) static WATCH: LazyLock<Script> = script!("watch");
pub(super) static LIMIT: LazyLock<Script> = script!("", "limit", "flows");
pub(super) static PAUSE: LazyLock<Script> = script!("pause");
pub(super) static BEAT: LazyLock<Script> = script!("beat");
pub(super) static CLEAR: LazyLock<Script> = script!("clear");
pub(super) static ADVANCE: LazyLock<Script> = script!("advance");
pub(super) static STATUS: LazyLock<Script> = script!("", "status", "workers");
pub(super) static JOB_POSITION: LazyLock<Script> = script!("", "job_position", "tenants" "workers");
pub(super) static DEPTH: LazyLock<Script> = script!("depth");
