//! The queue engine: from commit to finish, and through every loss between.

mod commands;
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
mod promotion;
mod races;
mod retention;
mod shares;
mod skew;
mod steering;
mod support;
mod sweep;
mod ties;
mod watching;
