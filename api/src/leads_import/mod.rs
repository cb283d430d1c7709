//! Reading leads from a CSV file: a stream of bytes becomes batches of valid rows and a report on the others.
//!
//! Invariant: every data row is counted exactly once, so that in the report
//! `accepted + duplicates_merged + invalid = rows_read`; and memory is bounded by the limits of [`ImportOptions`],
//! whatever the bytes are. Nothing here knows a database: the caller stores each batch in one transaction and, when
//! the report says `refused`, rolls it back.
//!
//! A file flows downhill: [`lines`] finds physical lines, [`records`] joins them into CSV records (delimited
//! and quoted as [`dialect`] tells), [`header`] maps columns to variables (named by [`names`]), [`row`] checks one
//! record, [`duplicates`] knows who was seen, and [`report`] tells the client.

mod dialect;
mod duplicates;
mod error;
mod fields;
mod header;
mod lines;
mod names;
mod options;
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
pub use report::{Column, Duplicate, ImportReport, RowError};
pub use row::{LeadRow, RowCode, RowProblem};

/// Rows read before other tasks of the thread have their turn: a megabyte at most.
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
    /// Reads as far as the header and decides what each column is.
    pub async fn open(source: R, options: ImportOptions) -> Result<Self, ImportError> {
        let mut records = Records::open(source, options.delimiter, &options.limits).await?;
        let record = records.next().await?.ok_or(ImportError::Empty)?;
        let header = Header::read(record, &options)?;
        records.expect_fields(header.width());
        let reporter = Reporter::new(header.columns(), options.on_error);
        Ok(Self { records, header, seen: Seen::default(), reporter, options })
    }

    /// What each column of the file becomes.
    pub fn columns(&self) -> &[Column] {
        self.header.columns()
    }

    /// Up to `max` rows with addresses that differ by [`shared::email_address::EmailAddress::key`], so that one
    /// statement can upsert them. A batch of very long rows ends early, at 4 MiB; only an empty one is the end.
    ///
    /// A repeated address fills and overrides the variables of its first row: within the batch that is done here, and
    /// across batches the row comes again with `duplicate_of_line` set and only its non-empty variables.
    ///
    /// Under [`OnError::Refuse`] nothing more is handed out after the first bad row, but the file is read to its end,
    /// so that the report names all bad rows at once.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<LeadRow>, ImportError> {
        let mut batch = Batch::default();
        while !batch.is_full(max) {
            let Some(record) = self.records.next().await? else {
                break;
            };
            self.reporter.count_row(self.options.limits.rows)?;
            // A source that never waits, as a text in memory, would otherwise keep the thread for the whole file.
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

    /// The report on what was read so far: of the whole file once `next_batch` gave an empty batch.
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
