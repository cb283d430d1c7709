//! Conversion of errors into problems, where an error means the same wherever it occurs.
//!
//! Invariant: an outage of a store is 503 with `Retry-After`, never another 5xx, so that a client
//! may retry. An error with a meaning specific to a call, such as a violated constraint, is
//! converted at the call.

use shared::compute::Busy;

use super::{Problem, ProblemCode};

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        if shared::db::is_idempotency_key_held(&error) {
            return Self::new(ProblemCode::IdempotencyInFlight).retry_after(1).caused_by(error);
        }
        if shared::db::is_share_in_use(&error) {
            return Self::new(ProblemCode::TooManyInFlight).retry_after(1).caused_by(error);
        }
        if shared::db::is_row_held(&error) {
            return Self::new(ProblemCode::TooManyInFlight)
                .detail(
                    "another request or job of the tenant is changing the same rows; retry when that change is complete",
                )
                .retry_after(1)
                .caused_by(shared::db::sql_state(&error));
        }
        let code = if shared::db::is_unavailable(&error) { ProblemCode::Unavailable } else { ProblemCode::Internal };
        // Values must not reach the log.
        Self::new(code).caused_by(shared::db::sql_state(&error))
    }
}

impl From<Busy> for Problem {
    fn from(_: Busy) -> Self {
        Self::new(ProblemCode::RateLimited)
            .detail("too many of the tenant's templates and documents are being processed")
            .retry_after(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_503_and_a_fault_is_500() {
        let code = |error: sqlx::Error| Problem::from(error).code();
        assert_eq!(code(sqlx::Error::PoolTimedOut), ProblemCode::Unavailable);
        assert_eq!(code(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())), ProblemCode::Unavailable);
        let share = sqlx::Error::Io(std::io::Error::other(shared::db::ShareInUse));
        assert_eq!(code(share), ProblemCode::TooManyInFlight);
        assert_eq!(code(sqlx::Error::RowNotFound), ProblemCode::Internal);
        assert_eq!(code(sqlx::Error::ColumnNotFound("x".into())), ProblemCode::Internal);
    }
}
