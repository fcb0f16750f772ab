//! The kernel's spans in OpenTelemetry's form: the ids are kept as they are.

use std::borrow::Cow;

use neuroflow_kernel::{Span, SpanKind, SpanValue};
use opentelemetry::trace::{self, SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::conventions::attribute::ERROR_TYPE;
use crate::limits::MAX_ATTRIBUTE_BYTES;

/// The span as it's exported: its status is an error exactly if `error.type` is there.
pub(crate) fn data(span: &Span, scope: &InstrumentationScope) -> SpanData {
    let context = SpanContext::new(
        TraceId::from_bytes(span.context.trace_id()),
        SpanId::from_bytes(span.context.span_id()),
        TraceFlags::new(span.context.flags()),
        false,
        TraceState::NONE,
    );
    let mut attributes: Vec<KeyValue> = span
        .attributes
        .iter()
        .filter(|(name, _)| *name != ERROR_TYPE)
        .map(|(name, given)| KeyValue::new(*name, value(given)))
        .collect();
    let status = match &span.error {
        Some(error) => {
            attributes.push(KeyValue::new(ERROR_TYPE, text(error.clone())));
            Status::Error { description: Cow::Borrowed("") }
        }
        None => Status::Unset,
    };
    SpanData {
        span_context: context,
        // Zeros if there is no parent, as OpenTelemetry has it too.
        parent_span_id: SpanId::from_bytes(span.parent.span_id()),
        parent_span_is_remote: span.remote_parent,
        span_kind: match span.kind {
            SpanKind::Server => trace::SpanKind::Server,
            SpanKind::Client => trace::SpanKind::Client,
            SpanKind::Internal => trace::SpanKind::Internal,
        },
        name: span.name.clone(),
        start_time: span.started,
        end_time: span.ended,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: scope.clone(),
    }
}

fn value(value: &SpanValue) -> Value {
    match value {
        SpanValue::Text(given) => text(given.clone()),
        SpanValue::Integer(number) => Value::I64(*number),
        SpanValue::Bool(flag) => Value::Bool(*flag),
    }
}

/// A text within its limit; one from the program itself isn't copied.
fn text(text: Cow<'static, str>) -> Value {
    let end = text.floor_char_boundary(MAX_ATTRIBUTE_BYTES);
    match text {
        Cow::Borrowed(text) => Value::from(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Value::from(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use neuroflow_kernel::{
        Clock, KindObserver, Lifecycle, Observer, SpanGuard, TraceContext, Tracer, Unobserved,
    };

    #[derive(Debug, Default)]
    struct Keep(Mutex<Vec<SpanData>>);

    impl Observer for Keep {
        fn lifecycle(&self, _: &Lifecycle<'_>) {}
        fn kind(&self, _: &'static str) -> Arc<dyn KindObserver> {
            Arc::new(Unobserved)
        }
        fn span(&self, span: &Span) {
            let scope = InstrumentationScope::builder("test").build();
            self.0.lock().unwrap().push(data(span, &scope));
        }
    }

    fn exported(fill: impl FnOnce(&mut SpanGuard)) -> (SpanData, TraceContext) {
        let keep = Arc::new(Keep::default());
        let tracer = Tracer::new(Clock::system(), Arc::clone(&keep) as Arc<dyn Observer>);
        let mut span = tracer.root(true, "work", SpanKind::Server);
        fill(&mut span);
        let context = span.context();
        drop(span);
        (keep.0.lock().unwrap().remove(0), context)
    }

    #[test]
    fn ids_flags_and_kind_are_kept() {
        let (data, context) = exported(|_| ());
        assert_eq!(data.span_context.trace_id().to_bytes(), context.trace_id());
        assert_eq!(data.span_context.span_id().to_bytes(), context.span_id());
        assert_eq!(data.span_context.trace_flags().to_u8(), context.flags());
        assert_eq!(data.parent_span_id, SpanId::INVALID);
        assert_eq!(data.span_kind, trace::SpanKind::Server);
        assert_eq!(data.status, Status::Unset);
    }

    #[test]
    fn the_error_type_is_there_exactly_with_an_error_status() {
        let has = |data: &SpanData| data.attributes.iter().any(|a| a.key.as_str() == ERROR_TYPE);
        let (failed, _) = exported(|span| span.fail("timeout"));
        assert!(has(&failed) && matches!(failed.status, Status::Error { .. }));
        let (fine, _) = exported(|span| span.set(ERROR_TYPE, "left over"));
        assert!(!has(&fine) && fine.status == Status::Unset);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let (data, _) = exported(|span| span.set("text", "ä".repeat(MAX_ATTRIBUTE_BYTES)));
        assert_eq!(data.attributes[0].value.as_str().len(), MAX_ATTRIBUTE_BYTES);
    }
}
