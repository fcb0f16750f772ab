//! One line per event, in two forms.
//!
//! What a message or field contains may come from anybody. In both forms it stays on its line and
//! can't steer a terminal: control characters are escaped.

use std::error::Error;
use std::fmt::{self, Write};

use neuroflow_kernel::{TraceContext, current_trace};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::causes::chain;
use crate::limits::LOG_VALUE_BYTES;

/// How a line looks.
///
/// ```
/// use neuroflow_telemetry::logs::LogFormat;
/// assert_eq!("json".parse(), Ok(LogFormat::Json));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people: time, level, target, message, fields.
    Text,
    /// For machines: one JSON object.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat),
        }
    }
}

/// There are two formats, and this is neither.
///
/// ```
/// use neuroflow_telemetry::logs::{LogFormat, UnknownFormat};
/// assert_eq!("xml".parse::<LogFormat>(), Err(UnknownFormat));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log format is \"text\" or \"json\"")]
pub struct UnknownFormat;

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut spans = Vec::new();
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            spans.push(span.name());
        }
        let mut found = Found::default();
        event.record(&mut found);
        let line = Line { event, spans: &spans, found: &found, trace: current_trace() };
        match self {
            Self::Text => line.text(&mut writer),
            Self::Json => line.json(&mut writer),
        }
    }
}

/// What a line is made of.
struct Line<'a> {
    event: &'a Event<'a>,
    spans: &'a [&'static str],
    found: &'a Found,
    trace: TraceContext,
}

impl Line<'_> {
    fn text(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let metadata = self.event.metadata();
        let ansi = writer.has_ansi_escapes();
        let dim = |writer: &mut Writer<'_>, text: &str| {
            if ansi { write!(writer, "\x1b[2m{text}\x1b[0m") } else { writer.write_str(text) }
        };
        dim(writer, &now())?;
        let (colour, level) = level(*metadata.level());
        if ansi {
            write!(writer, " \x1b[{colour}m{level:>5}\x1b[0m ")?;
        } else {
            write!(writer, " {level:>5} ")?;
        }
        dim(writer, metadata.target())?;
        for span in self.spans {
            write!(writer, " {span}:")?;
        }
        writer.write_str(" ")?;
        plain(writer, &self.found.message)?;
        for (name, value) in &self.found.fields {
            writer.write_str(" ")?;
            dim(writer, name)?;
            dim(writer, "=")?;
            match value {
                Value::Text(text) if text.contains([' ', '=', '"']) || text.is_empty() => {
                    writer.write_str("\"")?;
                    plain(writer, &text.replace('"', "\\\""))?;
                    writer.write_str("\"")?;
                }
                Value::Text(text) => plain(writer, text)?,
                Value::Bare(text) => writer.write_str(text)?,
            }
        }
        if !self.trace.is_none() {
            let ids = format!(" trace_id={} span_id={}", trace_id(self.trace), span_id(self.trace));
            dim(writer, &ids)?;
        }
        writeln!(writer)
    }

    fn json(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let metadata = self.event.metadata();
        write!(writer, "{{\"timestamp\":{}", quoted(&now()))?;
        write!(writer, ",\"level\":{}", quoted(level(*metadata.level()).1))?;
        write!(writer, ",\"target\":{}", quoted(metadata.target()))?;
        write!(writer, ",\"message\":{}", quoted(&self.found.message))?;
        if !self.trace.is_none() {
            write!(writer, ",\"trace_id\":\"{}\"", trace_id(self.trace))?;
            write!(writer, ",\"span_id\":\"{}\"", span_id(self.trace))?;
        }
        if !self.spans.is_empty() {
            let names: Vec<String> = self.spans.iter().map(|name| quoted(name)).collect();
            write!(writer, ",\"spans\":[{}]", names.join(","))?;
        }
        writer.write_str(",\"fields\":{")?;
        for (at, (name, value)) in self.found.fields.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match value {
                Value::Text(text) => write!(writer, "{comma}{}:{}", quoted(name), quoted(text))?,
                Value::Bare(text) => write!(writer, "{comma}{}:{text}", quoted(name))?,
            }
        }
        writeln!(writer, "}}}}")
    }
}

/// The message and fields of one event.
#[derive(Default)]
struct Found {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

enum Value {
    Text(String),
    /// A number or truth value, the same in both forms.
    Bare(String),
}

impl Found {
    fn add(&mut self, field: &Field, value: Value) {
        let value = match value {
            Value::Text(text) if text.len() > LOG_VALUE_BYTES => Value::Text(cut(&text)),
            value => value,
        };
        match value {
            Value::Text(text) | Value::Bare(text) if field.name() == "message" => {
                self.message = text;
            }
            value => self.fields.push((field.name(), value)),
        }
    }
}

impl Visit for Found {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::Text(value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, Value::Text(chain(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Bare(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Bare(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Bare(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity and no NaN.
        let kind = if value.is_finite() { Value::Bare } else { Value::Text };
        self.add(field, kind(value.to_string()));
    }
}

/// The beginning of a text, and how much there is of it.
fn cut(text: &str) -> String {
    let (start, _) = text.split_at(text.floor_char_boundary(LOG_VALUE_BYTES));
    format!("{start}… ({} bytes)", text.len())
}

fn now() -> String {
    let mut text = String::new();
    match SystemTime.format_time(&mut Writer::new(&mut text)) {
        Ok(()) => text,
        Err(fmt::Error) => String::new(),
    }
}

/// The colour and name of a level.
fn level(level: Level) -> (u8, &'static str) {
    match level {
        Level::ERROR => (31, "ERROR"),
        Level::WARN => (33, "WARN"),
        Level::INFO => (32, "INFO"),
        Level::DEBUG => (34, "DEBUG"),
        Level::TRACE => (35, "TRACE"),
    }
}

fn trace_id(trace: TraceContext) -> String {
    format!("{:032x}", u128::from_be_bytes(trace.trace_id()))
}

fn span_id(trace: TraceContext) -> String {
    format!("{:016x}", u64::from_be_bytes(trace.span_id()))
}

/// Writes the text with its control characters escaped.
fn plain(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    for character in text.chars() {
        if character.is_control() {
            write!(writer, "{}", character.escape_default())?;
        } else {
            writer.write_char(character)?;
        }
    }
    Ok(())
}

/// The text as a JSON string. Beyond what JSON asks for, the control characters of terminals that
/// JSON lets pass are escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                // All control characters are below U+00A0; a text never fails to grow.
                let _written = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use neuroflow_kernel::InTrace;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Buffer {
        type Writer = Self;
        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let lines = super::super::layer(format, buffer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn parsed(log: impl FnOnce()) -> serde_json::Value {
        let line = logged(LogFormat::Json, log);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_long_value_is_cut_and_says_how_long_it_was() {
        let long = "ü".repeat(1_000_000);
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = logged(format, || tracing::warn!(id = %long, name = long, "{long}"));
            assert_eq!(line.matches("… (2000000 bytes)").count(), 3, "{}", line.len());
            assert!(line.len() < 4 * LOG_VALUE_BYTES, "{}", line.len());
        }
    }

    #[test]
    fn json_has_every_part_in_its_type() {
        let json = parsed(|| {
            tracing::warn!(target: "node", count = 3, big = u64::MAX, ok = true, ratio = 0.5,
                nan = f64::NAN, name = "a\"b\n", "it is {}", "so");
        });
        assert_eq!(json["level"], "WARN");
        assert_eq!(json["target"], "node");
        assert_eq!(json["message"], "it is so");
        assert_eq!(json["fields"]["count"], 3);
        assert_eq!(json["fields"]["big"], u64::MAX);
        assert_eq!(json["fields"]["ok"], true);
        assert_eq!(json["fields"]["ratio"], 0.5);
        assert_eq!(json["fields"]["nan"], "NaN");
        assert_eq!(json["fields"]["name"], "a\"b\n");
        assert!(json.get("trace_id").is_none());
        let time = json["timestamp"].as_str().unwrap();
        assert!(time.len() >= 20 && time.ends_with('Z') && &time[10..11] == "T", "{time}");
    }

    #[test]
    fn a_line_names_the_trace_of_the_message_being_handled() {
        let trace = TraceContext::root(true);
        let handling = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(InTrace::new(trace, Box::pin(async { tracing::info!("handling") })));
        };
        let json = parsed(handling);
        assert_eq!(json["trace_id"], trace_id(trace));
        assert_eq!(json["span_id"], span_id(trace));
        let text = logged(LogFormat::Text, handling);
        let ids = format!(" handling trace_id={} span_id={}\n", trace_id(trace), span_id(trace));
        assert!(text.ends_with(&ids), "{text}");
    }

    #[test]
    fn text_is_one_line_in_a_fixed_order() {
        let text = logged(LogFormat::Text, || {
            tracing::info!(target: "node", path = "/agents", words = "two words", n = 1, "started");
        });
        assert!(text.ends_with("  INFO node started path=/agents words=\"two words\" n=1\n"));
    }

    #[test]
    fn what_others_say_cannot_steer_a_terminal_or_forge_a_line() {
        let evil = "\x1b[2J\r\nERROR forged \u{9b}31m";
        let text = logged(LogFormat::Text, || tracing::info!(field = evil, "{evil}"));
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(!text.contains(['\x1b', '\r', '\u{9b}']), "{text:?}");
        let json = logged(LogFormat::Json, || tracing::info!(field = evil, "{evil}"));
        assert!(!json.contains(['\x1b', '\r', '\u{9b}']), "{json:?}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["message"], evil);
    }

    #[test]
    fn an_error_comes_with_its_causes() {
        let error = neuroflow_kernel::StartError::Name(neuroflow_kernel::NameError::Empty);
        let json = parsed(|| tracing::error!(error = &error as &dyn Error, "no"));
        let text = json["fields"]["error"].as_str().unwrap();
        assert!(text.starts_with("the child's name isn't valid: "), "{text}");
    }

    #[test]
    fn spans_of_a_host_are_named() {
        let json = parsed(|| {
            let _outer = tracing::info_span!("outer").entered();
            let _inner = tracing::info_span!("inner").entered();
            tracing::info!("here");
        });
        assert_eq!(json["spans"], serde_json::json!(["outer", "inner"]));
    }
}
