//! What one mail's rendering may cost: bytes and elements touched, and processor time.
//!
//! minijinja's fuel counts instructions, but one instruction (a filter, an output) may work on a text of any length. Invariant: every
//! filter, test and output pays here for all it reads and makes, every iteration looks at the clock (`scan` sees to that), and nothing
//! continues once the budget is spent. The budget belongs to the thread, because minijinja's operators reach no other state.

use std::{cell::Cell, time::Duration};

use minijinja::{Error, ErrorKind, Value, value::ValueKind};
use shared::compute::thread_time;

/// Bytes and elements that one mail may touch: eight megabytes take some ten milliseconds.
const UNITS: usize = 8 * 1024 * 1024;
/// Processor time of one mail, for what the units do not measure well. Unoptimised programs take several times as long.
const TIME: Duration = Duration::from_millis(if cfg!(debug_assertions) { 250 } else { 50 });
/// Units of a filter, a test or an output beside what it touches.
const CALL: usize = 64;
/// Units of an element of a list or map beside its own.
const ELEMENT: usize = 16;
/// Units after which the clock is read again.
const CLOCK_EVERY: usize = 16 * 1024;

thread_local! {
    static BUDGET: Cell<Option<Budget>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Budget {
    units: usize,
    until_clock: usize,
    end: Duration,
}

/// Runs `render` within a budget of its own.
pub(super) fn within<T>(render: impl FnOnce() -> T) -> T {
    struct Reset(Option<Budget>);
    impl Drop for Reset {
        fn drop(&mut self) {
            BUDGET.set(self.0);
        }
    }
    let _reset = Reset(BUDGET.get());
    BUDGET.set(Some(Budget { units: UNITS, until_clock: CLOCK_EVERY, end: thread_time() + TIME }));
    render()
}

/// Pays for work that is about to be done.
pub(super) fn spend(units: usize) -> Result<(), Error> {
    let Some(mut budget) = BUDGET.get() else { return Ok(()) };
    budget.units = budget.units.saturating_sub(units);
    budget.until_clock = budget.until_clock.saturating_sub(units);
    if budget.until_clock == 0 {
        budget.until_clock = CLOCK_EVERY;
        if thread_time() >= budget.end {
            budget.units = 0;
        }
    }
    BUDGET.set(Some(budget));
    if budget.units == 0 { Err(Error::from(ErrorKind::OutOfFuel)) } else { Ok(()) }
}

/// Looks at the clock, however little was paid since the last look.
pub(super) fn look() -> Result<(), Error> {
    if let Some(budget) = BUDGET.get() {
        BUDGET.set(Some(Budget { until_clock: 0, ..budget }));
    }
    spend(CALL)
}

/// Units of all that a value holds; stops counting where no budget would suffice.
pub(super) fn weight(value: &Value) -> usize {
    let mut units = 0;
    add_weight(value, &mut units);
    units
}

fn add_weight(value: &Value, units: &mut usize) {
    *units += ELEMENT + text_bytes(value);
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return;
    }
    for item in value.try_iter().into_iter().flatten() {
        if *units >= UNITS {
            return;
        }
        if is_map && let Ok(member) = value.get_item(&item) {
            add_weight(&member, units);
        }
        add_weight(&item, units);
    }
}

/// Units of a value of which only a text is read as a whole: of a list its elements count, not what they hold.
pub(super) fn surface(value: &Value) -> usize {
    text_bytes(value) + value.len().unwrap_or_default()
}

fn text_bytes(value: &Value) -> usize {
    value.as_bytes().map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_holds_to_its_last_unit_and_ends_with_its_run() {
        within(|| {
            assert!(spend(UNITS - 1).is_ok());
            assert_eq!(spend(1).expect_err("spent").kind(), ErrorKind::OutOfFuel);
            assert!(spend(0).is_err(), "nothing continues");
        });
        assert!(within(|| spend(UNITS - 1)).is_ok());
        assert!(spend(UNITS).is_ok(), "outside of a run nothing is counted");
    }

    #[test]
    fn time_is_bounded_where_units_are_not_spent() {
        within(|| {
            let end = thread_time() + TIME;
            while thread_time() < end {}
            assert!(spend(1).is_ok(), "between two looks");
            assert!(look().is_err());
        });
    }

    #[test]
    fn a_value_weighs_all_that_it_holds() {
        let text = Value::from("x".repeat(1_000));
        assert!(weight(&text) >= 1_000 && surface(&text) >= 1_000);
        let list = Value::from(vec![text; 10]);
        assert!(weight(&list) >= 10_000);
        assert!(surface(&list) < 1_000);
        assert!(weight(&Value::from(vec![list.clone(); 10])) >= 100_000);
        assert!(weight(&Value::from_iter([("key", list)])) >= 10_000);
    }
}
