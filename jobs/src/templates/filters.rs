//! The filters and tests that templates may use.
//!
//! Invariant: each is charged to the `budget`, before it runs for everything that it reads and
//! afterwards for its result, and produces no text longer than [`MAX_TEXT_BYTES`] and no list
//! longer than [`MAX_ITEMS`]. Lists that minijinja would compute again on each use are computed
//! once. `escape`, `join` and `replace` are implemented here. Deliberately omitted: `safe` (a
//! lead's name could become markup), `tojson`, `indent`, `format`, `batch`, `slice`, `chain`,
//! `zip`, `pprint` (their output can be made to grow), `map` and the other filters that call
//! filters by name.

use minijinja::{
    Environment, Error, ErrorKind, State, Value, filters,
    functions::Function,
    tests,
    value::{FunctionArgs, FunctionResult, Rest, ValueKind, ValueOrKwargs},
};

use super::{budget, escape::escape};

/// Maximum bytes of a text that a filter produces.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// Maximum elements of a list that a filter produces.
const MAX_ITEMS: usize = 10_000;

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

/// How much of its arguments a filter or test reads.
#[derive(Clone, Copy)]
enum Reads {
    /// Texts completely; of lists each element, but not its contents.
    Surface,
    /// All contents.
    All,
    /// All contents, once for each comparison of a sort.
    Sorted,
}

impl Reads {
    fn units(self, arguments: &[Value]) -> usize {
        match self {
            Self::Surface => arguments.iter().map(budget::surface).sum(),
            Self::All => arguments.iter().map(budget::weight).sum(),
            Self::Sorted => {
                let list = arguments.first().map_or(0, budget::weight);
                let items = arguments.first().and_then(Value::len).unwrap_or_default();
                // For example the path of an attribute, which is resolved for each item.
                let others: usize = arguments.iter().skip(1).map(budget::weight).sum();
                let rounds = usize::try_from(items.checked_ilog2().unwrap_or_default()).unwrap_or_default() + 1;
                list.saturating_add(items.saturating_mul(others)).saturating_mul(2 * rounds)
            }
        }
    }
}

/// Adds a filter that is charged for what it reads and produces.
fn filter<F, Rv, Args>(environment: &mut Environment<'static>, name: &'static str, reads: Reads, filter: F)
where
    F: Function<Rv, Args>,
    Rv: FunctionResult,
    Args: for<'a> FunctionArgs<'a>,
{
    let filter = Value::from_function(filter);
    environment.add_filter(name, move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
        let arguments = arguments.into_values();
        budget::look()?;
        budget::spend(reads.units(&arguments))?;
        made(filter.call(state, &arguments)?)
    });
}

/// Adds a test that is charged for what it reads.
fn test<F, Rv, Args>(environment: &mut Environment<'static>, name: &'static str, test: F)
where
    F: Function<Rv, Args>,
    Rv: FunctionResult,
    Args: for<'a> FunctionArgs<'a>,
{
    let test = Value::from_function(test);
    environment.add_test(
        name,
        move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| -> Result<bool, Error> {
            let arguments = arguments.into_values();
            budget::look()?;
            budget::spend(Reads::Surface.units(&arguments))?;
            Ok(test.call(state, &arguments)?.is_true())
        },
    );
}

/// Charges for the result of a filter.
fn made(value: Value) -> Result<Value, Error> {
    budget::spend(budget::surface(&value))?;
    match value.kind() {
        ValueKind::String => bounded(value.as_str().map_or(0, str::len)).map(|()| value),
        ValueKind::Seq if value.len().is_some_and(|items| items > MAX_ITEMS) => Err(too_many_items()),
        ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                if items.len() == MAX_ITEMS {
                    return Err(too_many_items());
                }
                budget::spend(budget::weight(&item))?;
                items.push(item);
            }
            Ok(Value::from(items))
        }
        _ => Ok(value),
    }
}

fn install_text_filters(environment: &mut Environment<'static>) {
    use Reads::{All, Surface};

    filter(environment, "capitalize", All, filters::capitalize);
    filter(environment, "d", Surface, filters::default);
    filter(environment, "default", Surface, filters::default);
    filter(environment, "e", All, escape);
    filter(environment, "escape", All, escape);
    filter(environment, "lines", All, filters::lines);
    filter(environment, "lower", All, filters::lower);
    filter(environment, "replace", All, replace);
    filter(environment, "split", All, filters::split);
    filter(environment, "title", All, filters::title);
    filter(environment, "trim", All, filters::trim);
    filter(environment, "upper", All, filters::upper);
    filter(environment, "urlencode", All, filters::urlencode);
    filter(environment, "abs", All, filters::abs);
    filter(environment, "float", All, filters::float);
    filter(environment, "int", All, filters::int);
    filter(environment, "round", All, filters::round);
}

fn install_sequence_filters(environment: &mut Environment<'static>) {
    use Reads::{All, Sorted, Surface};

    filter(environment, "count", Surface, filters::length);
    filter(environment, "dictsort", Sorted, filters::dictsort);
    filter(environment, "first", Surface, filters::first);
    filter(environment, "items", All, filters::items);
    filter(environment, "join", All, join);
    filter(environment, "last", Surface, filters::last);
    filter(environment, "length", Surface, filters::length);
    filter(environment, "list", All, filters::list);
    filter(environment, "max", All, filters::max);
    filter(environment, "min", All, filters::min);
    filter(environment, "reverse", All, filters::reverse);
    filter(environment, "sort", Sorted, filters::sort);
    filter(environment, "unique", Sorted, filters::unique);
}

fn install_tests(environment: &mut Environment<'static>) {
    test(environment, "defined", tests::is_defined);
    test(environment, "divisibleby", tests::is_divisibleby);
    test(environment, "endingwith", tests::is_endingwith);
    test(environment, "even", tests::is_even);
    test(environment, "mapping", tests::is_mapping);
    test(environment, "none", tests::is_none);
    test(environment, "number", tests::is_number);
    test(environment, "odd", tests::is_odd);
    test(environment, "sequence", tests::is_sequence);
    test(environment, "startingwith", tests::is_startingwith);
    test(environment, "string", tests::is_string);
    test(environment, "undefined", tests::is_undefined);
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
    if bytes <= MAX_TEXT_BYTES {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::InvalidOperation, "the result of a filter is too long a text"))
    }
}

fn too_many_items() -> Error {
    Error::new(ErrorKind::InvalidOperation, "the result of a filter is too long a list")
}
