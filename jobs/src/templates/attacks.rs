//! Templates that attack the process that compiles or renders them, for the unit tests here.
//! `tests/it/hostile/templates.rs` sends similar texts to the real processes.

use std::{env, process::Command, time::Duration};

use serde_json::{Value, json};
use shared::compute::thread_time;

use super::*;

/// Set in the child process that runs the attacks.
const IN_CHILD: &str = "TEMPLATE_ATTACKS";
/// A render's limit is a quarter of a second of processor time in an unoptimised program; the rest
/// is for the last step before the limit.
const LONGEST_RENDER: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3_000 } else { 300 });
const LONGEST_COMPILE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3_000 } else { 300 });

/// Repeated texts: before the innermost value, and after it.
const REPEATED: &[(&str, &str)] = &[
    ("-", ""),
    ("- ", ""),
    ("not ", ""),
    ("(", ")"),
    ("[", "]"),
    ("{'a':", "}"),
    ("a[", "]"),
    ("a[:", "]"),
    ("a(", ")"),
    ("a|d(", ")"),
    ("a|d(b=", ")"),
    ("a is d(", ")"),
    ("a is divisibleby ", ""),
    ("a if ", " else a"),
    ("a if a else ", ""),
    ("'a' ", ""),
    ("*", ""),
    ("**", ""),
    ("a, ", ""),
    ("a+", ""),
    ("1+", ""),
    ("a-", ""),
    ("a*", ""),
    ("a/", ""),
    ("a//", ""),
    ("a%", ""),
    ("a**", ""),
    ("a~", ""),
    ("a==", ""),
    ("a!=", ""),
    ("a<", ""),
    ("a>=", ""),
    ("a in ", ""),
    ("a not in ", ""),
    ("a and ", ""),
    ("a or ", ""),
    ("a.", ""),
    ("a|", ""),
    ("", ".b"),
    ("", ".0"),
    ("", "[0]"),
    ("", "[1:]"),
    ("", "[::-1]"),
    ("", "|d"),
    ("", "|d(a)"),
    ("", "|upper"),
    ("", "()"),
    ("", " is defined"),
    ("", " is not defined"),
    ("", " if a"),
];

const BLOCKS: &[(&str, &str)] = &[
    ("{% if a %}", "{% endif %}"),
    ("{% if a %}{% elif a %}", "{% endif %}"),
    ("{% elif a %}", ""),
    ("{% else %}", ""),
    ("{% if a %}{% else %}", "{% endif %}"),
    ("{% for a in a %}", "{% endfor %}"),
    ("{% for a in a %}{% else %}", "{% endfor %}"),
    ("{% for a in a if a %}", "{% endfor %}"),
    ("{% for a in a recursive %}", "{% endfor %}"),
    ("{% with a = a %}", "{% endwith %}"),
    ("{% set a %}", "{% endset %}"),
    ("{% filter upper %}", "{% endfilter %}"),
    ("{% autoescape true %}", "{% endautoescape %}"),
    ("{% macro a() %}", "{% endmacro %}"),
    ("{% call a() %}", "{% endcall %}"),
    ("{% block a %}", "{% endblock %}"),
    ("{% raw %}", "{% endraw %}"),
    ("{% include 'a' %}", ""),
    ("{% import 'a' as a %}", ""),
    ("{% from 'a' import a %}", ""),
    ("{% extends 'a' %}", ""),
    ("{% do a() %}", ""),
    ("{% set a = a %}", ""),
    ("{# a #}", ""),
    ("{{ a }}", ""),
    ("{{ '", ""),
    ("{{ \"\\", ""),
    ("{{", "}}"),
    ("{%", "%}"),
    ("{#", "#}"),
    ("{", "}"),
    ("{{ 1", ""),
];

/// Every repetition up to `bytes`, both closed and left open.
fn repetitions(bytes: usize) -> Vec<String> {
    let mut sources = Vec::new();
    for (open, close) in REPEATED {
        let times = (bytes - 40) / (open.len() + close.len());
        for closing in [times, 0] {
            let expression =
                format!("{}a{}", open.repeat(times), close.repeat(closing.max(usize::from(open.is_empty()) * times)));
            sources.push(format!("{{{{ {expression} }}}}"));
            sources.push(format!("{{% if {expression} %}}{{% endif %}}"));
            sources.push(format!("{{% for x in {expression} %}}{{% endfor %}}"));
            sources.push(format!("{{% if a %}}{{% elif {expression} %}}{{% endif %}}"));
        }
    }
    for (open, close) in BLOCKS {
        let times = bytes / (open.len() + close.len());
        sources.push(format!("{}{}", open.repeat(times), close.repeat(times)));
        sources.push(open.repeat(bytes / open.len()));
        sources.push(format!("{{% if a %}}{}", open.repeat((bytes - 10) / open.len())));
    }
    sources
}

/// The attacks run in a separate process, so that an abort fails this test only.
#[test]
fn repetition_neither_overflows_the_stack_nor_takes_long() {
    if env::var_os(IN_CHILD).is_none() {
        let program = env::current_exe().expect("this program has a path");
        let name = "templates::attacks::repetition_neither_overflows_the_stack_nor_takes_long";
        let output = Command::new(program).args(["--exact", name]).env(IN_CHILD, "1").output().expect("it starts");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {printed} {}", output.status, String::from_utf8_lossy(&output.stderr));
        assert!(printed.contains("1 passed"), "the child ran the attacks: {printed}");
        return;
    }
    for bytes in [MAX_SUBJECT_SOURCE_BYTES, 8_000, MAX_SOURCE_BYTES] {
        for source in repetitions(bytes) {
            let begun = thread_time();
            let template = MailTemplate { subject: "s".into(), text: source.clone(), html: None };
            if let Ok(compiled) = CompiledTemplate::compile(&template) {
                let _ = compiled.render(&json!({ "a": [1] }));
            }
            let taken = thread_time().checked_sub(begun).expect("a thread's time never decreases");
            assert!(taken < LONGEST_COMPILE + LONGEST_RENDER, "{taken:?} for {}…", &source[..60]);
        }
    }
}

#[test]
fn limits_are_exact() {
    let text =
        |source: &str| CompiledTemplate::compile(&MailTemplate { text: source.into(), ..MailTemplate::default() });
    let subject = |bytes: usize| {
        CompiledTemplate::compile(&MailTemplate { subject: "x".repeat(bytes), ..MailTemplate::default() })
    };
    assert!(subject(MAX_SUBJECT_SOURCE_BYTES).is_ok() && subject(MAX_SUBJECT_SOURCE_BYTES + 1).is_err());
    let refused = |source: String| text(&source).expect_err("refused").to_string();
    assert!(text(&format!("{{{{ a{} }}}}", "|upper".repeat(64))).is_ok());
    let told = refused(format!("\n{{{{ a{} }}}}", "|upper".repeat(65)));
    assert_eq!(told, "text, line 2: more than 64 operators in a tag are not supported");
    let list = |items: usize| format!("{{{{ 'x' if a in [{}] }}}}", vec!["1"; items].join(","));
    assert!(text(&list(100)).is_ok() && text(&list(130)).is_err());
    let nested = |depth: usize| format!("{}{}", "{% if a %}".repeat(depth), "{% endif %}".repeat(depth));
    assert!(text(&nested(48)).is_ok() && text(&nested(49)).is_err());
    let elifs = |count: usize| format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(count));
    assert!(text(&elifs(47)).is_ok() && text(&elifs(48)).is_err());
    assert!(text(&elifs(40).repeat(10)).is_ok(), "consecutive blocks are not nested");
    assert!(text(&"{{ a }}".repeat(2_000)).is_ok() && text(&"{{ a }}".repeat(2_001)).is_err());
    let name = |bytes: usize| format!("{{{{ {} }}}}", "n".repeat(bytes));
    assert!(text(&name(128)).is_ok());
    assert!(refused(name(150_000)).len() < 200, "the name is not repeated");
}

#[test]
fn costly_templates_are_stopped_in_time() {
    let long = "ab ".repeat(21_000);
    let values = json!({
        "t": long, "n": "b".repeat(60_000), "w": vec!["word"; 5_000], "l": (0..1_000).collect::<Vec<_>>(),
        "o": [{ "k": { "k": [long] } }], "e": "é".repeat(30_000),
    });
    let uppers = "|upper".repeat(60);
    for source in [
        format!("{{% for x in l %}}{{{{ t{uppers}|length }}}}{{% endfor %}}"),
        "{% for a in t|split %}{% for b in t|split %}{% for c in t|split %}{{ c }}{% endfor %}{% endfor %}{% endfor %}"
            .into(),
        "{% for x in l %}{% for y in l %}{{ t|split('')|sort|unique|join|length }}{% endfor %}{% endfor %}".into(),
        "{% for x in l %}{{ t|replace('a', 'bb')|replace('b', 'cc')|length }}{% endfor %}".into(),
        "{% for x in l %}{% if n in t %}y{% endif %}{% endfor %}".into(),
        "{% for a in t %}{% for b in t %}{% if t == t and n in t %}{% endif %}{% endfor %}{% endfor %}".into(),
        "{% for a in t if n in t and t[::-1] == t %}{% endfor %}".into(),
        format!("{{% for s in o %}}{}{{% endfor %}}", "{% if s.k.k in o or s == o[0] %}{% endif %}".repeat(80)),
        "{% for a in [1,2,3,4,5,6,7,8,9] %}".repeat(8) + "{% if n in t %}{% endif %}" + &"{% endfor %}".repeat(8),
        "{% for x in l %}{{ w|sort|join(t)|length }}{% endfor %}".into(),
        "{% for x in l %}{{ w|sort(attribute=t)|length }}{% endfor %}".into(),
        "{% for x in l %}{{ e|urlencode|urlencode|length }}{{ e|title|lower|capitalize|length }}{% endfor %}".into(),
        "{% for x in l %}{{ t[1:][1:][1:][::-1]|length }}{{ w[1:][2:]|length }}{% endfor %}".into(),
        "{% for x in l %}{{ o|length }}{% if o == o %}{% endif %}{% endfor %}".into(),
        "{% for x in l %}{{ w|unique|length }}{{ w|min }}{{ w|max }}{{ w|last }}{{ t|lines|length }}{% endfor %}"
            .into(),
        "{% for x in l %}{% if t is startingwith(t) and t is endingwith(t) %}{% endif %}{% endfor %}".into(),
        "{% for x in l %}{{ t|e|e|e|length }}{{ t|list|length }}{{ t|reverse|length }}{% endfor %}".into(),
        "{% for x in l %}{{ o }}{% endfor %}".into(),
    ] {
        let template = MailTemplate { text: source.clone(), html: Some(source.clone()), ..MailTemplate::default() };
        let Ok(compiled) = CompiledTemplate::compile(&template) else { continue };
        let begun = thread_time();
        let outcome = compiled.render(&values);
        let taken = thread_time().checked_sub(begun).expect("a thread's time never decreases");
        assert!(taken < LONGEST_RENDER, "{taken:?} for {source}: {:?}", outcome.map(|_| ()));
    }
}

#[test]
fn ordinary_templates_stay_far_below_their_budget() {
    let rows: Vec<Value> =
        (0..200).map(|number| json!({ "name": format!("Item {number}"), "price": number })).collect();
    let source = "Dear {{ name|title }},\n{% for row in rows if row.price > 10 -%}\n  {{ loop.index }}. {{ row.name|upper|replace('ITEM', 'No') }}: {{ row.price + 1 }}\n{% endfor %}\
        {% if city in ['Köln', 'Paris'] %}{{ city|default('?') }}{% elif city is startingwith('B') %}B{% else %}-{% endif %}";
    let template = MailTemplate { subject: "Hi".into(), text: source.into(), html: Some(source.into()) };
    let compiled = CompiledTemplate::compile(&template).expect("compiles");
    let mail = compiled.render(&json!({ "name": "ada", "city": "Köln", "rows": rows })).expect("renders");
    assert!(mail.text.starts_with("Dear Ada,\n1. No 11: 12\n2. No 12: 13\n"), "{}", &mail.text[..60]);
    assert!(mail.text.ends_with("189. No 199: 200\nKöln"), "{}", &mail.text[mail.text.len() - 60..]);
}

/// The budget checks inserted into loops must not be visible in the result.
#[test]
fn budget_checks_do_not_appear_in_the_output() {
    let text = |source: &str| {
        let template = MailTemplate { text: source.into(), ..MailTemplate::default() };
        CompiledTemplate::compile(&template)
            .and_then(|compiled| compiled.render(&json!({ "l": [1, 2, 3] })))
            .map(|mail| mail.text)
    };
    assert_eq!(text("{% for x in l %}\n{{ x }}\n{% endfor %}.").as_deref(), Ok("\n1\n\n2\n\n3\n."));
    assert_eq!(text("{% for x in l -%}\n  {{ x }}\n{%- endfor %}.").as_deref(), Ok("123."));
    assert_eq!(text("{%- for x in l if x > 1 -%} {{ x }} {% endfor -%} .").as_deref(), Ok("2 3 ."));
    assert_eq!(text("{% for x in l if x > 1 if x < 3 else false %}{{ x }}{% endfor %}").as_deref(), Ok("2"));
    assert_eq!(text("{% for x in (l if true else []) %}{{ x }}{% else %}none{% endfor %}").as_deref(), Ok("123"));
    assert_eq!(text("{% for x in l if x > 5 %}{{ x }}{% else %}none{% endfor %}").as_deref(), Ok("none"));
    assert_eq!(text("{% for x in l %}{{ loop.last }} {% endfor %}").as_deref(), Ok("False False True "));
    let error = text("a\n{% for x in l\n if y %}{% endfor %}").expect_err("y is unknown").to_string();
    assert!(error.starts_with("text, line 3: unknown variable `y`"), "{error}");
}
