//! Which problem an error from below becomes, where it means the same wherever it comes up.
//!
//! Invariant: an outage of a store is 503 with `Retry-After`, never another 5xx, so that a client's retry is right.
//! Errors that mean something to the client, such as a broken constraint, are turned into problems at the call.

use redis::RedisError;

use super::{Problem, ProblemCode};

/// Classes of PostgreSQL's error codes that pass by themselves: connection lost, out of resources, operator's stop,
/// system error.
const PASSING_CLASSES: [&str; 4] = ["08", "53", "57", "58"];

/// Single codes that pass: serialization failure, deadlock, and a server that is still a standby.
const PASSING_CODES: [&str; 3] = ["40001", "40P01", "25006"];

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        let code = if is_passing(&error) {
            ProblemCode::Unavailable
        } else {
            ProblemCode::Internal
        };
        Self::new(code).caused_by(error)
    }
}

impl From<RedisError> for Problem {
    fn from(error: RedisError) -> Self {
        Self::new(ProblemCode::Unavailable).caused_by(error)
    }
}

fn is_passing(error: &sqlx::Error) -> bool {
    use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Protocol, Tls, WorkerCrashed};
    match error {
        // A connection cut within a message is a protocol error.
        Io(_) | Tls(_) | Protocol(_) | PoolTimedOut | PoolClosed | WorkerCrashed => true,
        Database(error) => error.code().is_some_and(|code| {
            PASSING_CODES.contains(&&*code)
                || code
                    .get(..2)
                    .is_some_and(|class| PASSING_CLASSES.contains(&class))
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_503_and_a_fault_is_500() {
        let code = |error: sqlx::Error| Problem::from(error).code();
        assert_eq!(code(sqlx::Error::PoolTimedOut), ProblemCode::Unavailable);
        assert_eq!(
            code(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())),
            ProblemCode::Unavailable
        );
        assert_eq!(code(sqlx::Error::RowNotFound), ProblemCode::Internal);
        assert_eq!(
            code(sqlx::Error::ColumnNotFound("x".into())),
            ProblemCode::Internal
        );
    }
}
