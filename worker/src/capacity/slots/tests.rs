//! Which tenant gets a slot, and when.

use futures::future::FutureExt as _;
use tokio::time::timeout;
use uuid::Uuid;

use super::{state::SELDOM, *};

const PATIENCE: Duration = Duration::from_secs(10);

fn slots(count: usize, average: Duration) -> Arc<Slots<usize>> {
    Slots::new(count, Arc::new(AtomicU64::new(u64::try_from(average.as_micros()).unwrap())))
}

fn tenant(number: u128) -> TenantId {
    TenantId::new(Uuid::from_u128(number))
}

/// Sets the state as if all slots had been taken and became free one after the other.
fn ends_came_often(slots: &Arc<Slots<usize>>) {
    let mut state = slots.lock();
    (state.between_ends, state.ended_at) = (Duration::ZERO, Instant::now());
}

/// Adds a job and expects it to start at once.
fn begin(slots: &Arc<Slots<usize>>, tenant: TenantId, job: usize) -> Slot<usize> {
    let mut slot = slots.enter(tenant, job).expect("a slot is free");
    assert_eq!(slot.next(), Some(job));
    slot
}

#[tokio::test]
async fn the_tenant_with_the_fewest_running_jobs_is_next_regardless_of_arrival() {
    let slots = slots(3, Duration::from_micros(1));
    let (busy, quiet) = (tenant(1), tenant(2));
    let mut held: Vec<_> = (0..3).map(|job| begin(&slots, busy, job)).collect();
    assert!(slots.enter(busy, 3).is_none() && slots.enter(quiet, 4).is_none());
    assert_eq!(held[0].next(), Some(4));
    assert_eq!(held[0].next(), Some(3), "the next slot goes to the other tenant");
    assert_eq!(held[0].next(), None);
    assert_eq!(slots.busy_and_free(), (2, 1));
}

/// Handlers that block their threads delay the start of jobs, but not the choice of the tenant: a
/// tenant that arrived later can still be next.
#[tokio::test]
async fn a_slot_chooses_its_job_once_it_has_a_thread() {
    let slots = slots(3, Duration::from_micros(1));
    let (busy, quiet) = (tenant(1), tenant(2));
    let mut taken: Vec<_> = (0..3).map(|job| slots.enter(busy, job).expect("a slot is free")).collect();
    assert!(slots.enter(busy, 3).is_none() && slots.enter(quiet, 4).is_none());
    let begun: Vec<_> = taken.iter_mut().map(Slot::next).collect();
    assert_eq!(begun, [Some(4), Some(0), Some(1)]);
    assert_eq!(slots.busy_and_free(), (3, 0));
    taken.clear();
    assert_eq!(slots.busy_and_free(), (0, 3));
}

#[tokio::test]
async fn a_job_taken_out_costs_no_slot() {
    let slots = slots(1, Duration::from_micros(1));
    let mut taken = slots.enter(tenant(1), 1).expect("a slot is free");
    assert!(slots.enter(tenant(2), 2).is_none());
    assert!(slots.take_out_after(PATIENCE).is_empty());
    assert_eq!(slots.take_out().len(), 2);
    assert_eq!(taken.next(), None);
    assert_eq!(slots.busy_and_free(), (0, 1));
    assert_eq!(taken.next(), None, "the slot is released once");
    drop(taken);
    assert_eq!(slots.busy_and_free(), (0, 1));
    drop(slots.enter(tenant(1), 3));
    let mut due = timeout(PATIENCE, slots.due()).await.expect("the slot is free, and a job waits");
    assert_eq!(due.next(), Some(3));
}

/// For jobs of one hour the pace is one start per millisecond: jobs taken out before they start
/// must not count.
#[tokio::test]
async fn a_job_taken_out_uses_up_no_start() {
    let (slots, busy) = (slots(2, Duration::from_hours(1)), tenant(1));
    let (_long, short) = (begin(&slots, busy, 0), begin(&slots, busy, 1));
    assert!((2..5_002).all(|job| slots.enter(busy, job).is_none()));
    assert_eq!(slots.take_out().len(), 5_000);
    drop(short);
    assert!(slots.enter(busy, 5_002).is_some(), "no start was used up by jobs that were taken out");
}

/// With 20 slots and jobs of 5 ms, 4 slots become free per millisecond, so at most 5 jobs start at
/// once.
#[tokio::test]
async fn slots_freed_together_are_filled_one_after_the_other() {
    let slots = slots(20, Duration::from_millis(5));
    let busy = tenant(1);
    ends_came_often(&slots);
    let mut held: Vec<_> = (0..20).map(|job| begin(&slots, busy, job)).collect();
    assert!((20..40).all(|job| slots.enter(busy, job).is_none()));
    let last = held.pop();
    drop(held);
    // Longer than the time over which unused starts accumulate.
    std::thread::sleep(5 * TICK);
    let mut begun = Vec::new();
    while let Some(mut slot) = slots.due().now_or_never() {
        assert!(slot.next().is_some());
        begun.push(slot);
    }
    assert!((1..=12).contains(&begun.len()), "{} jobs started at once", begun.len());
    // A tenant without running jobs is not paced.
    drop(begin(&slots, tenant(2), 40));
    drop(last);
    while begun.len() < 19 {
        let mut slot =
            timeout(PATIENCE, slots.due()).await.expect("in the end all jobs start except in the reserved slot");
        assert!(slot.next().is_some());
        begun.push(slot);
    }
    assert_eq!(slots.busy_and_free(), (19, 1));
}

/// Newly active tenants find a free slot, until none has arrived for a while.
#[tokio::test]
async fn one_slot_of_twenty_is_reserved_while_newly_active_tenants_arrive() {
    let slots = slots(20, Duration::from_micros(1));
    let (busy, quiet) = (tenant(1), tenant(2));
    let mut held: Vec<_> = (0..18).map(|job| begin(&slots, busy, job)).collect();
    drop(begin(&slots, quiet, 18));
    held.push(begin(&slots, busy, 19));
    assert!(slots.enter(busy, 20).is_none(), "the slot is reserved");
    drop(begin(&slots, quiet, 21));
    assert!(slots.due().now_or_never().is_none(), "the slot is reserved again");
    let came_at = Instant::now();
    let mut last = loop {
        assert!(came_at.elapsed() < PATIENCE, "the reservation did not end");
        ends_came_often(&slots);
        if let Some(slot) = slots.due().now_or_never() {
            break slot;
        }
        tokio::time::sleep(SELDOM / 5).await;
    };
    assert_eq!(last.next(), Some(20));
    assert!(came_at.elapsed() > RECENT_WINDOW / 2, "{:?}", came_at.elapsed());
}

/// Without a reserved slot, a newly active tenant would wait for the end of a long run.
#[tokio::test]
async fn one_slot_of_twenty_is_reserved_while_runs_are_long() {
    let slots = slots(20, Duration::from_hours(1));
    let (busy, quiet) = (tenant(1), tenant(2));
    for job in 0..100 {
        assert_eq!(begin(&slots, quiet, job).next(), None, "runs end often, but beside free slots");
    }
    assert_eq!(slots.reserved_for_newly_active(), 1, "no other tenant's job is worth fetching for the reserved slot");
    let mut held: Vec<_> = (0..19).map(|job| begin(&slots, busy, job)).collect();
    assert!(slots.enter(busy, 19).is_none() && slots.due().now_or_never().is_none(), "the slot is reserved");
    let newly_active = begin(&slots, quiet, 20);
    assert!(!slots.are_soon_free());
    drop(newly_active);
    assert!(slots.are_soon_free());
    std::thread::sleep(2 * TICK);
    assert_eq!(held[0].next(), Some(19), "a second free slot is not reserved");
}

#[tokio::test]
async fn a_lone_tenant_gets_all_slots_and_few_slots_are_not_reserved() {
    let lone = slots(20, Duration::from_micros(1));
    ends_came_often(&lone);
    assert_eq!(lone.reserved_for_newly_active(), 0);
    let mut held: Vec<_> = (0..20).map(|job| begin(&lone, tenant(1), job)).collect();
    let few = slots(9, Duration::from_micros(1));
    held.push(begin(&few, tenant(1), 0));
    drop(begin(&few, tenant(2), 1));
    held.extend((2..10).map(|job| begin(&few, tenant(1), job)));
    assert_eq!(few.busy_and_free(), (9, 0));
}

#[tokio::test]
async fn an_average_of_past_long_jobs_does_not_stop_short_jobs() {
    let slots = slots(2, Duration::from_hours(1));
    let busy = tenant(1);
    let _other = begin(&slots, busy, 0);
    let mut slot = begin(&slots, busy, 1);
    for job in 2..102 {
        assert!(slots.enter(busy, job).is_none());
        drop(slot);
        slot = timeout(PATIENCE, slots.due()).await.expect("at least one start per millisecond");
        assert_eq!(slot.next(), Some(job));
    }
}
