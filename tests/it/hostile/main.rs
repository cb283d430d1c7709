//! Tenant A attacks what all tenants share while tenant B works: one file for each shared resource of the isolation rules.
//!
//! Invariant: B's p99 stays within twice its value alone plus 20 ms, no process ends, no lease is lost, nothing runs twice.
//! A program of its own, because it measures: in a debug build it shows that B is not held off, bin/hostile holds the bar.
//! A is `Installation::tenant`, B is `Installation::neighbour`, measured by [`neighbour::Neighbour`].

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
mod templates;
mod uploads;
mod webhooks;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::installation::Installation;
use tokio::sync::Mutex;

use self::neighbour::Neighbour;

/// Attacks saturate the machine, so they run one after the other.
static ATTACK: Mutex<()> = Mutex::const_new(());

const PROBES: usize = 100;
/// A hiccup of the machine spoils a round; an attack that works spoils each.
const ROUNDS: usize = 3;

/// Measures B alone and beside `attack`, and checks that nothing was lost, repeated or ended by it.
#[expect(clippy::print_stdout, reason = "for who compares figures")]
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
        println!("p99 {:?} beside the attack, {:?} alone", beside.p99(), alone.p99());
        verdict = beside.ensure_like(&alone);
        if verdict.is_ok() {
            break;
        }
    }
    ensure_whole(rota, &neighbour)?;
    verdict
}

/// Measures B beside an attack that has been made and lasts for `span`: none of its jobs takes longer than `longest`, at the first try.
#[expect(clippy::print_stdout, reason = "for who compares figures")]
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
    println!("p99 {:?}, the longest {:?} beside the attack", beside.p99(), beside.longest());
    ensure_whole(rota, &neighbour)?;
    ensure!(beside.longest() <= longest, "a job took {:?}, {longest:?} at the most is right", beside.longest());
    Ok(())
}

fn ensure_whole(rota: &mut Installation, neighbour: &Neighbour) -> Result<()> {
    neighbour.ensure_once()?;
    let ended = rota.ended_by_themselves()?;
    ensure!(ended.is_empty(), "ended: {ended:?}");
    Ok(())
}
