//! Each part of a script opens with the libraries whose names it uses, and a script has them.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::SCRIPTS;

/// A part without its comments and strings.
fn code(text: &str) -> String {
    Regex::new(r#"--[^\n]*|'[^'\n]*'|"[^"\n]*""#).expect("a pattern").replace_all(text, "''").into_owned()
}

/// The matches of the pattern's group.
fn matches<'a>(pattern: &str, code: &'a str) -> BTreeSet<&'a str> {
    let pattern = Regex::new(pattern).expect("a pattern");
    pattern.captures_iter(code).filter_map(|captures| captures.get(1)).map(|group| group.as_str()).collect()
}

/// The names that a library defines for other parts.
fn defined(code: &str) -> BTreeSet<&str> {
    let lists = matches(r"(?m)^local (?:function )?(\w+(?:, \w+)*)", code);
    lists.into_iter().flat_map(|names| names.split(", ")).collect()
}

/// All names in a part except those of fields. Its own variables count too: they must not share a
/// name with a library that the part does not need.
fn used(code: &str) -> BTreeSet<&str> {
    matches(r"(?:^|[^\w.:])([A-Za-z_]\w*)", code)
}

/// The libraries in the first line of a part.
fn declared(text: &str) -> BTreeSet<&str> {
    let line = text.lines().next().and_then(|line| line.strip_prefix("-- Needs: ")?.strip_suffix('.'));
    line.expect("a first line of needs").split(", ").filter(|need| *need != "nothing").collect()
}

#[test]
fn a_script_includes_every_library_it_uses() {
    let libraries = SCRIPTS.iter().flat_map(|script| &script[..script.len() - 1]);
    let libraries: BTreeMap<&str, String> = libraries.map(|(name, text)| (*name, code(text))).collect();
    for script in SCRIPTS {
        let mut loaded = BTreeSet::new();
        for (part, text) in *script {
            let code = code(text);
            let names = used(&code);
            let others = libraries.iter().filter(|(library, _)| *library != part);
            let needs = others.filter(|(_, library)| !defined(library).is_disjoint(&names));
            let needs: BTreeSet<&str> = needs.map(|(library, _)| *library).collect();
            assert_eq!(declared(text), needs, "the first line of {part}.lua");
            assert!(needs.is_subset(&loaded), "{part}.lua needs {needs:?} and follows {loaded:?}");
            loaded.insert(*part);
        }
    }
}
