//! Reads `acceptance.toml` as an external harness does: every name, path, template and pointer
//! comes from the file.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::process::ProcessSpec;

/// The parsed file.
pub struct Contract(Value);

impl Contract {
    pub fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../acceptance.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let contract = Self(toml::from_str(&text).context("acceptance.toml")?);
        ensure!(contract.0["version"] == 1, "unsupported version of the format");
        Ok(contract)
    }

    /// The text at a JSON pointer.
    pub fn text(&self, pointer: &str) -> Result<&str> {
        let value = self.0.pointer(pointer).and_then(Value::as_str);
        value.with_context(|| format!("acceptance.toml has no text at {pointer}"))
    }

    /// The names in a table, in ascending order.
    pub fn names(&self, pointer: &str) -> Result<Vec<&str>> {
        let table = self.0.pointer(pointer).and_then(Value::as_object);
        let table = table.with_context(|| format!("acceptance.toml has no table {pointer}"))?;
        let mut names: Vec<&str> = table.keys().map(String::as_str).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The words in a list.
    pub fn words(&self, pointer: &str) -> Result<Vec<&str>> {
        let words = self.0.pointer(pointer).and_then(Value::as_array);
        let words = words.with_context(|| format!("acceptance.toml has no list {pointer}"))?;
        words.iter().map(|word| word.as_str().with_context(|| format!("{pointer} holds {word}"))).collect()
    }

    /// A command of the file, run with the binary of that name built for this test.
    pub fn command(&self, pointer: &str) -> Result<ProcessSpec> {
        let words = self.words(pointer)?;
        let (program, arguments) = words.split_first().context("an empty command")?;
        let binary = program.strip_prefix("target/release/");
        let binary = binary.with_context(|| format!("{program} is not built by the build command"))?;
        Ok(ProcessSpec::binary(binary)?.args(arguments))
    }

    pub fn request(&self, name: &str) -> Result<&Value> {
        self.0.pointer(&format!("/requests/{name}")).with_context(|| format!("acceptance.toml has no request {name}"))
    }

    /// The header of a kind of principal, with the credential of a tenant from the bootstrap output.
    pub fn credential(&self, principal: &str, tenant: &Value) -> Result<(&str, String)> {
        let names = self.names(&format!("/auth/{principal}"))?;
        let [header] = names[..] else { anyhow::bail!("expected exactly one header of {principal}") };
        let template = self.text(&format!("/auth/{principal}/{header}"))?;
        let members = tenant.as_object().context("a tenant is an object")?;
        let values: Vec<_> = members.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let filled = fill_text(template, &values);
        ensure!(!filled.contains('{'), "the bootstrap object lacks a member of {template}");
        Ok((header, filled))
    }

    /// The args of a kind, as JSON.
    pub fn args(&self, kind: &str, values: &[(&str, Value)]) -> Result<Value> {
        let filled = fill_json(self.text(&format!("/kinds/{kind}"))?, values);
        serde_json::from_str(&filled).with_context(|| format!("the args of {kind} are not JSON: {filled}"))
    }
}

/// Replaces placeholders in a path or a header.
pub fn fill_text(template: &str, values: &[(&str, Value)]) -> String {
    let mut filled = template.to_owned();
    for (name, value) in values {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        filled = filled.replace(&format!("{{{name}}}"), &text);
    }
    filled
}

/// Replaces placeholders in a JSON text: bare ones with JSON, those inside quotes with escaped
/// text.
pub fn fill_json(template: &str, values: &[(&str, Value)]) -> String {
    let (mut filled, mut rest, mut inside) = (String::new(), template, false);
    while let Some(character) = rest.chars().next() {
        let named = values.iter().find_map(|(name, value)| {
            let after = rest.strip_prefix('{')?.strip_prefix(name)?.strip_prefix('}')?;
            Some((after, value))
        });
        if let Some((after, value)) = named {
            let json = value.to_string();
            let bare = if inside { json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) } else { None };
            filled.push_str(bare.unwrap_or(&json));
            rest = after;
        } else {
            inside ^= character == '"';
            filled.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    filled
}

#[test]
fn names_are_replaced_by_json_or_by_text_in_quotes() {
    let values = [("n", json!(3)), ("text", json!("a \"b\"\n{n}")), ("list", json!([1]))];
    assert_eq!(fill_json(r#"{"n":{n},"t":"<{text}>","l":{list}}"#, &values), r#"{"n":3,"t":"<a \"b\"\n{n}>","l":[1]}"#);
    assert_eq!(fill_json(r#"{"t":{text}}"#, &values), r#"{"t":"a \"b\"\n{n}"}"#);
    assert_eq!(fill_text("/{text}/{n}", &[("n", json!(3)), ("text", json!("a"))]), "/a/3");
}
