//! `api queue …`: shows queues, and sets pauses and tenant limits.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use jobs::registry::Registry;
use serde_json::json;
use shared::{
    config::{Env, OperatorConfig},
    db::{Fitness, PoolSettings},
    queue::{
        QueueName,
        limits::{
            COUNTS, LimitError, Limiter, QueueScope, RATES, WEIGHTS,
            ledger::{self, LimitRow},
        },
        repair::check::{Checker, Extent, Invariant},
    },
    stores::Stores,
};

/// Lease given to a job that is held without one. This is the default of `ROTA_LEASE_MS`, which
/// this command does not read.
const REPAIR_LEASE: Duration = Duration::from_secs(30);

/// Queues.
#[derive(Args)]
pub struct Queue {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Lists the queues: available and leased jobs, throttled tenants, workers and pauses.
    List,
    /// Pauses a queue: no job starts, running jobs continue, submitted jobs wait.
    Pause {
        /// The queue.
        queue: String,
    },
    /// Resumes a paused queue.
    Resume {
        /// The queue.
        queue: String,
    },
    /// Limits a tenant in one queue or in all queues. Settings that are not given stay unchanged.
    Limit(Limit),
    /// Lists all tenant limits.
    Limits,
    /// Checks the invariants of the index and its agreement with the ledger. Prints each violation,
    /// and fails if there is any.
    Check(Check),
}

#[derive(Args)]
struct Check {
    /// Repair violations, as the leading scheduler does.
    #[arg(long)]
    repair: bool,
}

#[derive(Args)]
struct Limit {
    /// The queue, or * for all queues in which the tenant has no limits of its own.
    queue: String,
    /// The tenant's slug or id.
    #[arg(long)]
    tenant: String,
    /// Share of worker time relative to other tenants, 1 to 1000; by tier if never set.
    #[arg(long)]
    weight: Option<i32>,
    /// Maximum number of its jobs running at once, 1 to 1000000.
    #[arg(long)]
    max_running: Option<i32>,
    /// Maximum number of its jobs starting per second, such as 0.5 or 20/s.
    #[arg(long)]
    rate: Option<String>,
    /// Maximum number of its jobs starting at once after idle time; one second's worth if omitted.
    #[arg(long, requires = "rate")]
    burst: Option<i32>,
    /// Pause the tenant: start none of its jobs.
    #[arg(long, conflicts_with = "resume")]
    pause: bool,
    /// Resume the tenant: start its jobs again.
    #[arg(long)]
    resume: bool,
    /// Clear all earlier settings before applying the given ones.
    #[arg(long)]
    clear: bool,
}

impl Queue {
    /// Runs the command.
    pub async fn run(self, env: &Env) -> anyhow::Result<()> {
        let config = OperatorConfig::load(env)?;
        let stores = Stores::open(&config.database, &config.redis, "rota-operator", PoolSettings::default())?;
        let queues = Registry::new(config.environment.test_kinds).queues();
        config.redis.shards.require_known(&queues)?;
        let queues: Vec<QueueName> = queues.into_iter().collect();
        let limiter = Limiter::new(stores.system.clone(), stores.index.clone());
        match self.action {
            Action::Check(check) => check.run(stores, &queues).await,
            Action::List => list(&limiter, &queues).await,
            Action::Pause { queue } => pause(&limiter, known(&queues, &queue)?, true).await,
            Action::Resume { queue } => pause(&limiter, known(&queues, &queue)?, false).await,
            Action::Limit(limit) => limit.apply(&stores, &limiter, &queues).await,
            Action::Limits => super::answer(&serde_json::to_string_pretty(&ledger::list(&stores.system).await?)?),
        }
    }
}

impl Check {
    async fn run(self, stores: Stores, queues: &[QueueName]) -> anyhow::Result<()> {
        let mut checker = Checker::new(stores.system.clone(), stores.index, REPAIR_LEASE);
        let mut violations = Vec::new();
        for queue in queues {
            violations.extend(checker.check(queue, Extent::Whole, self.repair).await?);
        }
        for violation in &violations {
            super::answer(&violation.to_string())?;
        }
        if violations.iter().any(|violation| violation.invariant == Invariant::NotReady) {
            if let Fitness::Unfit(reason) = stores.system.fitness().await {
                bail!("the index of these queues is not built, and cannot be: the database: {reason}");
            }
            bail!("the index of these queues is not built yet: the leading scheduler builds it, so start one");
        }
        ensure!(violations.is_empty(), "the index violates its invariants: {} violations", violations.len());
        super::answer("all invariants of the index hold")
    }
}

async fn list(limiter: &Limiter, queues: &[QueueName]) -> anyhow::Result<()> {
    let overview = limiter.overview(queues).await?;
    if overview.iter().any(|queue| queue.index.is_none()) {
        warn("Redis is unreachable or refuses the login: `index` and `available` are not known")?;
    }
    super::answer(&serde_json::to_string_pretty(&overview)?)
}

/// Writes to standard error.
fn warn(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stderr().lock(), "{text}")?)
}

async fn pause(limiter: &Limiter, queue: QueueName, paused: bool) -> anyhow::Result<()> {
    tell(limiter.pause_queue(&queue, paused).await)?;
    super::answer(&json!({ "queue": queue, "paused": paused }).to_string())
}

/// A committed change counts even if Redis is unreachable.
fn tell(result: Result<(), LimitError>) -> anyhow::Result<()> {
    match result {
        Err(LimitError::Index(error)) => {
            let told = "committed, but Redis is unreachable; the leading scheduler will update the index";
            warn(&format!("{told}: {error}"))
        }
        other => Ok(other?),
    }
}

impl Limit {
    async fn apply(self, stores: &Stores, limiter: &Limiter, queues: &[QueueName]) -> anyhow::Result<()> {
        let scope: QueueScope = match self.queue.as_str() {
            "*" => QueueScope::All,
            name => QueueScope::One(known(queues, name)?),
        };
        let row = self.row()?;
        ensure!(
            self.clear || row != LimitRow::default(),
            "nothing to change: pass --weight, --max-running, --rate, --pause, --resume or --clear"
        );
        let tenant = ledger::find_tenant(&stores.system, &self.tenant).await?;
        let tenant = tenant.with_context(|| format!("there is no tenant {:?}", self.tenant))?;
        tell(limiter.limit_tenant(tenant, &scope, &row, self.clear, queues).await)?;
        let all = ledger::list(&stores.system).await?;
        let set = all.iter().find(|one| one.tenant_id == *tenant.as_uuid() && one.queue == scope.to_string());
        super::answer(&json!({ "tenant_id": tenant, "queue": scope.to_string(), "limits": set }).to_string())
    }

    /// The given settings, validated.
    fn row(&self) -> anyhow::Result<LimitRow> {
        let rate = self.rate.as_deref().map(parse_rate).transpose()?;
        #[expect(clippy::cast_possible_truncation, reason = "a rate is at most a million")]
        let a_seconds_worth = |rate: f64| rate.ceil() as i32;
        let burst = self.burst.or_else(|| rate.map(a_seconds_worth));
        for (name, value, range) in
            [("weight", self.weight, WEIGHTS), ("max-running", self.max_running, COUNTS), ("burst", burst, COUNTS)]
        {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                bail!("--{name} must be {} to {}, not {value}", range.start(), range.end());
            }
        }
        let paused = (self.pause || self.resume).then_some(self.pause);
        Ok(LimitRow { weight: self.weight, max_running: self.max_running, rate_per_second: rate, burst, paused })
    }
}

fn parse_rate(text: &str) -> anyhow::Result<f64> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let rate: Option<f64> = number.parse().ok().filter(|rate| RATES.contains(rate));
    rate.with_context(|| format!("--rate must be {} to {} a second, not {text:?}", RATES.start(), RATES.end()))
}

fn known(queues: &[QueueName], asked: &str) -> anyhow::Result<QueueName> {
    if let Some(queue) = queues.iter().find(|queue| queue.as_ref() == asked) {
        return Ok(queue.clone());
    }
    let near = shared::suggestion::nearest(asked, queues.iter().map(AsRef::as_ref));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    let names: Vec<&str> = queues.iter().map(AsRef::as_ref).collect();
    bail!("there is no queue {asked:?}{hint} (known queues: {})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{known, parse_rate};

    #[test]
    fn rates_are_parsed_within_their_range() {
        assert_eq!(parse_rate("20/s").ok(), Some(20.0));
        assert_eq!(parse_rate("0.001").ok(), Some(0.001));
        for wrong in ["0", "0.0009", "-1", "1000001", "NaN", "inf", "fast", ""] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_queue_name_gets_a_suggestion() {
        let queues = ["email", "default"].map(|name| name.parse().expect("a name"));
        assert_eq!(known(&queues, "email").expect("there").as_ref(), "email");
        let told = known(&queues, "emial").expect_err("no such queue").to_string();
        assert_eq!(told, "there is no queue \"emial\"; did you mean \"email\"? (known queues: email, default)");
    }
}
