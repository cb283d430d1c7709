//! The behaviour of the queue of apalis-redis where Rota gives guarantees; the figures are in
//! `docs/decisions/0001`.
//!
//! `cargo bench -p tests --features stock-storage --bench stock_redis_storage`. It starts its own
//! `redis-server` and takes about two minutes. Redis does most of the measured work, so `--profile
//! dev` changes little.
#![expect(clippy::print_stdout, reason = "prints figures")]

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use apalis::prelude::{ParallelizeExt as _, TaskBuilder, TaskSink as _, WorkerBuilder};
use apalis_redis::{Config, RedisStorage};
use redis::cmd;
use tests::redis_server::{PrivateRedis, RedisOptions};
use tokio::time::{sleep, timeout};

/// Ids per command of ours; the stock scripts have no limit.
const CHUNK: usize = 1_000;
const WORKER: &str = "bench";

type Storage<Args> = RedisStorage<Args>;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Local, because the compiler does not see that the future of an apalis worker is `Send`
    // outside a `Monitor`.
    tokio::task::LocalSet::new().block_on(&runtime, async {
        due_jobs().await?;
        cost_per_job().await?;
        stall().await?;
        attempts().await?;
        bad_payload().await?;
        one_name().await
    })
}

/// Everything pushed while no worker fetches is due at once, and is promoted in one `unpack`.
async fn due_jobs() -> Result<()> {
    println!("jobs pushed before the worker starts, all due; progress of a worker in 5 s");
    for jobs in [4_000, 7_000, 8_000, 20_000] {
        let redis = PrivateRedis::new(RedisOptions::default()).await?;
        push(&redis, jobs).await?;
        let worker = Worker::start(&redis, "first", Config::default(), |_| Ok(())).await?;
        let (ran, ending) = worker.watch(Duration::from_secs(5)).await;
        let again = Worker::start(&redis, "second", Config::default(), |_| Ok(())).await?;
        let (ran_again, _) = again.watch(Duration::from_secs(5)).await;
        println!("  {jobs:>6} due: {ran} ran, {ending}; another worker after it: {ran_again} ran");
    }
    Ok(())
}

/// To lock a job, the script searches for it in the list from which it was just taken, from end to
/// end.
async fn cost_per_job() -> Result<()> {
    println!("jobs/s of one worker, jobs that do nothing, first 2,000 jobs or 10 s");
    for backlog in [1_000, 10_000, 100_000] {
        for lock_tasks in [true, false] {
            let redis = PrivateRedis::new(RedisOptions::default()).await?;
            fill(&redis, backlog).await?;
            let config = Config::default().lock_tasks(lock_tasks);
            let began = Instant::now();
            let worker = Worker::start(&redis, WORKER, config, |_| Ok(())).await?;
            let wanted = u64::try_from(backlog.min(2_000))?;
            while worker.ran() < wanted && began.elapsed() < Duration::from_secs(10) && !worker.run.is_finished() {
                sleep(Duration::from_millis(5)).await;
            }
            let (ran, seconds) = (worker.ran(), began.elapsed().as_secs_f64());
            let (_, ending) = worker.watch(Duration::ZERO).await;
            let rate = f64::from(u32::try_from(ran)?) / seconds;
            println!(
                "  backlog {backlog:>6}, lock_tasks {lock_tasks:<5}: {rate:>7.0} jobs/s ({ran} in {seconds:.1} s; {ending})"
            );
        }
    }
    Ok(())
}

/// Redis responds late, once. The heartbeat is short, so that a command is in flight, as in a busy
/// system.
async fn stall() -> Result<()> {
    println!("Redis is frozen, then resumes; the worker's state 5 s later");
    for stall_ms in [300, 700] {
        let mut redis = PrivateRedis::new(RedisOptions::default()).await?;
        push(&redis, 10).await?;
        let config = Config::default().heartbeat_interval(Duration::from_millis(100));
        let worker = Worker::start(&redis, WORKER, config, |_| Ok(())).await?;
        worker.wait_for(10).await;
        redis.pause_ms(stall_ms).await?;
        let (_, ending) = worker.watch(Duration::from_secs(5)).await;
        println!("  {stall_ms} ms: {ending}");
    }
    Ok(())
}

/// A job with two attempts that never succeeds. An idle worker polls for work once per heartbeat.
async fn attempts() -> Result<()> {
    let redis = PrivateRedis::new(RedisOptions::default()).await?;
    let job = TaskBuilder::new(0).max_attempts(2).build();
    storage::<u32>(&redis, Config::default()).await?.push_task(job).await.map_err(told)?;
    let config = Config::default().heartbeat_interval(Duration::from_millis(500));
    let worker = Worker::start(&redis, WORKER, config, |_| Err(io::ErrorKind::Other.into())).await?;
    let (ran, ending) = worker.watch(Duration::from_secs(20)).await;
    println!("max_attempts 2, fails always: {ran} runs in 20 s, {ending}");
    Ok(())
}

/// One job among others whose args have another type.
async fn bad_payload() -> Result<()> {
    let redis = PrivateRedis::new(RedisOptions::default()).await?;
    push(&redis, 10).await?;
    let foreign = storage::<String>(&redis, Config::default()).await?.push("not a number".to_owned()).await;
    foreign.map_err(told)?;
    push(&redis, 1_000).await?;
    let worker = Worker::start(&redis, WORKER, Config::default(), |_| Ok(())).await?;
    let (ran, ending) = worker.watch(Duration::from_secs(10)).await;
    println!("one bad payload among 1,010 good ones: {ran} ran in 10 s, {ending}");
    Ok(())
}

/// Two replicas of one deployment.
async fn one_name() -> Result<()> {
    let redis = PrivateRedis::new(RedisOptions::default()).await?;
    push(&redis, 1).await?;
    let first = Worker::start(&redis, WORKER, Config::default(), |_| Ok(())).await?;
    first.wait_for(1).await;
    let second = Worker::start(&redis, WORKER, Config::default(), |_| Ok(())).await?;
    let (_, ending) = second.watch(Duration::from_secs(5)).await;
    println!("a second worker of the same name: {ending}");
    Ok(())
}

/// A worker of apalis over the stock storage, with batches of 100 jobs.
struct Worker {
    ran: Arc<AtomicU64>,
    run: tokio::task::JoinHandle<String>,
}

impl Worker {
    async fn start(redis: &PrivateRedis, name: &str, config: Config, job: fn(u32) -> io::Result<()>) -> Result<Self> {
        let storage = storage::<u32>(redis, config.batch_size(100)).await?;
        let ran = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&ran);
        let worker = WorkerBuilder::new(name).backend(storage).parallelize(tokio::spawn).build(move |args: u32| {
            counter.fetch_add(1, Ordering::Relaxed);
            std::future::ready(job(args))
        });
        let run = tokio::task::spawn_local(async move {
            match worker.run().await {
                Ok(()) => "the worker ended".to_owned(),
                Err(error) => format!("the worker ended: {error}"),
            }
        });
        Ok(Self { ran, run })
    }

    fn ran(&self) -> u64 {
        self.ran.load(Ordering::Relaxed)
    }

    async fn wait_for(&self, jobs: u64) {
        while self.ran() < jobs && !self.run.is_finished() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many jobs ran, and the state of the worker after at most `time`; then stops the worker.
    async fn watch(mut self, time: Duration) -> (u64, String) {
        let ending = match timeout(time, &mut self.run).await {
            Ok(Ok(ending)) => ending,
            Ok(Err(error)) => format!("the worker panicked: {error}"),
            Err(_elapsed) => {
                self.run.abort();
                "the worker is alive".to_owned()
            }
        };
        (self.ran(), ending)
    }
}

async fn storage<Args>(redis: &PrivateRedis, config: Config) -> Result<Storage<Args>> {
    let connection = apalis_redis::connect(redis.url()).await?;
    Ok(RedisStorage::new(connection).with_config(config.queue("bench")))
}

async fn push(redis: &PrivateRedis, jobs: usize) -> Result<()> {
    let mut storage = storage::<u32>(redis, Config::default()).await?;
    for _ in 0..jobs.div_ceil(CHUNK) {
        storage.push_bulk(vec![0; CHUNK.min(jobs)]).await.map_err(told)?;
    }
    Ok(())
}

/// Pushes jobs and makes them available as a worker that kept up would have, since jobs as in
/// [`due_jobs`] cannot be fetched.
async fn fill(redis: &PrivateRedis, jobs: usize) -> Result<()> {
    let config = Config::default().queue("bench");
    for _ in 0..jobs / CHUNK {
        push(redis, CHUNK).await?;
        let ids: Vec<String> = redis.command(cmd("ZRANGE").arg(config.scheduled_jobs_set()).arg(0).arg(-1)).await?;
        redis.command::<u64>(cmd("RPUSH").arg(config.active_jobs_list()).arg(&ids)).await?;
        redis.command::<u64>(cmd("DEL").arg(config.scheduled_jobs_set())).await?;
    }
    Ok(())
}

fn told(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("{error:?}")
}
