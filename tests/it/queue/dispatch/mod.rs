//! Dispatch: which waiting job a worker gets, and how soon.

mod direct_dispatch;
mod idle_slots;
mod newly_active;
mod order;
mod unknown_kinds;
