//! Webhooks: the events, the form of their messages, and the secrets that sign them.
//!
//! Invariant: nothing here accesses a store. [`crate::queue::ledger::webhooks`] raises events in the
//! transaction that ends a job, `store` holds endpoints and deliveries, and the kind
//! `deliver_webhook` in `jobs` sends the messages.

mod event;
mod secret;

pub use event::{EventType, FinalJob, MAX_BODY_BYTES, test_body};
pub use secret::{InvalidSecret, WebhookSecret};

use uuid::Uuid;

use crate::{
    clock::Clock,
    ids, plain_json,
    queue::{NewJob, Priority, QueueName},
    tenancy::TenantId,
};

/// The kind that sends a delivery. It is named here because the queue creates its jobs.
pub const DELIVERY_KIND: &str = "deliver_webhook";
/// The queue of deliveries, separate from the tenants' own jobs so that a slow receiver does not
/// delay those.
pub const DELIVERY_QUEUE: &str = "webhooks";
/// One attempt and nine retries, the last of them more than three days after the first attempt.
pub const DELIVERY_MAX_ATTEMPTS: i16 = 10;

/// Kinds that only Rota creates; their jobs raise no events. A webhook about a webhook delivery
/// would never end, and a campaign would send one for each mail. These are the registry's internal
/// kinds, which this crate cannot access; a test in `jobs` compares both lists.
pub const SILENT_KINDS: &[&str] =
    &[DELIVERY_KIND, "resume_campaign", "send_account_mail", "send_campaign", "send_campaign_email"];

/// The job that sends a delivery.
pub fn delivery_job(clock: &Clock, tenant: TenantId, delivery: Uuid) -> NewJob {
    NewJob {
        id: ids::new_id(clock),
        tenant,
        queue: QueueName::of_program(DELIVERY_QUEUE),
        kind: DELIVERY_KIND.into(),
        args: plain_json::raw(&serde_json::json!({ "delivery_id": delivery })),
        priority: Priority::DEFAULT,
        max_attempts: DELIVERY_MAX_ATTEMPTS,
        run_at: None,
        expires_at: None,
        args_version: 1,
        relations: None,
    }
}
