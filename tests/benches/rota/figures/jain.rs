//! How evenly worker-seconds are distributed: Jain's index of worker-seconds over weight, for
//! tenants with jobs of very different lengths, over a window in which all of them have work
//! waiting. 1 is perfectly even; 1/n means that one of n tenants got everything.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    arguments::Size,
    backlog,
    bed::Bed,
    figure::{Measured, count},
    stamps::{Runs, Stamps, ms_between, now_ns},
};

const SLOTS: usize = 20;
/// Time to learn the estimates of the tenants' run times.
const WARM_UP: Duration = Duration::from_secs(5);
/// A token is the tenant's number, from 1, followed by the nine digits of the job's number.
const TOKENS_OF_A_TENANT: u64 = 1_000_000_000;
/// The share of lost stamps above which the figure is meaningless.
const LOST_SHARE: f64 = 0.01;

struct Share {
    tenant: Uuid,
    weight: usize,
    job_ms: u64,
    jobs: usize,
}

/// Measures the figure.
pub async fn take(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let stamps = Stamps::listen().await?;
    let window = Duration::from_secs(size.seconds);
    let shares = shares(bed, window);
    let mut owner = bed.owner().await?;
    for (number, share) in shares.iter().enumerate() {
        // See `tenant_of`.
        let token = format!("{}NUMBER", number + 1);
        let args = format!(r#"{{"ms":{},"stamp":{{"port":{},"token":{token}}}}}"#, share.job_ms, stamps.port());
        backlog::commit(&mut owner, &[share.tenant], share.jobs, "sleep", &args).await?;
    }
    backlog::rebuild_index(bed).await?;
    for share in &shares {
        let (tenant, weight) = (share.tenant.to_string(), share.weight.to_string());
        bed.operate(&["queue", "limit", "default", "--tenant", &tenant, "--weight", &weight]).await?;
    }
    let _worker = bed.worker(SLOTS).await?;
    sleep(WARM_UP).await;
    let from_ns = now_ns();
    sleep(window).await;
    let until_ns = now_ns();
    let dry: i64 = sqlx::query_scalar(
        "select count(*) from unnest($1::uuid[]) t where not exists (select from jobs where tenant_id = t and finalized_at is null)",
    )
    .bind(shares.iter().map(|share| share.tenant).collect::<Vec<_>>())
    .fetch_one(&mut owner)
    .await?;
    ensure!(dry == 0, "{dry} tenants ran out of jobs before the window ended");
    judge(&shares, &stamps, from_ns, until_ns)
}

/// Job lengths from 1 to 100 ms in even logarithmic steps, weights from 1 to 8, and one and a half
/// times the jobs that each tenant can need if it gets its share, or an equal one.
fn shares(bed: &Bed, window: Duration) -> Vec<Share> {
    let last = count(bed.tenants.len() - 1);
    let weights: usize = (0..bed.tenants.len()).map(weight).sum();
    let seconds = (window + WARM_UP * 2).as_secs_f64() * count(SLOTS) * 1.5;
    let share = |(number, tenant): (usize, &crate::bed::Tenant)| {
        let job_ms = 100_f64.powf(count(number) / last).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive numbers")]
        let (job_ms, jobs) = (
            job_ms as u64,
            (seconds * (count(weight(number)) / count(weights)).max(1.0 / count(bed.tenants.len())) * 1_000.0 / job_ms)
                .ceil() as usize
                + SLOTS,
        );
        Share { tenant: tenant.id, weight: weight(number), job_ms, jobs }
    };
    bed.tenants.iter().enumerate().map(share).collect()
}

const fn weight(number: usize) -> usize {
    1 + (number * 3) % 8
}

fn judge(shares: &[Share], stamps: &Stamps, from_ns: i64, until_ns: i64) -> Result<Vec<Measured>> {
    let (mut worked_ms, mut whole, mut lost) = (vec![0.0; shares.len()], 0, 0);
    for (token, runs) in stamps.heard() {
        match within(&runs, from_ns, until_ns) {
            Some(ms) => {
                whole += 1;
                worked_ms[tenant_of(token)?] += ms;
            }
            None => lost += 1,
        }
    }
    ensure!(count(lost) <= count(whole) * LOST_SHARE + count(SLOTS), "{lost} stamps were lost of {whole}");
    let shared: Vec<f64> = worked_ms.iter().zip(shares).map(|(ms, share)| ms / count(share.weight)).collect();
    let busy = worked_ms.iter().sum::<f64>() / (ms_between(from_ns, until_ns) * count(SLOTS));
    let (least, most) =
        (shared.iter().copied().fold(f64::INFINITY, f64::min), shared.iter().copied().fold(0.0, f64::max));
    Ok(vec![
        Measured::new("Jain index, 20 tenants, jobs 1 to 100 ms, weights 1 to 8", jain(&shared), "").at_least(0.98),
        Measured::new("  least served over most served tenant", least / most, ""),
        Measured::new("  slots in use", busy * 100.0, "%"),
    ])
}

/// The part of a run inside the window; `None` if the run has not ended, or one of its stamps was
/// lost.
fn within(runs: &Runs, from_ns: i64, until_ns: i64) -> Option<f64> {
    let (start, end) = (*runs.starts.first()?, *runs.ends.first()?);
    Some(ms_between(start.clamp(from_ns, until_ns), end.clamp(from_ns, until_ns)))
}

fn tenant_of(token: u64) -> Result<usize> {
    Ok(usize::try_from(token / TOKENS_OF_A_TENANT)? - 1)
}

fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), value| (sum + value, squares + value * value));
    sum * sum / (count(values.len()) * squares)
}
