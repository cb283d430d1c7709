//! The mails about accounts, as they arrive in the folder of the test's system.

use std::{fs, time::Duration};

use anyhow::Result;
use tests::{eventually::eventually, test_app::TestApp};

/// For debug builds on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);
/// The public URL of the API of tests.
const PUBLIC_URL: &str = "http://rota.test";

/// A mail that has arrived.
pub struct Mail {
    pub text: String,
    /// The path of the link in it.
    pub path: String,
}

impl Mail {
    /// The token in the link.
    pub fn token(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// The mails to an address, oldest first: the names of the files begin with the ids of the jobs.
pub fn mails_to(app: &TestApp, address: &str) -> Result<Vec<Mail>> {
    let files = fs::read_dir(app.system.mails.path())?.map(|entry| Ok(entry?.path()));
    let mut files: Vec<_> = files.collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    let mut mails = Vec::new();
    for file in files {
        // A link is longer than a line of a mail in quoted-printable.
        let text = fs::read_to_string(file)?.replace("=\r\n", "");
        if text.contains(&format!("To: {address}\r\n")) {
            let link = text.lines().find_map(|line| line.strip_prefix(PUBLIC_URL));
            mails.push(Mail { path: link.unwrap_or_default().trim().to_owned(), text });
        }
    }
    Ok(mails)
}

/// Waits until an address has got this number of mails, and returns the last one.
pub async fn mail(app: &TestApp, address: &str, number: usize) -> Mail {
    eventually(PATIENCE, &format!("{number} mails to {address}"), async || {
        let mut mails = mails_to(app, address).ok()?;
        if mails.len() == number { mails.pop() } else { None }
    })
    .await
}

/// The number of jobs for mails in the ledger.
pub async fn jobs(app: &TestApp) -> Result<i64> {
    tests::sql::one(&app.system.urls.owner, "select count(*) from jobs where kind = 'send_account_mail'").await
}

/// Lets the pause between two mails to each user pass.
pub async fn pass_pause(app: &TestApp) -> Result<()> {
    let statement = "update users set account_mail_at = account_mail_at - interval '5 minutes'";
    tests::sql::execute(&app.system.urls.owner, statement).await
}
