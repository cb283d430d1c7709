//! A time in a body or a query: RFC 3339, from 1970 to 9999.
//!
//! Invariant: PostgreSQL can store every accepted time and returns it as the same text: in UTC,
//! with microseconds (finer digits are cut off). The strict form is required: a year of four
//! digits, `T` between date and time, an offset; `t` and `z` may be lower case. A leap second,
//! which can only be 23:59:60 UTC, means the second after it, as in PostgreSQL.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Timelike as _, Utc};
use serde::{Deserialize, Deserializer, de::Error};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, Object, ObjectBuilder, RefOr, Schema, SchemaFormat, Type},
};

/// The expected form, for error messages.
const EXPECTED: &str = "an RFC 3339 time from 1970-01-01T00:00:00Z to 9999-12-31T23:59:59Z";
/// The same as far as a regular expression can express it; some OpenAPI tools do not support
/// `date-time`.
const PATTERN: &str = r"^(19[7-9][0-9]|[2-9][0-9]{3})-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$";
/// The first second of the year 10000.
const END: i64 = 253_402_300_800;
/// Maximum characters shown of a rejected text.
const SHOWN: usize = 64;

/// A time as sent by a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

/// A text that is not such a time.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidTimestamp(String);

impl Timestamp {
    /// The time.
    pub const fn get(self) -> DateTime<Utc> {
        self.0
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        parse(text).map(Self).ok_or_else(|| InvalidTimestamp(text.chars().take(SHOWN).collect()))
    }
}

impl fmt::Display for InvalidTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid time {:?}, expected {EXPECTED}", self.0)
    }
}

impl std::error::Error for InvalidTimestamp {}

fn parse(text: &str) -> Option<DateTime<Utc>> {
    // chrono also accepts a space between date and time, and a non-ASCII minus sign.
    if !text.is_ascii() || !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return None;
    }
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    let nanoseconds = time.timestamp_subsec_nanos();
    let is_leap = nanoseconds >= 1_000_000_000;
    if is_leap && (time.hour(), time.minute()) != (23, 59) {
        return None;
    }
    let seconds = time.timestamp() + i64::from(is_leap);
    let microseconds = nanoseconds % 1_000_000_000 / 1_000;
    (0..END).contains(&seconds).then(|| DateTime::from_timestamp(seconds, microseconds * 1_000))?
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        let schema: Object = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .pattern(Some(PATTERN))
            .description(Some(format!("{}.", EXPECTED.replacen("an", "An", 1))))
            .examples([serde_json::json!("2026-11-21T15:00:00Z")])
            .build();
        Schema::Object(schema).into()
    }
}

impl ToSchema for Timestamp {}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(text: &str) -> Option<String> {
        Some(serde_json::to_value(text.parse::<Timestamp>().ok()?.get()).unwrap().as_str().unwrap().to_owned())
    }

    #[test]
    fn times_are_normalised_to_utc_and_microseconds() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999Z"),
            ("2026-11-21t15:00:00z", "2026-11-21T15:00:00Z"),
            ("2026-11-21T15:00:00+05:30", "2026-11-21T09:30:00Z"),
            ("2026-11-21T15:00:00-00:00", "2026-11-21T15:00:00Z"),
            ("2026-11-21T15:00:00.1234567891234Z", "2026-11-21T15:00:00.123456Z"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            ("2016-12-31T18:59:60.5-05:00", "2017-01-01T00:00:00.500Z"),
            ("1970-01-01T01:00:00+01:00", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(echo(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn times_out_of_range_or_in_another_format_are_refused() {
        for text in [
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "-4713-01-01T00:00:00Z",
            "-4714-11-24T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T23:59:60Z",
            "10000-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "+262142-12-31T23:59:59Z",
            "-262143-01-01T00:00:00Z",
            "2026-11-21 15:00:00Z",
            "2026-11-21T15:00:00",
            "2026-11-21",
            "2026-11-21T15:00Z",
            "20261121T150000Z",
            "2026-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T15:00:60Z",
            "2026-11-21T15:00:61Z",
            "2026-11-21T15:00:00\u{2212}05:00",
            "2026-11-21T15:00:00+24:00",
            "2026-11-21T15:00:00+0530",
            "2026-11-21T15:00:00,5Z",
            "2026-11-21T15:00:00.Z",
            " 2026-11-21T15:00:00Z",
            "2026-11-21T15:00:00Z ",
            "2026-W47-6T15:00:00Z",
            "",
            "T",
            "now",
        ] {
            assert_eq!(echo(text), None, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_value_and_the_expected_format() {
        let text = format!("x{}", "é".repeat(1_000));
        let refusal = text.parse::<Timestamp>().unwrap_err().to_string();
        assert!(refusal.starts_with("invalid time \"xé") && refusal.ends_with(EXPECTED), "{refusal}");
        assert!(refusal.chars().count() < 200);
        let unescaped: Timestamp = serde_json::from_str(r#""2026-11-21T15:00:00\u005a""#).unwrap();
        assert_eq!(unescaped, "2026-11-21T15:00:00Z".parse().unwrap());
        assert!(serde_json::from_str::<Timestamp>("1764000000").is_err(), "a number is not a time");
    }
}
