//! The addresses seen in the file, and the current batch of rows with distinct addresses.
//!
//! Invariant: a batch holds each address at most once, so that a store can upsert it in one
//! statement; a seen address costs 24 bytes, whatever its length.
//! [`super::LeadsReader::next_batch`] uses both.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use shared::email_address::EmailAddress;

use super::row::LeadRow;

/// A thousand rows at the row limit would hold 64 MiB; a batch ends at this many bytes of values,
/// however few its rows.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Half of a SHA-256: among 2^17 addresses two collide by chance once in 2^95 files, and a
/// collision cannot be constructed.
type Fingerprint = [u8; 16];

/// Each address of the file with the line of its first appearance.
#[derive(Default)]
pub(super) struct Seen(HashMap<Fingerprint, u64>);

impl Seen {
    /// The line of an address's first appearance; `None` for a new address, which is then
    /// remembered.
    pub fn insert(&mut self, email: &EmailAddress, line: u64) -> Option<u64> {
        let first = *self.0.entry(fingerprint(email)).or_insert(line);
        (first != line).then_some(first)
    }
}

fn fingerprint(email: &EmailAddress) -> Fingerprint {
    let mut half = Fingerprint::default();
    let digest = Sha256::digest(email.key());
    half.copy_from_slice(&digest[..size_of::<Fingerprint>()]);
    half
}

/// Rows with distinct addresses, in the order of the file.
#[derive(Default)]
pub(super) struct Batch {
    rows: Vec<LeadRow>,
    /// Index of an address's row, by the line of the address's first appearance.
    places: HashMap<u64, usize>,
    size_bytes: usize,
}

impl Batch {
    pub fn is_full(&self, max_rows: usize) -> bool {
        self.rows.len() >= max_rows.max(1) || self.size_bytes >= MAX_BATCH_BYTES
    }

    pub fn push(&mut self, row: LeadRow) {
        self.place(row.line, row);
    }

    /// Adds a row whose address first appeared on line `first`: merged into that row if the batch
    /// has it, else as a row of its own.
    pub fn merge(&mut self, mut row: LeadRow, first: u64) {
        row.keep_filled();
        if let Some(&place) = self.places.get(&first) {
            self.rows[place].variables.append(&mut row.variables);
        } else {
            row.duplicate_of_line = Some(first);
            self.place(first, row);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn into_rows(self) -> Vec<LeadRow> {
        self.rows
    }

    fn place(&mut self, first: u64, row: LeadRow) {
        self.size_bytes += row.size_bytes();
        self.places.insert(first, self.rows.len());
        self.rows.push(row);
    }
}
