//! Webhooks: what a tenant can be told of, in which form, and signed with what.
//!
//! Invariant: nothing here touches a store. [`crate::queue::webhooks`] raises events in the transaction that ends a job, `store`
//! keeps endpoints and deliveries, and the kind `deliver_webhook` in `jobs` sends them.

mod event;
mod secret;

pub use event::{EventType, FinalJob, MAX_BODY_BYTES, test_body};
pub use secret::{InvalidSecret, WebhookSecret};

use serde_json::value::to_raw_value;
use uuid::Uuid;

use crate::{
    clock::Clock,
    ids,
    queue::{NewJob, Priority},
    tenancy::TenantId,
};

/// The kind that sends a delivery; made here because the engine makes its jobs.
pub const DELIVERY_KIND: &str = "deliver_webhook";
/// Where deliveries wait: apart from the tenants' own work, which a slow receiver must not hold up.
pub const DELIVERY_QUEUE: &str = "webhooks";
/// One try and nine more, the last of them more than three days after the first.
pub const DELIVERY_MAX_ATTEMPTS: i16 = 10;

/// Kinds that only Rota makes: their ends are no events. A message about a message would never end, and a campaign would send
/// one for each mail. The registry's internal kinds, which this crate cannot see; a test in `jobs` compares them.
pub const SILENT_KINDS: [&str; 4] = [DELIVERY_KIND, "resume_campaign", "send_campaign", "send_campaign_email"];

/// The job that sends a delivery.
pub fn delivery_job(clock: &Clock, tenant: TenantId, delivery: Uuid) -> NewJob {
    NewJob {
        id: ids::new_id(clock),
        tenant,
        queue: DELIVERY_QUEUE.parse().expect("a valid queue name"),
        kind: DELIVERY_KIND.into(),
        args: to_raw_value(&serde_json::json!({ "delivery_id": delivery })).expect("an id is plain data"),
        priority: Priority::DEFAULT,
        max_attempts: DELIVERY_MAX_ATTEMPTS,
        run_at: None,
        expires_at: None,
        args_version: 1,
        ties: None,
    }
}
