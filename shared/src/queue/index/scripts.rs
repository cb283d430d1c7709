//! The scripts: a verb in `lua/` after the libraries in `lua/lib/` that it needs.
//!
//! Invariant: the work of a script is bounded by its arguments, never by the backlog.

use std::sync::LazyLock;

use redis::Script;

#[cfg(test)]
mod tests;

/// Name and text of a library or a verb.
#[cfg(test)]
type Part = (&'static str, &'static str);

/// Defines scripts by verb, flags of Redis, and libraries in the order in which they need each
/// other.
macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $verb:literal $(flags $flags:literal)?: $($library:literal)+;)+) => {
        $(
            $(#[$doc])*
            pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
                Script::new(concat!(
                    $("#!lua flags=", $flags, "\n",)?
                    $(include_str!(concat!("lua/lib/", $library, ".lua")),)+
                    include_str!(concat!("lua/", $verb, ".lua"))
                ))
            });
        )+

        /// The parts of each script, in their order: the verb last.
        #[cfg(test)]
        const SCRIPTS: &[&[Part]] = &[$(&[
            $(($library, include_str!(concat!("lua/lib/", $library, ".lua"))),)+
            ($verb, include_str!(concat!("lua/", $verb, ".lua"))),
        ]),+];
    };
}

scripts! {
    PUSH = "push": "layout" "fair_share" "limits" "leases";
    FETCH = "fetch": "layout" "fair_share" "limits" "leases";
    SETTLE = "settle": "layout" "fair_share" "limits";
    /// Full memory must not make live holders look dead. Renewing changes existing scores, so it
    /// needs hardly any memory.
    RENEW = "renew" flags "allow-oom": "layout" "fair_share" "limits";
    CHECK = "check": "layout" "fair_share" "limits";
    EXPIRED = "expired": "layout";
    CANCEL = "cancel": "layout" "fair_share";
    UNANSWERED = "unanswered": "layout";
    ANNOUNCE = "announce": "layout";
    WATCH = "watch": "layout";
    LIMIT = "limit": "layout" "fair_share";
    PAUSE = "pause": "layout";
    BEAT = "beat": "layout";
    CLEAR = "clear": "layout";
    ADVANCE = "advance": "layout";
    STATUS = "status": "layout";
    JOB_POSITION = "job_position": "layout" "limits";
    DEPTH = "depth": "layout";
}
