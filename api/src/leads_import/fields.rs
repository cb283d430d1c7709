//! The unquoted fields of one record, in one buffer.
//!
//! Invariant: `ends` is ascending and within `bytes`. [`super::records`] fills it.

#[derive(Debug, Default)]
pub(super) struct Fields {
    pub bytes: Vec<u8>,
    pub ends: Vec<usize>,
}

impl Fields {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no field has a value.
    pub fn is_empty(&self) -> bool {
        self.iter().all(is_blank)
    }

    /// Sets the number of fields to `width`; returns false if that would drop a value.
    pub fn fit(&mut self, width: usize) -> bool {
        if self.iter().skip(width).any(|field| !is_blank(field)) {
            return false;
        }
        self.ends.resize(width, self.bytes.len());
        true
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(&start, &end)| &self.bytes[start..end])
    }
}

/// Whether a field has only white space of any script or invisible characters.
fn is_blank(field: &[u8]) -> bool {
    let invisible = |c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}' | '\0' | '\u{1a}');
    std::str::from_utf8(field).is_ok_and(|text| text.chars().all(invisible))
}
