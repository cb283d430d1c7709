//! The header: which column is the address, and which variable each other column fills.
//!
//! Invariant: exactly one column is the address, and no two columns fill one variable. Names come
//! from the caller's mapping first and from [`super::names`] otherwise; an ambiguous header is
//! rejected.

use std::collections::BTreeMap;

use super::error::ImportError;
use super::fields::Fields;
use super::names::{self, MAX_NAME_LENGTH};
use super::options::ImportOptions;
use super::records::Record;
use super::report::{Column, shown};

/// The variable of the address, in mappings and reports.
const EMAIL: &str = "email";

/// Names of an address column, after [`names::from_column`].
const EMAIL_NAMES: &[&str] = &[
    EMAIL,
    "e_mail",
    "mail",
    "email_address",
    "e_mail_address",
    "mail_address",
    "emailaddress",
    "mailaddress",
    "email_adresse",
    "e_mail_adresse",
    "mail_adresse",
    "emailadresse",
    "mailadresse",
];

#[derive(Debug)]
pub(super) struct Header {
    columns: Vec<Column>,
    email: usize,
}

impl Header {
    pub fn read(record: Record, options: &ImportOptions) -> Result<Self, ImportError> {
        let line = record.line;
        let fields = record.fields.map_err(|problem| ImportError::Header { line, reason: problem.to_string() })?;
        let names = column_names(&fields)?;
        if names.len() > options.limits.columns {
            let limit = options.limits.columns;
            return Err(ImportError::TooManyColumns { found: names.len(), limit });
        }
        let mapped = resolve_mapping(&names, &options.mapping)?;
        let email = find_email(&names, &mapped)?;
        let columns = name_variables(&names, &mapped, email)?;
        Ok(Self { columns, email })
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub fn width(&self) -> usize {
        self.columns.len()
    }

    pub fn is_email(&self, index: usize) -> bool {
        index == self.email
    }
}

fn column_names(fields: &Fields) -> Result<Vec<String>, ImportError> {
    let read = |field: &[u8]| {
        if field.contains(&0) {
            return Err(ImportError::NotUtf8 { encoding: "UTF-16 or binary" });
        }
        let name = std::str::from_utf8(field)
            .map_err(|_| ImportError::NotUtf8 { encoding: "another encoding, such as Latin-1" })?;
        Ok(name.trim().to_owned())
    };
    fields.iter().map(read).collect()
}

/// Maps the index of a column to the variable that the caller assigned to it.
fn resolve_mapping<'a>(
    columns: &[String],
    mapping: &'a BTreeMap<String, String>,
) -> Result<BTreeMap<usize, &'a str>, ImportError> {
    let mut mapped = BTreeMap::new();
    for (variable, column) in mapping {
        if !names::is_identifier(variable) {
            return Err(ImportError::InvalidName { name: shown(variable) });
        }
        let index = find_column(columns, column).ok_or_else(|| ImportError::UnknownColumn {
            variable: shown(variable),
            column: shown(column),
            columns: all_shown(columns),
        })?;
        if let Some(first) = mapped.insert(index, variable.as_str()) {
            return Err(ImportError::ColumnMappedTwice {
                column: shown(column),
                first: shown(first),
                second: shown(variable),
            });
        }
    }
    Ok(mapped)
}

/// Finds a column by its exact name, else by its name in any case.
fn find_column(columns: &[String], wanted: &str) -> Option<usize> {
    let wanted = wanted.trim();
    columns.iter().position(|column| column == wanted).or_else(|| {
        let wanted = wanted.to_lowercase();
        columns.iter().position(|column| column.to_lowercase() == wanted)
    })
}

fn find_email(columns: &[String], mapped: &BTreeMap<usize, &str>) -> Result<usize, ImportError> {
    if let Some((&index, _)) = mapped.iter().find(|&(_, &variable)| variable == EMAIL) {
        return Ok(index);
    }
    let named = |index: usize| names::from_column(&columns[index], index + 1);
    let free = || (0..columns.len()).filter(|index| !mapped.contains_key(index));
    if let Some(index) = free().find(|&index| named(index) == EMAIL) {
        return Ok(index);
    }
    let similar: Vec<usize> = free().filter(|&index| EMAIL_NAMES.contains(&named(index).as_str())).collect();
    match similar.as_slice() {
        [] => Err(ImportError::NoEmailColumn { columns: all_shown(columns) }),
        [index] => Ok(*index),
        several => Err(ImportError::AmbiguousEmailColumn {
            columns: several.iter().map(|&index| shown(&columns[index])).collect(),
        }),
    }
}

fn name_variables(
    columns: &[String],
    mapped: &BTreeMap<usize, &str>,
    email: usize,
) -> Result<Vec<Column>, ImportError> {
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut named = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        let variable = if index == email {
            EMAIL.to_owned()
        } else {
            let own = || names::from_column(column, index + 1);
            checked(mapped.get(&index).map_or_else(own, |&name| name.to_owned()), column, &taken)?
        };
        if let Some(first) = taken.insert(variable.clone(), shown(column)) {
            return Err(ImportError::NameTaken { name: variable, first, second: shown(column) });
        }
        named.push(Column { column: shown(column), variable });
    }
    Ok(named)
}

fn checked(name: String, column: &str, taken: &BTreeMap<String, String>) -> Result<String, ImportError> {
    if name.len() > MAX_NAME_LENGTH {
        let (name, column) = (shown(&name), shown(column));
        return Err(ImportError::NameTooLong { name, column, limit: MAX_NAME_LENGTH });
    }
    // A second address column is reported as such rather than as a reserved name.
    if names::is_reserved(&name) && !taken.contains_key(&name) {
        return Err(ImportError::ReservedName { name, column: shown(column) });
    }
    Ok(name)
}

fn all_shown(columns: &[String]) -> Vec<String> {
    columns.iter().map(|column| shown(column)).collect()
}
