//! A partition without statistics, as in the first minute of a month or of an installation:
//! statements that name jobs by id find them by the primary key.

use anyhow::Result;
use shared::queue::control;
use tests::system::TestSystem;
use uuid::Uuid;

use crate::queue::support::{Ledger, rows_read::counted_of_tenants};

const WAITING: u64 = 20_000;
const CANCELLED: i64 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_of_many_jobs_reads_only_their_rows() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut ledger = Ledger::open(&system).await?;
    ledger.fill(tenant, "available", WAITING).await?;
    let newest = sqlx::query_scalar("select id from jobs order by id desc limit $1");
    let ids: Vec<Uuid> = newest.bind(CANCELLED).fetch_all(&mut ledger.0).await?;
    let (cancelled, read) = counted_of_tenants(&system, &mut ledger, async |tenants| {
        let mut transaction = tenants.begin(tenant).await?;
        let (cancelled, _) = control::cancel_all(&mut transaction, &ids).await?;
        transaction.commit().await?;
        Ok(cancelled)
    })
    .await?;
    assert_eq!(cancelled.len(), ids.len());
    // Each row is read to be found, to be locked and to be updated.
    assert!(read < 10 * CANCELLED, "{read} rows were read to cancel {CANCELLED} of {WAITING} jobs");
    Ok(())
}
