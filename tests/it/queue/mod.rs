//! The queue engine: from commit to finish, and through every loss between.

mod clocks;
mod crash;
mod drain;
mod enqueue;
mod idle;
mod leadership;
mod lifecycle;
mod limits;
mod loss_of_postgres;
mod loss_of_redis;
mod model;
mod order;
mod planned_faults;
mod poison;
mod promotion;
mod races;
mod retention;
mod rolling_restart;
mod schedulers;
mod shares;
mod skew;
mod steering;
mod support;
mod sweep;
mod system_calls;
mod watching;
