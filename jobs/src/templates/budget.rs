//! The budget of rendering one mail: bytes and elements touched, and processor time.
//!
//! minijinja's fuel counts instructions, but one instruction (a filter, an output) may process a
//! text of any length. Invariant: every filter, test and output is charged here for everything that
//! it reads and produces, every iteration checks the clock (`scan` inserts that check), and nothing
//! continues once the budget is spent. The budget is per thread, because minijinja's operators have
//! no access to other state.

use std::{cell::Cell, time::Duration};

use minijinja::{Error, ErrorKind, Value, value::ValueKind};
use shared::compute::thread_time;

/// Maximum number of bytes and elements that one mail may touch: eight megabytes take some ten
/// milliseconds.
const UNITS: usize = 8 * 1024 * 1024;
/// Maximum processor time of one mail, for costs that the units do not measure well. Unoptimised
/// programs take several times as long.
const TIME: Duration = Duration::from_millis(if cfg!(debug_assertions) { 250 } else { 50 });
/// Units of a filter, a test or an output, in addition to what it touches.
const CALL: usize = 64;
/// Units of an element of a list or map, in addition to its value.
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

/// Runs `render` with its own budget.
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

/// Charges for work that is about to be done.
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

/// Checks the clock, however little was charged since the last check.
pub(super) fn look() -> Result<(), Error> {
    if let Some(budget) = BUDGET.get() {
        BUDGET.set(Some(Budget { until_clock: 0, ..budget }));
    }
    spend(CALL)
}

/// Units of everything that a value contains; stops counting once no budget would suffice.
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

/// Units of a value that is read as a whole only if it is a text: for a list, its elements count,
/// but not their contents.
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
    fn a_budget_is_exact_and_ends_with_its_run() {
        within(|| {
            assert!(spend(UNITS - 1).is_ok());
            assert_eq!(spend(1).expect_err("spent").kind(), ErrorKind::OutOfFuel);
            assert!(spend(0).is_err(), "nothing continues");
        });
        assert!(within(|| spend(UNITS - 1)).is_ok());
        assert!(spend(UNITS).is_ok(), "outside of a run nothing is counted");
    }

    #[test]
    fn time_is_bounded_even_if_no_units_are_spent() {
        within(|| {
            let end = thread_time() + TIME;
            while thread_time() < end {}
            assert!(spend(1).is_ok(), "between two looks");
            assert!(look().is_err());
        });
    }

    #[test]
    fn the_weight_of_a_value_includes_nested_values() {
        let text = Value::from("x".repeat(1_000));
        assert!(weight(&text) >= 1_000 && surface(&text) >= 1_000);
        let list = Value::from(vec![text; 10]);
        assert!(weight(&list) >= 10_000);
        assert!(surface(&list) < 1_000);
        assert!(weight(&Value::from(vec![list.clone(); 10])) >= 100_000);
        assert!(weight(&Value::from_iter([("key", list)])) >= 10_000);
    }
}
