//! The filters and tests that templates may use.
//!
//! Invariant: no filter makes a text longer than a constant times its input, except `join` and `replace`, which are ours
//! and stop at [`MAX_OUTPUT_BYTES`]. Left out on purpose: `safe` (a lead's name could become markup), `tojson`,
//! `indent`, `format`, `batch`, `slice`, `chain`, `zip`, `pprint` (all can be made to grow), `map` and the other
//! filters that call filters by name.

use minijinja::{Environment, Error, ErrorKind, Value, filters, tests};

use super::MAX_OUTPUT_BYTES;

/// Every filter, for the check at compile time.
pub(super) const FILTERS: &[&str] = &[
    "abs",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "max",
    "min",
    "replace",
    "reverse",
    "round",
    "sort",
    "split",
    "title",
    "trim",
    "unique",
    "upper",
    "urlencode",
];

/// Every test (`x is …`), for the check at compile time.
pub(super) const TESTS: &[&str] = &[
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "undefined",
];

/// Adds the filters and tests to an empty environment.
pub(super) fn install(environment: &mut Environment<'static>) {
    install_text_filters(environment);
    install_sequence_filters(environment);
    install_tests(environment);
}

fn install_text_filters(environment: &mut Environment<'static>) {
    environment.add_filter("capitalize", filters::capitalize);
    environment.add_filter("d", filters::default);
    environment.add_filter("default", filters::default);
    environment.add_filter("e", filters::escape);
    environment.add_filter("escape", filters::escape);
    environment.add_filter("lines", filters::lines);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("replace", replace);
    environment.add_filter("split", filters::split);
    environment.add_filter("title", filters::title);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("upper", filters::upper);
    environment.add_filter("urlencode", filters::urlencode);
    environment.add_filter("abs", filters::abs);
    environment.add_filter("float", filters::float);
    environment.add_filter("int", filters::int);
    environment.add_filter("round", filters::round);
}

fn install_sequence_filters(environment: &mut Environment<'static>) {
    environment.add_filter("count", filters::length);
    environment.add_filter("dictsort", filters::dictsort);
    environment.add_filter("first", filters::first);
    environment.add_filter("items", filters::items);
    environment.add_filter("join", join);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", filters::length);
    environment.add_filter("list", filters::list);
    environment.add_filter("max", filters::max);
    environment.add_filter("min", filters::min);
    environment.add_filter("reverse", filters::reverse);
    environment.add_filter("sort", filters::sort);
    environment.add_filter("unique", filters::unique);
}

fn install_tests(environment: &mut Environment<'static>) {
    environment.add_test("defined", tests::is_defined);
    environment.add_test("divisibleby", tests::is_divisibleby);
    environment.add_test("endingwith", tests::is_endingwith);
    environment.add_test("even", tests::is_even);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("none", tests::is_none);
    environment.add_test("number", tests::is_number);
    environment.add_test("odd", tests::is_odd);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("startingwith", tests::is_startingwith);
    environment.add_test("string", tests::is_string);
    environment.add_test("undefined", tests::is_undefined);
}

/// `text|replace("from", "to")`
fn replace(text: &str, from: &str, to: &str) -> Result<String, Error> {
    let growth = text.matches(from).count().saturating_mul(to.len());
    bounded(text.len().saturating_add(growth))?;
    Ok(text.replace(from, to))
}

/// `list|join(", ")`
fn join(list: &Value, separator: Option<&str>) -> Result<String, Error> {
    let mut joined = String::new();
    for (index, item) in list.try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(separator.unwrap_or_default());
        }
        match item.as_str() {
            Some(text) => joined.push_str(text),
            None => joined.push_str(&item.to_string()),
        }
        bounded(joined.len())?;
    }
    Ok(joined)
}

fn bounded(bytes: usize) -> Result<(), Error> {
    if bytes <= MAX_OUTPUT_BYTES {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::InvalidOperation, "a filter makes too long a text"))
    }
}
