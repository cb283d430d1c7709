//! What tenants and operators change or observe: cancellation and redrive, limits, the commands of
//! the CLI, followed jobs and counts.

mod cancel_and_redrive;
mod commands;
mod counts;
mod following;
mod limits;
mod races;
