//! The scripts, each assembled from the parts of `lua/` that it uses.
//!
//! Invariant: the work of a script is bounded by its arguments, never by the backlog.

use std::sync::LazyLock;

use redis::Script;

macro_rules! script {
    ($name:literal) => {
        script!("", $name,)
    };
    ($first_line:literal, $name:literal, $($part:literal)*) => {
        LazyLock::new(|| {
            Script::new(concat!(
                $first_line,
                include_str!("../lua/prelude.lua"),
                $(include_str!(concat!("../lua/", $part, ".lua")),)*
                include_str!(concat!("../lua/", $name, ".lua"))
            ))
        })
    };
}

pub(super) static PUSH: LazyLock<Script> =
    script!("", "push", "packed" "flows" "leases" "tenants" "fair_share" "rounds" "apply_leases" "leasing" "granting");
pub(super) static FETCH: LazyLock<Script> =
    script!("", "fetch", "flows" "leases" "tenants" "fair_share" "rounds" "readiness" "apply_leases" "leasing");
pub(super) static SETTLE: LazyLock<Script> = script!("", "settle", "packed" "flows" "leases" "tenants" "fair_share");
// Full memory must not make live holders look dead. Renewing changes existing scores, so it needs
// hardly any memory.
pub(super) static RENEW: LazyLock<Script> = script!("#!lua flags=allow-oom\n", "renew", "leases" "emptied" "tenants");
pub(super) static CHECK: LazyLock<Script> = script!("", "check", "flows" "emptied" "tenants");
pub(super) static EXPIRED: LazyLock<Script> = script!("", "expired", "leases");
pub(super) static CANCEL: LazyLock<Script> = script!("", "cancel", "emptied");
pub(super) static UNANSWERED: LazyLock<Script> = script!("", "unanswered", "leases");
pub(super) static ANNOUNCE: LazyLock<Script> = script!("announce");
pub(super) static WATCH: LazyLock<Script> = script!("watch");
pub(super) static LIMIT: LazyLock<Script> = script!("", "limit", "flows");
pub(super) static PAUSE: LazyLock<Script> = script!("pause");
pub(super) static BEAT: LazyLock<Script> = script!("beat");
pub(super) static CLEAR: LazyLock<Script> = script!("clear");
pub(super) static ADVANCE: LazyLock<Script> = script!("advance");
pub(super) static STATUS: LazyLock<Script> = script!("", "status", "workers");
pub(super) static JOB_POSITION: LazyLock<Script> = script!("", "job_position", "tenants" "workers");
pub(super) static DEPTH: LazyLock<Script> = script!("depth");

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
        path::Path,
    };

    use regex::Regex;

    /// The parts, by name.
    fn parts() -> BTreeMap<String, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/queue/lua");
        let files = fs::read_dir(folder).expect("the scripts").map(|file| file.expect("a script").path());
        let read = |path: std::path::PathBuf| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("a text"))
        };
        files.map(read).collect()
    }

    /// The scripts, each as the names of its parts, in their order.
    fn scripts() -> Vec<Vec<String>> {
        let lists = Regex::new(r#"= ?\n? *script!\((?:"[^"]*", )?("[^)]*)\)"#).expect("a pattern");
        let name = Regex::new(r#""(\w+)""#).expect("a pattern");
        let source = include_str!("scripts.rs").split("#[cfg(test)]").next().unwrap_or_default();
        let lists = lists.captures_iter(source).map(|list| {
            let mut names = name.captures_iter(list.get(1).expect("a list").as_str()).map(|name| name[1].to_owned());
            let own = names.next().expect("the script itself");
            ["prelude".to_owned()].into_iter().chain(names).chain([own]).collect()
        });
        lists.collect()
    }

    /// The code of a part, without comments and texts.
    fn code(part: &str) -> String {
        let uncommented = Regex::new("--[^\n]*").expect("a pattern").replace_all(part, "").into_owned();
        Regex::new(r#"'[^'\n]*'|"[^"\n]*""#).expect("a pattern").replace_all(&uncommented, "''").into_owned()
    }

    fn names<'a>(pattern: &str, code: &'a str) -> BTreeSet<&'a str> {
        let pattern = Regex::new(pattern).expect("a pattern");
        let lists = pattern.captures_iter(code).map(|found| found.get(1).expect("a list").as_str());
        lists.flat_map(|list| list.split(',')).map(str::trim).collect()
    }

    /// The names that a part gives to others.
    fn given(code: &str) -> BTreeSet<&str> {
        let functions = names(r"(?m)^local function (\w+)", code);
        functions
            .into_iter()
            .chain(names(r"(?m)^local (\w[\w, ]*?) *(?:=|$)", code))
            .filter(|name| !name.contains(' '))
            .collect()
    }

    /// The names that a part binds itself, anywhere.
    fn bound(code: &str) -> BTreeSet<&str> {
        let patterns = [
            r"function *\w* *\(([^)]*)\)",
            r"local function (\w+)",
            r"local (\w[\w, ]*?) *(?:=|\n)",
            r"for ([\w, ]+?) *(?:=|in )",
        ];
        patterns.iter().flat_map(|pattern| names(pattern, code)).collect()
    }

    /// The names that a part reads.
    fn read(code: &str) -> BTreeSet<&str> {
        names(r"(?:^|[^\w.:])([A-Za-z_]\w*)\b(?: *(?:[^=\s\w]|==|\n|\w))", code)
    }

    #[test]
    fn a_part_names_its_needs_and_a_script_has_them() {
        let parts: BTreeMap<String, (BTreeSet<String>, String)> = parts()
            .into_iter()
            .filter(|(name, _)| name != "probe")
            .map(|(name, text)| {
                let first = text.lines().next().unwrap_or_default();
                let needs = first.strip_prefix("-- Needs: ").and_then(|needs| needs.strip_suffix('.'));
                assert!(needs.is_some() || name == "prelude", "{name}.lua opens with its needs");
                let needs = needs.unwrap_or_default().split(", ").filter(|need| !["", "nothing"].contains(need));
                (name, (needs.map(str::to_owned).collect(), code(&text)))
            })
            .collect();
        let scripts = scripts();
        assert!(scripts.len() > 15, "{} scripts", scripts.len());
        let shared: BTreeSet<&String> = scripts.iter().flat_map(|script| &script[..script.len() - 1]).collect();
        let owners: BTreeMap<&str, &String> =
            shared.iter().flat_map(|part| given(&parts[*part].1).into_iter().map(|name| (name, *part))).collect();
        for (part, (needs, code)) in &parts {
            let bound = bound(code);
            for name in read(code).difference(&bound) {
                let Some(owner) = owners.get(name).filter(|owner| **owner != part) else { continue };
                assert!(needs.contains(*owner), "{part}.lua uses {name}, but does not say that it needs {owner}");
            }
        }
        for script in &scripts {
            for (at, part) in script.iter().enumerate() {
                let missing = parts[part].0.iter().find(|need| !script[..at].contains(need));
                assert_eq!(missing, None, "{part}.lua needs it in {script:?}");
            }
        }
    }
}
