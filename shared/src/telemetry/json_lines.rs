//! Log lines as JSON objects with the fields of the event and of all enclosing spans at the top
//! level.
//!
//! Invariant: one event is one line and one write, whatever its fields contain. A field of the
//! event takes precedence over a span's field of the same name, and an inner span over an outer
//! one, so `job_id` has the same name in every line.

use std::fmt;
use std::io::Write;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::{clock::Clock, error_text::with_causes};

/// The layer that writes the lines.
pub(super) struct JsonLines<W> {
    clock: Clock,
    writer: W,
}

impl<W> JsonLines<W> {
    pub(super) fn new(clock: Clock, writer: W) -> Self {
        Self { clock, writer }
    }
}

/// The fields of one span, stored in its extensions.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.0.extend(fields.0.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        event.record(&mut line);
        let metadata = event.metadata();
        let time = self.clock.now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        line.0.insert("timestamp".into(), time.into());
        line.0.insert("level".into(), metadata.level().as_str().into());
        line.0.insert("target".into(), metadata.target().into());
        let text = format!("{}\n", Value::Object(line.0));
        // The log itself cannot be written, so there is no place left to report it.
        let _ = self.writer.make_writer_for(metadata).write_all(text.as_bytes());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    /// Writes an error with its causes: the outermost text alone often says only that something
    /// failed.
    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        self.put(field, with_causes(error).into());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let start = chrono::DateTime::from_timestamp(1_800_000_000, 5_000).unwrap();
        let layer = JsonLines::new(ManualClock::new(start).clock(), move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let bytes = buffer.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn fields_of_spans_are_at_the_top_level() {
        let lines = logged(|| {
            let request = tracing::info_span!("request", request_id = "r1", tenant = tracing::field::Empty);
            request.record("tenant", "t1");
            let _outer = request.entered();
            let _inner = tracing::info_span!("job", job_id = %"j1", attempt = 1).entered();
            tracing::warn!(attempt = 2, "two\nlines");
        });
        let expected = serde_json::json!([{
            "timestamp": "2027-01-15T08:00:00.000005Z", "level": "WARN", "message": "two\nlines",
            "target": "shared::telemetry::json_lines::tests",
            "request_id": "r1", "tenant": "t1", "job_id": "j1", "attempt": 2,
        }]);
        assert_eq!(Value::from(lines), expected);
    }

    #[test]
    fn an_error_is_logged_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::fmt::Error);
        let error = Outer(std::fmt::Error);
        let lines = logged(|| tracing::error!(error = &error as &dyn std::error::Error, "failed"));
        assert_eq!(lines[0]["error"], format!("outer: {}", std::fmt::Error));
    }
}
