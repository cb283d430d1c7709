//! The scheduler process: one leader of N promotes, rescues, sweeps, reconciles and cleans up.
