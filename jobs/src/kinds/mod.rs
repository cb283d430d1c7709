//! The kinds: one file each. To add one, write its file and add its line to [`all`].

pub mod send_campaign;
pub mod send_campaign_email;
pub mod testing;

use crate::registry::Kind;

/// The kinds that are always there.
pub fn all() -> Vec<Kind> {
    vec![Kind::of::<send_campaign::SendCampaign>(), Kind::of::<send_campaign_email::SendCampaignEmail>()]
}
