//! The mails about a user's account.
//!
//! Invariant: a mail contains no text that a stranger chose freely, because strangers decide whom
//! Rota writes to: the company is named by its slug, the person is not named.

use chrono::{DateTime, Utc};
use shared::{email_address::EmailAddress, store::accounts::Account, tenancy::TenantId};
use uuid::Uuid;

use crate::{
    account_links::{AccountLink, AccountLinks, LinkPurpose},
    ports::mail::{Mailbox, OutgoingMail},
};

/// Writes mails about accounts.
#[derive(Clone)]
pub struct AccountMails {
    links: AccountLinks,
    from: EmailAddress,
}

/// What identifies a mail.
#[derive(Clone, Copy, Debug)]
pub struct AccountMail {
    /// Distinguishes the mail from others; the same on every repeat.
    pub id: Uuid,
    /// What its link is for.
    pub purpose: LinkPurpose,
    /// The tenant of the user.
    pub tenant: TenantId,
    /// The user.
    pub user: Uuid,
    /// The date of the mail, from which the link's lifetime counts.
    pub date: DateTime<Utc>,
}

impl AccountMails {
    /// Mails from this address.
    pub const fn new(links: AccountLinks, from: EmailAddress) -> Self {
        Self { links, from }
    }

    /// The mail to an account. The same date always produces the same octets while the account stays
    /// as it is.
    pub fn write(&self, mail: &AccountMail, account: &Account) -> OutgoingMail {
        let AccountMail { id, purpose, tenant, user, date } = *mail;
        let link = AccountLink { purpose, tenant, user, expires_at: date + purpose.lifetime() };
        let url = self.links.url(&link, account);
        let (subject, reason, advice) = wording(purpose, &account.company);
        let until = link.expires_at.format("%Y-%m-%d %H:%M UTC");
        OutgoingMail {
            message_id: format!("{id}@{}", self.from.domain()),
            from: Mailbox::new(self.from.as_str()),
            to: Mailbox::new(&account.email),
            subject,
            text: format!("{reason}\n\n{url}\n\nThe link works once, until {until}. {advice}\n"),
            html: None,
            list_unsubscribe: None,
            date,
            campaign: None,
        }
    }
}

/// The subject, the reason of the mail, and what to do if it is not wanted.
fn wording(purpose: LinkPurpose, company: &str) -> (String, String, &'static str) {
    match purpose {
        LinkPurpose::VerifyEmail => (
            format!("Confirm your address for {company}"),
            format!("The company {company} was registered with your address. To confirm the address, open:"),
            "If you did not register it, ignore this mail.",
        ),
        LinkPurpose::ResetPassword => (
            format!("Set a new password for {company}"),
            format!("A new password was requested for your account at {company}. To set one, open:"),
            "If you did not request it, ignore this mail: your password stays as it is.",
        ),
        LinkPurpose::AcceptInvitation => (
            format!("You are invited to {company}"),
            format!("The company {company} has created an account for you. To set your password, open:"),
            "If you do not expect it, ignore this mail.",
        ),
    }
}
