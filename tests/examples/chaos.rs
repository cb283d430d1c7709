//! The big run: a campaign of 10,000 mails through two workers, while all processes and stores are
//! killed in turn.
//!
//! Prints each fault with the number of mails sent before it and the time until mail arrived again,
//! then the result: mails per recipient, the states of the jobs, processes that ended. Exit status
//! 1 if a guarantee did not hold. `bin/chaos` builds and starts it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use tests::{
    eventually::poll_until,
    installation::{Installation, InstallationOptions, leads_csv},
};

/// After this long without a mail, recovery has failed.
const PATIENCE: Duration = Duration::from_mins(2);
/// Recipients of the campaign that is never pushed to Redis.
const UNHEARD: usize = 100;

#[derive(Parser)]
#[command(about = "Send a campaign while all processes and stores are killed in turn")]
struct Arguments {
    /// Number of recipients
    #[arg(default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    recipients: u32,
    /// Mails per second that the server accepts; by default the campaign takes a minute without
    /// faults
    #[arg(long)]
    rate_limit: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillWorker(usize),
    FlushRedis,
    OldDump,
    CrashPostgres,
    KillApi,
    TerminateAll,
}

/// Injected in this order, spread evenly over the campaign.
const FAULTS: [Fault; 7] = [
    Fault::KillWorker(0),
    Fault::FlushRedis,
    Fault::OldDump,
    Fault::CrashPostgres,
    Fault::KillApi,
    Fault::TerminateAll,
    Fault::KillWorker(1),
];

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::KillWorker(_) => "kill -9 of a worker",
            Self::FlushRedis => "FLUSHALL",
            Self::OldDump => "Redis restarted from an old dump",
            Self::CrashPostgres => "PostgreSQL restarted, -m immediate",
            Self::KillApi => "kill -9 of the API before its push",
            Self::TerminateAll => "SIGTERM to everything in turn",
        }
    }

    /// How many mails this fault may repeat: one that was sent just before the kill.
    const fn repeats_allowed(self) -> usize {
        match self {
            Self::KillWorker(_) => 1,
            _ => 0,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let broken = match run(arguments).await {
        Ok(violations) if violations.is_empty() => return ExitCode::SUCCESS,
        Ok(violations) => violations.join("\n  "),
        Err(error) => format!("{error:#}"),
    };
    let _ = say(&format!("\nBROKEN:\n  {broken}"));
    ExitCode::FAILURE
}

struct Run {
    rota: Installation,
    began: Instant,
    old_dump: PathBuf,
    /// All recipients that must get a mail.
    wanted: Vec<String>,
    campaigns: Vec<String>,
}

async fn run(arguments: Arguments) -> Result<Vec<String>> {
    let recipients = arguments.recipients as usize;
    let rate = arguments.rate_limit.unwrap_or((arguments.recipients / 60).max(1));
    say(&format!("{recipients} recipients, 2 workers, at most {rate} mails per second"))?;
    let options = InstallationOptions { mails_per_second: Some(rate), ..InstallationOptions::default() };
    let mut rota = Installation::start_with(options).await?;
    let (csv, wanted) = leads_csv("lead", 0..recipients);
    let campaign = rota.tenant.campaign("Chaos", &csv).await?;
    let began = Instant::now();
    rota.tenant.send_campaign(&campaign).await?;
    arrived(&rota, recipients / 40).await?;
    let old_dump = rota.redis.save_dump().await?;

    let mut run = Run { rota, began, old_dump, wanted, campaigns: vec![campaign] };
    say(&format!("\n{:<36} {:>8} {:>8} {:>13} {:>13}", "fault", "at", "mails", "all up after", "mail again"))?;
    for (number, fault) in FAULTS.into_iter().enumerate() {
        arrived(&run.rota, recipients * (number + 1) / (FAULTS.len() + 1)).await?;
        run.suffer(fault).await?;
    }
    run.end().await
}

impl Run {
    /// Injects a fault and prints its effect.
    async fn suffer(&mut self, fault: Fault) -> Result<()> {
        let (at, mails) = (self.began.elapsed(), self.rota.sink.count());
        let struck = Instant::now();
        self.inject(fault).await.context(fault.name())?;
        let (up, mails_up) = (struck.elapsed(), self.rota.sink.count());
        if mails_up < self.wanted.len() {
            arrived(&self.rota, mails_up + 1).await?;
        }
        let again = struck.elapsed();
        say(&format!("{:<36} {:>8} {mails:>8} {:>13} {:>13}", fault.name(), secs(at), secs(up), secs(again)))
    }

    async fn inject(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillWorker(number) => self.rota.kill_worker(number).await,
            Fault::FlushRedis => self.rota.flush_redis().await,
            Fault::OldDump => self.rota.restart_redis_from(&self.old_dump).await,
            Fault::CrashPostgres => self.rota.crash_postgres().await,
            Fault::TerminateAll => self.rota.terminate_in_turn().await,
            Fault::KillApi => {
                let (csv, addresses) = leads_csv("unheard", 0..UNHEARD);
                let campaign = self.rota.kill_api_between_commit_and_push("Unheard of", &csv).await?;
                self.campaigns.push(campaign);
                self.wanted.extend(addresses);
                Ok(())
            }
        }
    }

    async fn all_completed(&self) -> bool {
        for campaign in &self.campaigns {
            let answer = self.rota.tenant.get(campaign).await;
            if !answer.is_ok_and(|answer| answer.body["state"] == "completed") {
                return false;
            }
        }
        true
    }

    /// Waits for the end, prints the result and returns the violations.
    async fn end(mut self) -> Result<Vec<String>> {
        // A time-out shows up in the result.
        let _ = arrived(&self.rota, self.wanted.len()).await;
        let completed = poll_until(PATIENCE, async || self.all_completed().await.then_some(())).await;
        let took = self.began.elapsed();
        poll_until(PATIENCE, async || (self.rota.open_jobs().await.ok()? == 0).then_some(())).await;

        let mails = self.rota.mails(&self.wanted);
        let recognisable = mails.duplicates.iter().filter(|duplicate| duplicate.same_message_id).count();
        let ended = self.rota.ended_by_themselves()?;
        say(&format!("\ntook                        {}", secs(took)))?;
        say(&format!("recipients                  {}", self.wanted.len()))?;
        say(&format!("mails                       {}", self.rota.sink.count()))?;
        say(&format!("without a mail              {}", mails.missing.len()))?;
        say(&format!("unexpected mails            {}", mails.unexpected.len()))?;
        let repeats = format!("{} ({recognisable} recipients, with the same Message-ID)", mails.repeats());
        say(&format!("repeats                     {repeats}"))?;
        let jobs = self.rota.jobs().await?;
        for ((kind, state), count) in &jobs {
            say(&format!("{:<27} {count} {state}", format!("jobs {kind}")))?;
        }
        let ended_text = if ended.is_empty() { "none".to_owned() } else { ended.join(", ") };
        say(&format!("ended unexpectedly          {ended_text}"))?;

        let allowed = FAULTS.iter().map(|fault| fault.repeats_allowed()).sum();
        let mut violations: Vec<String> = ended.iter().map(|name| format!("{name} ended unexpectedly")).collect();
        violations.extend(completed.is_none().then(|| "a campaign is not completed".to_owned()));
        violations.extend(mails.ensure_once(allowed).err().map(|error| error.to_string()));
        let unfinished = jobs.iter().filter(|((_, state), _)| state != "completed");
        violations.extend(unfinished.map(|((kind, state), count)| format!("{count} jobs {kind} are {state}")));
        Ok(violations)
    }
}

/// Waits for this many mails, as long as new ones arrive.
async fn arrived(rota: &Installation, mails: usize) -> Result<()> {
    loop {
        let before = rota.sink.count();
        if before >= mails {
            return Ok(());
        }
        let more = poll_until(PATIENCE, async || (rota.sink.count() > before).then_some(())).await;
        more.with_context(|| format!("{before} of {mails} mails, and none for {} s", PATIENCE.as_secs()))?;
    }
}

fn secs(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
