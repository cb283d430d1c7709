//! Jobs over slow links, and the checks after them: every effect once, no attempt raised, the index
//! consistent.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::http::StatusCode;
use serde_json::{Value, json};
use shared::{
    db::{PoolSettings, SystemDb},
    queue::{
        Index, IndexSettings, ShardCounts,
        repair::check::{Checker, Extent},
    },
};
use sqlx::{Connection as _, PgConnection};

use crate::{
    eventually::poll_until,
    http_sink::{Behaviour, HttpSink},
    installation::{ApiClient, Installation},
};

/// For what takes a second with all links slow, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// For thousands of jobs.
const LONG_PATIENCE: Duration = Duration::from_mins(10);
/// Jobs per request.
const BATCH: usize = 500;

/// A tenant that enqueues jobs one by one, and a record of their effects.
pub struct SlowLinks {
    client: ApiClient,
    sink: HttpSink,
    owner: PgConnection,
    checker: Checker,
    jobs: usize,
}

impl SlowLinks {
    /// Opens its own connections to the stores, which bypass the links.
    pub async fn new(rota: &Installation) -> Result<Self> {
        let urls = rota.postgres.urls();
        let index = Index::open(&IndexSettings {
            url: rota.redis.url(),
            prefix: "rota".to_owned(),
            response_timeout: PATIENCE,
            shards: ShardCounts::default(),
        })?;
        let system = SystemDb::open(&urls.system, "test", PoolSettings::default())?;
        Ok(Self {
            client: rota.tenant.clone(),
            sink: HttpSink::start().await?,
            owner: PgConnection::connect(&urls.owner).await?,
            checker: Checker::new(system, index, Duration::from_secs(30)),
            jobs: 0,
        })
    }

    /// Enqueues callbacks and sleeps alternately, one per request, and returns the tokens of the
    /// callbacks.
    pub async fn enqueue(&mut self, name: &str, jobs: usize, run: Duration) -> Result<Vec<String>> {
        self.sink.set_default(Behaviour::Delay(run));
        let mut tokens = Vec::new();
        for number in 0..jobs {
            let token = format!("{name}-{number}");
            let job: Value = if number % 2 == 0 {
                json!({ "kind": "callback", "args": { "url": self.sink.url(), "token": token } })
            } else {
                json!({ "kind": "sleep", "args": { "ms": u64::try_from(run.as_millis())? } })
            };
            self.client.post_once("jobs", &format!("job-{token}"), &job).await?.expect(202)?;
            if number % 2 == 0 {
                tokens.push(token);
            }
        }
        self.jobs += jobs;
        Ok(tokens)
    }

    /// Enqueues callbacks, `BATCH` per request.
    pub async fn enqueue_batches(&mut self, name: &str, jobs: usize) -> Result<()> {
        self.sink.set_default(Behaviour::Answer(StatusCode::OK));
        let url = self.sink.url();
        let numbers: Vec<usize> = (0..jobs).collect();
        for chunk in numbers.chunks(BATCH) {
            let job = |number: &usize| json!({ "kind": "callback", "args": { "url": url, "token": format!("{name}-{number}") } });
            let batch = json!({ "jobs": chunk.iter().map(job).collect::<Vec<_>>() });
            self.client.post_once("jobs/batch", &format!("{name}-{}", chunk[0]), &batch).await?.expect(202)?;
        }
        self.jobs += jobs;
        Ok(())
    }

    /// Waits for the effect of a callback.
    pub async fn arrives(&self, token: &str) {
        self.sink.wait_for(token, PATIENCE).await;
    }

    /// Checks that all jobs completed in their first attempt, all effects happened once, and the
    /// index keeps its invariants.
    pub async fn ensure_once(&mut self) -> Result<()> {
        let wanted = i64::try_from(self.jobs)?;
        let counts = "select count(*) filter (where state = 'completed'), count(*) filter (where attempt > 1 or crashes > 0) from jobs";
        let mut seen = (0, 0);
        let owner = &mut self.owner;
        let done = poll_until(LONG_PATIENCE, async || {
            seen = sqlx::query_as::<_, (i64, i64)>(counts).fetch_one(&mut *owner).await.ok()?;
            (seen.0 == wanted).then_some(())
        });
        done.await.with_context(|| format!("{} of {wanted} jobs are completed", seen.0))?;
        ensure!(seen.1 == 0, "{} jobs took more than one attempt", seen.1);
        let tokens = self.sink.tokens();
        let repeated: Vec<_> = tokens.iter().filter(|(_, count)| **count != 1).collect();
        ensure!(repeated.is_empty(), "ran more than once: {repeated:?}");
        let queue = "default".parse().map_err(anyhow::Error::msg)?;
        let (checker, mut last) = (&mut self.checker, None);
        let holds = poll_until(PATIENCE, async || {
            last = Some(checker.check(&queue, Extent::Whole, false).await.ok()?);
            last.as_ref()?.is_empty().then_some(())
        });
        ensure!(holds.await.is_some(), "the index does not keep its invariants: {last:?}");
        Ok(())
    }
}

/// Enqueues jobs and waits for their effects.
pub async fn round(slow: &mut SlowLinks, name: &str, jobs: usize, run: Duration) -> Result<()> {
    for token in slow.enqueue(name, jobs, run).await? {
        slow.arrives(&token).await;
    }
    Ok(())
}
