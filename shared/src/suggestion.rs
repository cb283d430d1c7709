//! "Did you mean": the known name that is most similar to an unknown one.
//!
//! Invariant: the cost is bounded whatever the names are. The cost of a comparison grows with the
//! product of both lengths, and clients choose the names, so names are truncated before they are
//! compared.

/// Maximum number of characters of a name that are compared.
const MAX_CHARS: usize = 64;
/// Maximum number of candidates that are compared.
const MAX_CANDIDATES: usize = 1_000;
/// Below this similarity (0 to 1, Jaro-Winkler) a suggestion would confuse more than help.
const MIN_SIMILARITY: f64 = 0.8;

/// The candidate most similar to `name`, ignoring case.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = cut(name);
    candidates
        .into_iter()
        .take(MAX_CANDIDATES)
        .map(|candidate| (strsim::jaro_winkler(&name, &cut(candidate)), candidate))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn cut(name: &str) -> String {
    name.chars().take(MAX_CHARS).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_misspelling_is_recognised_and_an_unrelated_name_is_not() {
        let known = ["first_name", "last_name", "city"];
        assert_eq!(nearest("First_nmae", known), Some("first_name"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest("city", []), None);
    }

    #[test]
    fn long_names_cost_no_more_than_short_ones() {
        let long = "x".repeat(1_000_000);
        let many: Vec<String> = (0..3).map(|number| format!("{long}{number}")).collect();
        let begun = Instant::now();
        for _ in 0..100 {
            assert!(nearest(&long, many.iter().map(String::as_str)).is_some());
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
