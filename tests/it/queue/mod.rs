//! The queue engine: from commit to finish, and through every loss between.

mod lifecycle;
