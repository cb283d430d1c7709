//! Delays before a failed job runs again.

use std::time::Duration;

use rand::Rng as _;

/// Doubles from `first` up to `longest`, with full jitter over the upper half, so that jobs that
/// failed together (in an outage) are not retried together.
pub fn exponential(failures: u32, first: Duration, longest: Duration) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(30)));
    let ceiling = doubled.min(longest);
    ceiling.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::exponential;

    #[test]
    fn the_delay_doubles_up_to_the_longest() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_mins(1));
        for _ in 0..1_000 {
            for (failures, ceiling) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1_000, 60)] {
                let delay = exponential(failures, first, longest);
                assert!(
                    delay <= Duration::from_secs(ceiling) && delay >= Duration::from_secs(ceiling) / 2,
                    "{failures}: {delay:?}"
                );
            }
        }
    }
}
