//! CSV records of numbered lines: RFC 4180 with any of four delimiters, unquoted by `csv-core`.
//!
//! Invariant: a record is no longer than the row limit, and the bytes read twice are bounded, so
//! that an import takes time linear in the size of its file. Therefore `csv-core`, the engine of
//! `csv-async`, is driven directly: the reader of `csv-async` buffers a whole record, however long,
//! and one quote that is never closed would make the rest of the file one record.
//!
//! A record over several lines that does not end, does not fit the header or is loosely quoted is
//! treated as an open quote: only its first line is bad, and reading resumes at the second. Rows
//! are thus never swallowed silently.
//!
//! Spreadsheets omit trailing empty cells or add some: missing cells are filled in, surplus empty
//! cells are dropped, and a line without any value is not a row. [`super::dialect`] determines the
//! dialect and defines loose quoting.

use std::io;

use csv_core::{ReadRecordResult, ReaderBuilder, Terminator};
use tokio::io::AsyncRead;

use super::dialect;
use super::error::ImportError;
use super::fields::Fields;
use super::lines::{Line, Lines};
use super::options::{Delimiter, ImportLimits};
use super::problem::RowProblem;

/// Bytes of lines that one import may read a second time, over all recoveries. Once they are spent,
/// a broken record is rejected with all its lines.
const RESCAN_BUDGET: usize = 4 * 1024 * 1024;

/// One record: its unquoted fields, or why it has none.
#[derive(Debug)]
pub(super) struct Record {
    /// The physical line on which it begins.
    pub line: u64,
    /// The start of its text, shown to the client if the record is bad.
    pub raw: Vec<u8>,
    pub fields: Result<Fields, RowProblem>,
}

pub(super) struct Records<R> {
    lines: Lines<R>,
    parser: csv_core::Reader,
    delimiter: Delimiter,
    row_bytes: usize,
    expected: Option<usize>,
    rescan_budget: usize,
}

impl<R: AsyncRead + Unpin> Records<R> {
    /// Reads the first line to detect the delimiter; a given `delimiter` takes precedence.
    pub async fn open(source: R, delimiter: Option<Delimiter>, limits: &ImportLimits) -> Result<Self, ImportError> {
        let mut lines = Lines::new(source, limits.row_bytes);
        let found = find_delimiter(&mut lines).await?;
        let delimiter = delimiter.unwrap_or(found);
        let parser = ReaderBuilder::new().delimiter(delimiter.byte()).terminator(Terminator::Any(b'\n')).build();
        Ok(Self { lines, parser, delimiter, row_bytes: limits.row_bytes, expected: None, rescan_budget: RESCAN_BUDGET })
    }

    /// Sets the number of fields of the following records.
    pub fn expect_fields(&mut self, count: usize) {
        self.expected = Some(count);
    }

    /// The next record that has a value.
    pub async fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            match self.next_of_any_kind().await? {
                Some(Record { fields: Ok(fields), .. }) if fields.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    async fn next_of_any_kind(&mut self) -> io::Result<Option<Record>> {
        let Some(first) = next_filled(&mut self.lines).await? else {
            return Ok(None);
        };
        let line = first.number;
        let mut used = vec![first];
        let fields = match self.assemble(&mut used).await? {
            Ok(fields) => self.check(fields, &used),
            Err(problem) => Err(problem),
        };
        if matches!(fields, Err(RowProblem::UnclosedQuote)) {
            self.recover(&mut used);
        }
        let raw = used.swap_remove(0).bytes;
        Ok(Some(Record { line, raw, fields }))
    }

    /// Feeds the parser the first line of `used` and as many further lines, appended to `used`, as
    /// the record needs.
    async fn assemble(&mut self, used: &mut Vec<Line>) -> io::Result<Result<Fields, RowProblem>> {
        let mut fields = Fields::default();
        let mut filled = (0, 0);
        let mut read = 0;
        loop {
            let Some(line) = used.last() else {
                return Ok(Err(RowProblem::UnclosedQuote));
            };
            read += line.bytes.len();
            // The line ending of the last line is not part of the row.
            if line.too_long || read > self.row_bytes + 1 {
                return Ok(Err(match used.len() {
                    1 => self.abandon_record(RowProblem::RowTooLong),
                    _ => self.abandon_record(RowProblem::UnclosedQuote),
                }));
            }
            if self.feed(&line.bytes, &mut fields, &mut filled) {
                return Ok(Ok(fields));
            }
            match self.lines.next().await? {
                Some(line) => used.push(line),
                None => return Ok(Err(self.abandon_record(RowProblem::UnclosedQuote))),
            }
        }
    }

    /// Returns true when the record is complete.
    fn feed(&mut self, line: &[u8], fields: &mut Fields, filled: &mut (usize, usize)) -> bool {
        // With room for each byte as output and as a field end, the parser never stops for lack of
        // space.
        fields.bytes.resize(filled.0 + line.len() + 1, 0);
        fields.ends.resize(filled.1 + line.len() + 1, 0);
        let (result, _, bytes, ends) =
            self.parser.read_record(line, &mut fields.bytes[filled.0..], &mut fields.ends[filled.1..]);
        filled.0 += bytes;
        filled.1 += ends;
        fields.bytes.truncate(filled.0);
        fields.ends.truncate(filled.1);
        result == ReadRecordResult::Record
    }

    /// Resets the parser for the next record.
    fn abandon_record(&mut self, problem: RowProblem) -> RowProblem {
        self.parser.reset();
        problem
    }

    fn check(&self, mut fields: Fields, lines: &[Line]) -> Result<Fields, RowProblem> {
        let found = fields.len();
        let expected = self.expected.unwrap_or(found);
        if fields.is_empty() && lines.len() == 1 {
            return Ok(fields);
        }
        // A record over several lines with a wrong field count may have swallowed other rows; it
        // then contains their addresses.
        let has_swallowed = || found != expected && lines.iter().skip(1).any(|line| line.bytes.contains(&b'@'));
        let loose = || !dialect::is_strictly_quoted(lines.iter().map(|line| line.bytes.as_slice()), self.delimiter);
        if lines.len() > 1 && (found > expected || has_swallowed() || loose()) {
            Err(RowProblem::UnclosedQuote)
        } else if fields.fit(expected) {
            Ok(fields)
        } else {
            Err(RowProblem::FieldCount { found, expected })
        }
    }

    fn recover(&mut self, used: &mut Vec<Line>) {
        let rest = used.split_off(1);
        let bytes = rest.iter().map(|line| line.bytes.len()).sum();
        if let Some(left) = self.rescan_budget.checked_sub(bytes) {
            self.rescan_budget = left;
            self.lines.put_back(rest.into_iter());
        }
    }
}

async fn next_filled<R: AsyncRead + Unpin>(lines: &mut Lines<R>) -> io::Result<Option<Line>> {
    loop {
        match lines.next().await? {
            Some(line) if line.is_blank() => {}
            other => return Ok(other),
        }
    }
}

/// Detects the delimiter that the header uses most, outside quotes. A leading `sep=;` line, as
/// Excel writes it, takes precedence and is consumed.
async fn find_delimiter<R: AsyncRead + Unpin>(lines: &mut Lines<R>) -> Result<Delimiter, ImportError> {
    let line = loop {
        match next_filled(lines).await? {
            Some(line) if dialect::has_no_value(&line.bytes) => {}
            Some(line) => break line,
            None => return Err(ImportError::Empty),
        }
    };
    if line.bytes.starts_with(b"\xff\xfe") || line.bytes.starts_with(b"\xfe\xff") {
        return Err(ImportError::NotUtf8 { encoding: "UTF-16" });
    }
    if let Some(separator) = dialect::announced(&line.bytes) {
        let unknown = || {
            let reason = format!("it separates fields with {:?}; use , ; | or a tab", char::from(separator));
            ImportError::Header { line: line.number, reason }
        };
        return dialect::delimiter(separator).ok_or_else(unknown);
    }
    let found = dialect::most_frequent(&line.bytes);
    lines.put_back(std::iter::once(line));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str, expected: Option<usize>) -> Vec<(u64, Result<Vec<String>, RowProblem>)> {
        let limits = ImportLimits { row_bytes: 40, ..ImportLimits::default() };
        let mut records = Records::open(text.as_bytes(), None, &limits).await.unwrap();
        if let Some(count) = expected {
            records.expect_fields(count);
        }
        let mut all = Vec::new();
        while let Some(record) = records.next().await.unwrap() {
            let fields = record
                .fields
                .map(|fields| fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect());
            all.push((record.line, fields));
        }
        all
    }

    fn fields(line: u64, fields: &[&str]) -> (u64, Result<Vec<String>, RowProblem>) {
        (line, Ok(fields.iter().map(|&field| field.to_owned()).collect()))
    }

    #[tokio::test]
    async fn quotes_newlines_and_blank_lines_are_parsed() {
        let text = "a,b\r\n\r\n  \n\"x \"\"y\"\"\",\"1,2\"\n\"two\r\nlines\",z\nq\"q,\n";
        let want = [
            fields(1, &["a", "b"]),
            fields(4, &["x \"y\"", "1,2"]),
            fields(5, &["two\nlines", "z"]),
            fields(7, &["q\"q", ""]),
        ];
        assert_eq!(read(text, None).await, want);
    }

    #[tokio::test]
    async fn an_unclosed_quote_invalidates_one_line() {
        let open = |line| (line, Err(RowProblem::UnclosedQuote));
        // Up to the end of the file, beyond the row limit, and up to the next quote, which makes
        // the record too wide.
        assert_eq!(read("a,\"b\nc,d\n", Some(2)).await, [open(1), fields(2, &["c", "d"])]);
        let long = "x,".to_owned() + &"y".repeat(37);
        let text = format!("a,\"b\n{long}\nc,d\n");
        assert_eq!(read(&text, Some(2)).await[0], open(1));
        assert_eq!(read(&text, Some(2)).await.len(), 3);
        let text = "a,\"b\nc,d\ne,\"f\"\n";
        assert_eq!(read(text, Some(2)).await, [open(1), fields(2, &["c", "d"]), fields(3, &["e", "f"])]);
    }

    #[tokio::test]
    async fn the_row_size_limit_is_exact() {
        let text = format!("a,{}\nb,{}\nc,d\n", "x".repeat(38), "x".repeat(39));
        let rows = read(&text, Some(2)).await;
        assert!(rows[0].1.is_ok());
        assert_eq!(rows[1], (2, Err(RowProblem::RowTooLong)));
        assert_eq!(rows[2], fields(3, &["c", "d"]));
    }

    #[tokio::test]
    async fn a_wrong_field_count_is_reported() {
        let want = RowProblem::FieldCount { found: 3, expected: 2 };
        assert_eq!(read("a,b,c\n", Some(2)).await, [(1, Err(want))]);
    }

    #[tokio::test]
    async fn rows_are_padded_or_trimmed_and_empty_rows_skipped() {
        let text = "a,b,c\n\n,,\n \t, ,\n\"\",\"\"\n\u{a0},\u{feff}\nd\ne,f\ng,h,i,,, \n\"j\nk\"\n\x1a";
        let want = [
            fields(1, &["a", "b", "c"]),
            fields(7, &["d", "", ""]),
            fields(8, &["e", "f", ""]),
            fields(9, &["g", "h", "i"]),
            fields(10, &["j\nk", "", ""]),
        ];
        assert_eq!(read(text, Some(3)).await, want);
    }

    #[tokio::test]
    async fn a_short_record_spanning_lines_with_addresses_is_an_unclosed_quote() {
        let text = "a@x.test,\"b,c\nd@x.test,\"\ne@x.test,f,g\n";
        let rows = read(text, Some(3)).await;
        assert_eq!(rows[0], (1, Err(RowProblem::UnclosedQuote)));
        assert_eq!(rows.last(), Some(&fields(3, &["e@x.test", "f", "g"])));
    }
}
