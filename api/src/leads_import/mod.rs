//! Reads leads from a CSV file: turns a stream of bytes into batches of valid rows and a report on
//! the others.
//!
//! Invariant: every data row is counted exactly once, so that in the report
//! `accepted + duplicates_merged + invalid = rows_read`; and the limits of [`ImportOptions`] bound
//! the memory, whatever the input. This module does not use a database: the caller stores the
//! batches in one transaction and rolls it back when the report says `refused`.
//!
//! Data flow: [`lines`] finds physical lines, [`records`] joins them into CSV records (delimited
//! and quoted according to [`dialect`]), [`header`] maps columns to variables (named by [`names`]),
//! [`row`] checks one record, [`duplicates`] tracks seen addresses, and [`report`] collects the
//! result for the client.

mod dialect;
mod duplicates;
mod error;
mod fields;
mod header;
mod lines;
mod names;
mod options;
mod problem;
mod records;
mod report;
mod row;
#[cfg(test)]
mod tests;

use tokio::io::AsyncRead;

use duplicates::{Batch, Seen};
use header::Header;
use records::Records;
use report::Reporter;

pub use error::ImportError;
pub use names::{MAX_NAME_LENGTH, RESERVED_NAMES};
pub use options::{Delimiter, ImportLimits, ImportOptions, OnError};
pub use problem::{RowCode, RowProblem};
pub use report::{Column, Duplicate, ImportReport, RowError};
pub use row::LeadRow;

/// Rows read before the task yields to others on its thread: a megabyte at most.
const ROWS_A_TURN: u64 = 16;

/// A CSV file being imported.
pub struct LeadsReader<R> {
    records: Records<R>,
    header: Header,
    seen: Seen,
    reporter: Reporter,
    options: ImportOptions,
}

impl<R: AsyncRead + Unpin> LeadsReader<R> {
    /// Reads up to the header and assigns a variable to each column.
    pub async fn open(source: R, options: ImportOptions) -> Result<Self, ImportError> {
        let mut records = Records::open(source, options.delimiter, &options.limits).await?;
        let record = records.next().await?.ok_or(ImportError::Empty)?;
        let header = Header::read(record, &options)?;
        records.expect_fields(header.width());
        let reporter = Reporter::new(header.columns(), options.on_error);
        Ok(Self { records, header, seen: Seen::default(), reporter, options })
    }

    /// The columns of the file with the variables they fill.
    pub fn columns(&self) -> &[Column] {
        self.header.columns()
    }

    /// Returns up to `max` rows whose addresses differ by
    /// [`shared::email_address::EmailAddress::key`], so that one statement can upsert them. A batch
    /// of very long rows ends early, at 4 MiB; only an empty batch is the end of the file.
    ///
    /// A repeated address fills and overrides the variables of its first row. Within a batch this
    /// is done here; across batches the row is returned again with `duplicate_of_line` set and only
    /// its non-empty variables.
    ///
    /// Under [`OnError::Refuse`] no more rows are returned after the first bad row, but the file is
    /// read to its end, so that the report lists all bad rows at once.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<LeadRow>, ImportError> {
        let mut batch = Batch::default();
        while !batch.is_full(max) {
            let Some(record) = self.records.next().await? else {
                break;
            };
            self.reporter.count_row(self.options.limits.rows)?;
            // A source that never waits, such as a string in memory, would otherwise occupy the
            // thread for the whole file.
            if self.reporter.rows_read().is_multiple_of(ROWS_A_TURN) {
                tokio::task::yield_now().await;
            }
            match row::read(&record, &self.header, self.options.limits.field_bytes) {
                Err(fault) => self.reporter.refuse(record.line, &fault),
                Ok(row) => self.place(row, &mut batch),
            }
            if self.reporter.is_refused() {
                batch.clear();
            }
        }
        Ok(batch.into_rows())
    }

    /// The report on the rows read so far: on the whole file once `next_batch` returned an empty
    /// batch.
    pub fn finish(self) -> ImportReport {
        self.reporter.finish()
    }

    fn place(&mut self, row: LeadRow, batch: &mut Batch) {
        if let Some(first) = self.seen.insert(&row.email, row.line) {
            self.reporter.merge(row.line, first);
            batch.merge(row, first);
        } else {
            self.reporter.accept();
            batch.push(row);
        }
    }
}
