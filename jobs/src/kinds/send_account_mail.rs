//! `send_account_mail`: sends a user a mail with a link: to confirm the address, to set a new
//! password, or to accept an invitation.
//!
//! The job is enqueued in the transaction that makes the mail necessary. Its args name the user; the
//! link is created when the mail is sent, so that the ledger holds no credential. Running twice is
//! harmless: the effect is recorded in the index ([`JobContext::make_effect`]), and if that is lost,
//! the repeat has the same Message-ID, and of two links to one account the first one used voids the
//! other.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    authz::Permission,
    clock::Clock,
    db::TenantTx,
    queue::{NewJob, Priority, complete::effects::Effect, enqueue::Producer},
    store::{
        accounts::{self, Account},
        users::UserState,
    },
};
use uuid::Uuid;

use crate::{
    account_links::LinkPurpose,
    account_mail::AccountMail,
    backoff,
    context::JobContext,
    job::{Job, JobError, Success, new_job},
    ports::mail::{Blame, MailError},
};

/// A person waits for the mail, and a campaign of the company must not delay it.
const FIRST: Priority = Priority::new(1).expect("priorities begin with 1");

/// Sends a user a mail with a link to the account.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendAccountMail {
    /// The user.
    pub user_id: Uuid,
    /// What the link in the mail is for.
    pub purpose: LinkPurpose,
}

impl Job for SendAccountMail {
    const KIND: &'static str = "send_account_mail";
    const DESCRIPTION: &'static str = "Sends a user a mail with a link to the account.";
    const QUEUE: &'static str = "email";
    const INTERNAL: bool = true;
    const CONTROL: Option<Permission> = Some(Permission::UsersWrite);
    /// Retries over about a day.
    const MAX_ATTEMPTS: i16 = 30;

    fn retry_delay(failures: u32) -> Duration {
        backoff::exponential(failures, Duration::from_secs(1), Duration::from_hours(1))
    }

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let mut transaction = context.begin().await?;
        let account = accounts::find(&mut transaction, self.user_id).await?;
        drop(transaction);
        let Some(account) = account.filter(|account| self.is_wanted(&account.state)) else {
            return Ok(Success::Cancel("the account no longer needs this mail".into()));
        };
        Box::pin(self.send(context, &account)).await
    }
}

impl SendAccountMail {
    /// Adds the job to the transaction that makes the mail necessary. Announce the returned job
    /// after the commit.
    pub async fn enqueue(&self, transaction: &mut TenantTx, clock: &Clock) -> Result<NewJob, sqlx::Error> {
        let job = NewJob { priority: FIRST, ..new_job(clock, transaction.tenant(), self) };
        Producer::enqueue_in(transaction, std::slice::from_ref(&job)).await?;
        Ok(job)
    }

    fn is_wanted(&self, state: &str) -> bool {
        match self.purpose {
            LinkPurpose::VerifyEmail => state == UserState::Unverified.as_str(),
            LinkPurpose::ResetPassword | LinkPurpose::AcceptInvitation => self.purpose.fits(state),
        }
    }

    async fn send(&self, context: &JobContext, account: &Account) -> Result<Success, JobError> {
        let effect = format!("account_mail:{}", context.job_id());
        let date = match context.begin_effect(&effect).await {
            Effect::Happened => return Ok(Success::Done),
            Effect::Begun(at) => at,
        };
        let (tenant, mailer) = (context.tenant(), context.environment().mailer.clone());
        let mail = AccountMail { id: context.job_id(), purpose: self.purpose, tenant, user: self.user_id, date };
        let outgoing = context.environment().account_mails.write(&mail, account);
        let sending = Box::pin(async move { mailer.send(tenant, &outgoing).await });
        let Err(error) = context.make_effect(effect.clone(), sending).await else { return Ok(Success::Done) };
        if !error.after_data() {
            context.forget_effect(&effect).await;
        }
        not_sent(error)
    }
}

/// The relay's own troubles do not count as failures of the mail.
fn not_sent(error: MailError) -> Result<Success, JobError> {
    match error.blame() {
        None => Err(JobError::Final(error.to_string())),
        Some(Blame::Relay | Blame::Busy) => Ok(Success::Snooze(error.soon())),
        Some(Blame::Sender | Blame::Recipient) => Err(JobError::Retry(error.into())),
    }
}
