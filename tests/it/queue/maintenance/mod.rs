//! Periodic work on the ledger and the settings it relies on: retention, promotion, expiry, query
//! plans, the eviction policy of Redis.

mod equal_times;
mod eviction_policy;
mod expiry;
mod fresh_partition;
mod promotion;
mod query_plans;
mod retention;
