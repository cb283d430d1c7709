//! Tenant A attacks shared resources while tenant B works: one file per shared resource of the
//! isolation rules.
//!
//! Invariant: B's p99 stays within twice its undisturbed value plus 20 ms, no process ends, no
//! lease is lost, nothing runs twice. A separate program, because it measures: a debug build only
//! shows that B is not starved, bin/hostile enforces the bound. A is `Installation::tenant`, B is
//! `Installation::neighbour`, measured by [`neighbour::Neighbour`].

mod backlog;
mod cascades;
mod commits;
mod edges;
mod floods;
mod http2;
mod lists;
mod locks;
mod neighbour;
mod relay;
mod runtime;
mod sign_ins;
mod templates;
mod uploads;
mod webhooks;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::installation::Installation;
use tokio::sync::Mutex;

use self::neighbour::Neighbour;

/// Attacks saturate the machine, so they run one at a time.
static ATTACK: Mutex<()> = Mutex::const_new(());

const PROBES: usize = 100;
/// A hiccup of the machine spoils one round; an effective attack spoils all of them.
const ROUNDS: usize = 3;

/// Measures B undisturbed and during `attack`, and checks that no job is lost or repeated and no
/// process has ended.
#[expect(clippy::print_stdout, reason = "prints figures for comparison")]
async fn unharmed(rota: &mut Installation, attack: impl AsyncFn() -> Result<()>) -> Result<()> {
    let _alone = ATTACK.lock().await;
    let neighbour = Neighbour::new(rota).await?;
    neighbour.work(PROBES / 5).await?;
    let mut verdict = Ok(());
    for _ in 0..ROUNDS {
        let alone = neighbour.work(PROBES).await?;
        let (attacked, beside) = tokio::join!(attack(), neighbour.work(PROBES));
        attacked.context("the attack itself")?;
        let beside = beside?;
        println!("p99 {:?} during the attack, {:?} undisturbed", beside.p99(), alone.p99());
        verdict = beside.ensure_like(&alone);
        if verdict.is_ok() {
            break;
        }
    }
    ensure_whole(rota, &neighbour)?;
    verdict
}

/// Measures B for `span` after `attack` has been started: no job may take longer than `longest`.
/// There is only one round.
#[expect(clippy::print_stdout, reason = "prints figures for comparison")]
async fn never_held_off(
    rota: &mut Installation,
    attack: impl AsyncFn() -> Result<()>,
    span: Duration,
    longest: Duration,
) -> Result<()> {
    let _alone = ATTACK.lock().await;
    let neighbour = Neighbour::new(rota).await?;
    neighbour.work(PROBES / 5).await?;
    attack().await.context("the attack itself")?;
    let beside = neighbour.work_for(span).await?;
    println!("p99 {:?}, the longest {:?} during the attack", beside.p99(), beside.longest());
    ensure_whole(rota, &neighbour)?;
    ensure!(beside.longest() <= longest, "a job took {:?}, the limit is {longest:?}", beside.longest());
    Ok(())
}

fn ensure_whole(rota: &mut Installation, neighbour: &Neighbour) -> Result<()> {
    neighbour.ensure_once()?;
    let ended = rota.ended_by_themselves()?;
    ensure!(ended.is_empty(), "ended: {ended:?}");
    Ok(())
}
