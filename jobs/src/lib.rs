//! Job kinds: the job trait, the registry, and one file for each kind.
//!
//! To add a kind, read [`job`], copy a file in [`kinds`], and add a line to the list there.

pub mod account_links;
pub mod account_mail;
pub mod args;
pub mod backoff;
pub mod campaign_mail;
pub mod context;
pub mod environment;
pub mod error_summary;
pub mod job;
pub mod kind;
pub mod kinds;
pub mod ports;
pub mod registry;
pub mod templates;
pub mod unsubscribe;
pub mod webhook_signature;
