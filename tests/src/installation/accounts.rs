//! What a run produced, counted where the effects are: at the mail server and in the ledger.
//!
//! Invariant: mails are compared with the list of recipients that the test made, never with what
//! Rota reports.

use std::{collections::BTreeMap, fmt::Write as _, ops::Range};

use anyhow::{Result, ensure};
use sqlx::{Connection as _, PgConnection};

use super::Installation;
use crate::smtp_sink::Duplicate;

/// The mails that arrived, compared with those expected.
#[derive(Debug)]
pub struct Mails {
    /// Recipients without their mail.
    pub missing: Vec<String>,
    /// Addresses that received a mail and should not have.
    pub unexpected: Vec<String>,
    /// Recipients with more than one mail.
    pub duplicates: Vec<Duplicate>,
}

impl Mails {
    /// The number of surplus mails.
    pub fn repeats(&self) -> usize {
        self.duplicates.iter().map(|duplicate| duplicate.count - 1).sum()
    }

    /// Every recipient has a mail, and at most `allowed_repeats` repeats happened, each with the
    /// same Message-ID.
    pub fn ensure_once(&self, allowed_repeats: usize) -> Result<()> {
        ensure!(self.missing.is_empty(), "no mail for {:?}", self.missing);
        ensure!(self.unexpected.is_empty(), "mail for unexpected addresses: {:?}", self.unexpected);
        ensure!(self.repeats() <= allowed_repeats, "{} repeats: {:?}", self.repeats(), self.duplicates);
        let recognisable = self.duplicates.iter().all(|duplicate| duplicate.same_message_id);
        ensure!(recognisable, "a repeat has another Message-ID: {:?}", self.duplicates);
        Ok(())
    }
}

impl Installation {
    /// Compares the mails with the expected addresses (in lower case).
    pub fn mails(&self, wanted: &[String]) -> Mails {
        let recipients = self.sink.recipients();
        let has = |list: &[String], address: &String| list.binary_search(address).is_ok();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        Mails {
            missing: wanted.iter().filter(|address| !has(&recipients, address)).cloned().collect(),
            unexpected: recipients.iter().filter(|address| !has(&wanted, address)).cloned().collect(),
            duplicates: self.sink.duplicates(),
        }
    }

    /// Jobs in the ledger by kind and state, such as `("send_campaign_email", "completed")`.
    pub async fn jobs(&self) -> Result<BTreeMap<(String, String), i64>> {
        let mut owner = PgConnection::connect(&self.postgres.urls().owner).await?;
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("select kind, state::text, count(*) from jobs group by 1, 2").fetch_all(&mut owner).await?;
        Ok(rows.into_iter().map(|(kind, state, count)| ((kind, state), count)).collect())
    }

    /// How many jobs took more than one attempt.
    pub async fn repeated_jobs(&self) -> Result<i64> {
        let mut owner = PgConnection::connect(&self.postgres.urls().owner).await?;
        Ok(sqlx::query_scalar("select count(*) from jobs where attempt > 1").fetch_one(&mut owner).await?)
    }

    /// The number of jobs that wait or run.
    pub async fn open_jobs(&self) -> Result<i64> {
        let jobs = self.jobs().await?;
        let waiting = |state: &str| matches!(state, "scheduled" | "available" | "retryable");
        Ok(jobs.iter().filter(|((_, state), _)| waiting(state)).map(|(_, count)| count).sum())
    }
}

/// Numbered leads: as CSV, and as the list of their addresses.
pub fn leads_csv(prefix: &str, numbers: Range<usize>) -> (String, Vec<String>) {
    let mut csv = String::from("email,first_name\n");
    let addresses: Vec<String> = numbers.map(|number| format!("{prefix}{number}@example.com")).collect();
    for address in &addresses {
        let name = address.split('@').next().unwrap_or_default();
        let _ = writeln!(csv, "{address},Name of {name}");
    }
    (csv, addresses)
}
