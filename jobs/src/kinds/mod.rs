//! The kinds, one file each. To add one, write its file and add a line to [`all`].

pub mod deliver_webhook;
pub mod resume_campaign;
pub mod send_account_mail;
pub mod send_campaign;
pub mod send_campaign_email;
pub mod testing;

use crate::kind::Kind;

/// The kinds that are always registered.
pub fn all() -> Vec<Kind> {
    vec![
        Kind::of::<deliver_webhook::DeliverWebhook>(),
        Kind::of::<resume_campaign::ResumeCampaign>(),
        Kind::of::<send_account_mail::SendAccountMail>(),
        Kind::of::<send_campaign::SendCampaign>(),
        Kind::of::<send_campaign_email::SendCampaignEmail>(),
    ]
}

#[cfg(test)]
mod tests {
    use shared::{clock::Clock, ids, tenancy::TenantId, webhooks};

    #[test]
    fn internal_kinds_raise_no_events() {
        let internal: Vec<&str> = super::all().iter().filter(|kind| kind.internal).map(|kind| kind.name).collect();
        assert_eq!(internal, webhooks::SILENT_KINDS);
    }

    #[test]
    fn internal_kinds_name_the_permission_that_controls_them() {
        for kind in super::all().iter().chain(&super::testing::all()) {
            assert_eq!(kind.control.is_some(), kind.internal, "{}", kind.name);
        }
    }

    /// The job is built outside of the registry, so only this test compares it with its kind.
    #[test]
    fn the_args_of_a_delivery_job_match_its_kind() {
        let clock = Clock::system();
        let job = webhooks::delivery_job(&clock, TenantId::new(ids::new_id(&clock)), ids::new_id(&clock));
        let kinds = super::all();
        let kind = kinds.iter().find(|kind| kind.name == &*job.kind).expect("the kind exists");
        assert_eq!((&kind.queue, kind.max_attempts), (&job.queue, job.max_attempts));
        assert_eq!(kind.check(&job.args), []);
    }
}
