//! Many concurrent clients while PostgreSQL is down or the table of jobs is locked: each is refused
//! in time.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::join_all;
use sqlx::{Connection as _, PgConnection};

use super::{JOBS, SOON, Scene, accepted, is_accepted, noop};
use crate::api::{PATIENCE, draft};

/// Concurrent clients.
const MANY: usize = 250;
/// The bound on the time until a refusal, on a busy machine.
const REFUSED: Duration = shared::patience::PATIENCE.saturating_add(Duration::from_millis(2_500));

/// All of many concurrent requests, whichever part of the ledger they need.
#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_many_clients_are_refused_in_time() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    // One key is cached, the other has to be looked up.
    let (known, unknown) = (scene.app.tenant("known").await?.api, scene.app.tenant("unknown").await?.api);
    accepted(&known, "before", PATIENCE).await;
    scene.postgres.stop_immediate().await?;
    let (known, unknown) = (&known, &unknown);
    let answers = join_all((0..MANY).map(|number| async move {
        let api = if number % 2 == 0 { known } else { unknown };
        let began = Instant::now();
        let answer = match number % 3 {
            0 => api.get(JOBS).await?,
            1 => api.post_once("/api/v1/campaigns", &format!("campaign {number}"), &draft()).await?,
            _ => api.post_once(JOBS, &format!("job {number}"), &noop()).await?,
        };
        anyhow::Ok((answer, began.elapsed()))
    }))
    .await;
    for answer in answers {
        let (answer, waited) = answer?;
        assert!(!is_accepted(&answer)?, "PostgreSQL was down: {}", answer.text);
        assert!(waited < REFUSED, "{waited:?}");
    }
    scene.postgres.start().await?;
    accepted(unknown, "after", SOON).await;
    accepted(known, "before", SOON).await;
    Ok(())
}

/// As an operator's migration may lock it.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_table_lock_clients_are_refused_in_time_and_keys_stay_valid() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    let api = scene.app.tenant("acme").await?.api;
    accepted(&api, "before", PATIENCE).await;
    let mut owner = PgConnection::connect(&scene.owner).await?;
    let mut holder = owner.begin().await?;
    sqlx::query("lock table jobs in access exclusive mode").execute(&mut *holder).await?;
    let api = &api;
    let ask = async |number: usize| {
        let began = Instant::now();
        let answer = if number.is_multiple_of(4) {
            api.get(JOBS).await?
        } else {
            api.post_once(JOBS, &format!("during {number}"), &noop()).await?
        };
        anyhow::Ok((answer, began.elapsed()))
    };
    let asked = join_all((0..40).map(ask)).await;
    for answer in asked {
        let (answer, waited) = answer?;
        assert!(!is_accepted(&answer)?, "the table was locked: {}", answer.text);
        assert!(waited < REFUSED, "{waited:?}");
    }
    holder.rollback().await?;
    for number in (0..40).filter(|number| number % 4 != 0) {
        let key = format!("during {number}");
        let first = accepted(api, &key, SOON).await;
        let again = accepted(api, &key, SOON).await;
        assert_eq!(first.id(), again.id());
    }
    assert_eq!(scene.count("true").await?, 31, "one job per key");
    Ok(())
}
