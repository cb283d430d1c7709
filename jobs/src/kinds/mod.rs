//! The kinds: one file each. To add one, write its file and add its line to [`all`].

pub mod testing;

use crate::registry::Kind;

/// The kinds that are always there.
pub fn all() -> Vec<Kind> {
    vec![]
}
