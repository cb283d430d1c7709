//! What holds for all routes: HTTP syntax, authentication, idempotency keys, timestamps and sizes.

mod auth;
mod bad_clients;
mod heads;
mod html;
mod idempotency;
mod large_values;
mod replay;
mod requests;
mod times;
mod unread_bodies;
