//! Authors of templates get mails, or an error that they can act on, and never block a worker.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn compile(subject: &str, text: &str, html: Option<&str>) -> Result<CompiledTemplate, TemplateError> {
    CompiledTemplate::compile(&MailTemplate {
        subject: subject.to_owned(),
        text: text.to_owned(),
        html: html.map(str::to_owned),
    })
}

fn text_of(source: &str, values: &serde_json::Value) -> Result<String, TemplateError> {
    compile("s", source, None)?.render(values).map(|mail| mail.text)
}

fn message(outcome: Result<impl std::fmt::Debug, TemplateError>) -> String {
    outcome.expect_err("an error").to_string()
}

#[test]
fn a_mail_is_personalised_and_html_is_escaped() {
    let template = compile(
        "Hello {{ name }},\n welcome",
        "Dear {{ name }}, {% for city in cities %}{{ loop.index + 1 }} {{ city|upper }};{% endfor %}",
        Some("<a href=\"{{ url }}\">{{ name }}</a>"),
    )
    .expect("compiles");
    let values =
        json!({"name": "<b>Zoë & \"Co\"</b>\r\nBcc: x", "cities": ["Köln", "Paris"], "url": "https://x/?a=1&b='"});
    let mail = template.render(&values).expect("renders");
    assert!(
        mail.html.as_deref().is_some_and(|html| html.contains("\"https://x/?a=1&amp;b=&#39;\"")),
        "links stay readable: {mail:?}"
    );
    assert_eq!(mail.subject, "Hello <b>Zoë & \"Co\"</b> Bcc: x, welcome");
    assert_eq!(mail.text, "Dear <b>Zoë & \"Co\"</b>\r\nBcc: x, 2 KÖLN;3 PARIS;");
    let html = mail.html.expect("html");
    assert!(!html.contains("<b>") && html.contains("&lt;b&gt;Zoë &amp; &quot;Co&quot;"), "{html}");
    assert_eq!(html.matches('\'').count(), 0, "{html}");
    assert_eq!(template.variables().collect::<Vec<_>>(), ["cities", "name", "url"]);
}

#[test]
fn escaping_cannot_be_undone() {
    let values = json!({"x": "<script>", "l": ["<script>"]});
    for source in [
        "{{ x|e|upper }}",
        "{{ l|join('<script>') }}",
        "{{ x|replace('a', '<script>') }}",
        "{{ x|e|replace('&lt;', '<') }}",
        "{{ l }}",
        "{{ x|d('<script>') }}",
        "{{ y|d('<script>') }}",
        "{{ x|trim|title|lower }}",
        "{{ x|list|join }}",
        "{{ '<script>' }}",
        "{{ x|e|lines|first }}",
        "{{ x|e|reverse|reverse }}",
        "{{ [x] if false else x }}",
    ] {
        let Ok(template) = compile("s", "t", Some(source)) else {
            continue;
        };
        let html = template.render(&values).expect(source).html.expect("html");
        assert!(!html.to_lowercase().contains("<script"), "{source}: {html}");
    }
    assert!(message(compile("s", "t", Some("{{ x|safe }}"))).contains("the filter `safe` is not supported"));
}

#[test]
fn an_unknown_variable_is_reported_with_its_line_and_a_suggestion() {
    let values = json!({"first_name": "Anna", "lead": {"name": "Anna", "city": "Köln"}});
    let error = text_of("one\n\nDear {{ first_nmae }}", &values).expect_err("unknown");
    assert_eq!(
        error.to_string(),
        "text, line 3: unknown variable `first_nmae`, did you mean `first_name`?; known are: first_name, lead"
    );
    assert_eq!(
        message(compile("{{ lead.nmae }}", "t", None).expect("compiles").render(&values)),
        "subject, line 1: unknown variable `lead.nmae`, did you mean `lead.name`?; known are: lead.city, lead.name"
    );
    assert_eq!(
        message(compile("s", "t", Some("{{ zzz|upper }}")).expect("compiles").render(&json!({}))),
        "html, line 1: unknown variable `zzz`; known are: none"
    );
    for source in
        ["{{ nope.deeper }}", "{% if nope %}x{% endif %}", "{% for x in nope %}x{% endfor %}", "{{ nope + 1 }}"]
    {
        assert!(message(text_of(source, &values)).contains("unknown variable `nope`"), "{source}");
    }
}

#[test]
fn a_missing_value_can_have_a_default() {
    let values = json!({"name": "Anna"});
    assert_eq!(text_of("{{ nick|default('you') }}", &values).as_deref(), Ok("you"));
    assert_eq!(text_of("{{ name if name is defined else 'you' }}", &values).as_deref(), Ok("Anna"));
    assert_eq!(text_of("{% if nick is defined %}{{ nick }}{% else %}-{% endif %}", &values).as_deref(), Ok("-"));
    let spaced = json!({"row": {"First name": "Anna"}});
    assert_eq!(text_of("{{ row['First name'] }}", &spaced).as_deref(), Ok("Anna"));
    assert_eq!(text_of("{{ 'x' if name in ['Anna', 'Ben'] else 'y' }}", &values).as_deref(), Ok("x"));
}

#[test]
fn syntax_errors_have_a_line() {
    let error = compile("s", "a\n{% if x %}", None).expect_err("unfinished");
    assert!(matches!(error, TemplateError::Syntax { part: TemplatePart::Text, line: 2, .. }), "{error:?}");
    assert!(
        message(text_of("{{ name|uper }}", &json!({})))
            .contains("the filter `uper` is not supported, did you mean `upper`?")
    );
}

#[test]
fn includes_macros_and_assignments_are_not_supported() {
    for source in [
        "{% include 'text' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% block a %}{% endblock %}",
        "{% macro a() %}{% endmacro %}",
        "{% set a = 1 %}",
        "{% set a %}x{% endset %}",
        "{% with a = 1 %}{% endwith %}",
        "{% filter upper %}x{% endfilter %}",
        "{% autoescape false %}x{% endautoescape %}",
        "{{ 'a' * 100000000 }}",
        "{{ a ~ a }}",
        "{{ a + a }}",
        "{{ [a, a] }}",
        "{{ {'a': a} }}",
        "{{ range(10) }}",
        "{{ a.upper() }}",
        "{% for x in y recursive %}{{ loop(x) }}{% endfor %}",
        "{{ a|tojson }}",
        "{{ a|indent(9999999999) }}",
        "{{ a|map('upper') }}",
        "{{ a is filter }}",
        "{{ debug() }}",
        "{{ a|d(*b) }}",
    ] {
        assert!(compile("s", source, None).is_err(), "{source}");
    }
    assert!(compile("s", &format!("{{{{ a{} }}}}", "|upper".repeat(300)), None).is_err(), "a long expression");
    assert!(
        compile("s", &format!("{{{{ {}a{} }}}}", "(".repeat(5_000), ")".repeat(5_000)), None).is_err(),
        "a deep one"
    );
}

#[test]
fn size_output_and_steps_are_bounded() {
    let part = TemplatePart::Text;
    let source = "x".repeat(MAX_SOURCE_BYTES + 1);
    assert_eq!(compile("s", &source, None).err(), Some(TemplateError::SourceTooLarge { part }));
    assert!(text_of(&source[1..], &json!({})).is_ok());

    let begun = Instant::now();
    let big = json!({"a": "y".repeat(100_000), "l": (0..1_000).collect::<Vec<_>>()});
    let twelve = "{{ a }}".repeat(12);
    assert_eq!(text_of(&twelve, &big), Err(TemplateError::OutputTooLarge { part }));
    assert!(text_of("{{ a|replace('y', a) }}", &big).is_err());
    assert!(text_of("{{ l|join(a) }}", &big).is_err());
    let loops = "{% for x in l %}{% for y in l %}{% endfor %}{% endfor %}";
    assert!(matches!(text_of(loops, &big), Err(TemplateError::TooManySteps { .. })));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn one_template_renders_quickly_on_several_threads() {
    let template = std::sync::Arc::new(
        compile("Hi {{ name }}", "Dear {{ name }} of {{ city }}", Some("<p>{{ name }}</p>")).expect("compiles"),
    );
    let begun = Instant::now();
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let template = std::sync::Arc::clone(&template);
            std::thread::spawn(move || {
                for index in 0..1_000 {
                    template.render(&json!({"name": index, "city": worker})).expect("renders");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("no panic");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?} for 2,000 mails unoptimised", begun.elapsed());
}
