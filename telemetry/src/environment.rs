//! OpenTelemetry's environment variables, as its specification reads them.
//!
//! A value that can't be understood is an error here, where the specification would warn and go on:
//! whoever sets a variable wants it to count.

use std::collections::BTreeMap;
use std::num::{ParseFloatError, ParseIntError};
use std::time::Duration;

use crate::config::{TelemetryConfig, TraceConfig};
use crate::conventions::resource;
use crate::sampler::{RatioError, Sampler};

impl TelemetryConfig {
    /// Lets the environment decide over what was set before. `variable` is usually
    /// `|name| std::env::var(name).ok()`; an empty value counts as none.
    ///
    /// Read are `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SDK_DISABLED`,
    /// `OTEL_TRACES_EXPORTER`, `OTEL_TRACES_SAMPLER` with its `_ARG`, and, each also in its
    /// `OTEL_EXPORTER_OTLP_TRACES_*` form, which wins: `OTEL_EXPORTER_OTLP_ENDPOINT`, `_HEADERS`,
    /// `_PROTOCOL`, `_TIMEOUT`. Traces are exported only if there is an endpoint.
    ///
    /// ```
    /// use neuroflow_telemetry::TelemetryConfig;
    /// let variable = |name: &str| match name {
    ///     "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://collector:4318".to_owned()),
    ///     _ => None,
    /// };
    /// assert!(TelemetryConfig::default().environment(variable)?.exports_traces());
    /// # Ok::<(), neuroflow_telemetry::EnvironmentError>(())
    /// ```
    ///
    /// # Errors
    /// Names the variable that can't be understood, or asks for what this build can't do.
    pub fn environment(
        mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, EnvironmentError> {
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        if let Some(list) = get(RESOURCE_ATTRIBUTES) {
            self.resource.extend(pairs(RESOURCE_ATTRIBUTES, &list)?);
        }
        if let Some(name) = get("OTEL_SERVICE_NAME") {
            self.resource.insert(resource::SERVICE_NAME.to_owned(), name);
        }
        let disabled = get("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"));
        match get(TRACES_EXPORTER).as_deref() {
            _ if disabled => self.traces = None,
            Some("none") => self.traces = None,
            None | Some("otlp") => self.read_traces(get)?,
            Some(other) => return Err(unsupported(TRACES_EXPORTER, other, "otlp or none")),
        }
        Ok(self)
    }

    fn read_traces(
        &mut self,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<(), EnvironmentError> {
        if let Some(endpoint) = get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            self.traces = Some(TraceConfig::at(endpoint));
        } else if let Some(base) = get("OTEL_EXPORTER_OTLP_ENDPOINT") {
            self.traces = Some(TraceConfig::collector(base));
        }
        let Some(traces) = &mut self.traces else { return Ok(()) };
        let either = |traces: &'static str, all: &'static str| {
            let found = get(traces).map(|value| (traces, value));
            found.or_else(|| get(all).map(|value| (all, value)))
        };
        if let Some((name, protocol)) =
            either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
            && protocol != "http/protobuf"
        {
            return Err(unsupported(name, &protocol, "http/protobuf"));
        }
        if let Some((name, list)) =
            either("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
        {
            traces.headers.extend(pairs(name, &list)?);
        }
        if let Some((variable, value)) =
            either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
        {
            let millis = value.trim().parse();
            let millis =
                millis.map_err(|source| EnvironmentError::Milliseconds { variable, source })?;
            traces.timeout = Duration::from_millis(millis);
        }
        if let Some(sampler) = sampler(get)? {
            traces.sampler = sampler;
        }
        Ok(())
    }
}

/// The root's part of the sampler: what has a parent follows it in any case.
fn sampler(get: impl Fn(&str) -> Option<String>) -> Result<Option<Sampler>, EnvironmentError> {
    let Some(name) = get(SAMPLER) else { return Ok(None) };
    match name.trim_start_matches("parentbased_") {
        "always_on" => Ok(Some(Sampler::ALWAYS)),
        "always_off" => Ok(Some(Sampler::NEVER)),
        "traceidratio" => {
            let Some(text) = get(SAMPLER_ARG) else { return Ok(Some(Sampler::ALWAYS)) };
            Ok(Some(Sampler::ratio(text.trim().parse()?)?))
        }
        _ => Err(unsupported(SAMPLER, &name, "always_on, always_off or traceidratio")),
    }
}

/// A list of `name=value` pairs, the values percent-encoded, as W3C baggage has it.
fn pairs(variable: &'static str, list: &str) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let mut pairs = BTreeMap::new();
    for (at, pair) in list.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
        let malformed = || EnvironmentError::Pair { variable, number: at + 1 };
        let (name, value) = pair.split_once('=').ok_or_else(malformed)?;
        let (name, value) = (name.trim(), value.trim());
        let value = percent_decoded(value).ok_or_else(malformed)?;
        if name.is_empty() {
            return Err(malformed());
        }
        pairs.insert(name.to_owned(), value);
    }
    Ok(pairs)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(digits[0])? * 16 + digit(digits[1])?;
        bytes.push(u8::try_from(value).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// Why a variable doesn't count.
///
/// ```
/// use neuroflow_telemetry::{EnvironmentError, TelemetryConfig};
/// let variable = |name: &str| (name == "OTEL_TRACES_EXPORTER").then(|| "zipkin".to_owned());
/// let error = TelemetryConfig::default().environment(variable).unwrap_err();
/// assert!(matches!(error, EnvironmentError::Unsupported { .. }));
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// It asks for something that isn't there.
    #[error("{variable} is {value:?}; there is only {supported}")]
    Unsupported {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is there.
        supported: &'static str,
    },
    /// It isn't a list of `name=value` pairs with percent-encoded values. The list isn't quoted:
    /// headers are secrets.
    #[error("entry {number} of {variable} isn't name=value with the value percent-encoded")]
    Pair {
        /// The variable.
        variable: &'static str,
        /// Which entry, from 1.
        number: usize,
    },
    /// It isn't a number of milliseconds.
    #[error("{variable} isn't a number of milliseconds")]
    Milliseconds {
        /// The variable.
        variable: &'static str,
        /// Why.
        #[source]
        source: ParseIntError,
    },
    /// `OTEL_TRACES_SAMPLER_ARG` isn't a number.
    #[error("OTEL_TRACES_SAMPLER_ARG isn't a number")]
    Number(#[from] ParseFloatError),
    /// `OTEL_TRACES_SAMPLER_ARG` isn't a ratio.
    #[error("OTEL_TRACES_SAMPLER_ARG isn't a ratio")]
    Ratio(#[from] RatioError),
}

fn unsupported(variable: &'static str, value: &str, supported: &'static str) -> EnvironmentError {
    EnvironmentError::Unsupported { variable, value: value.to_owned(), supported }
}

const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const TRACES_EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<TelemetryConfig, EnvironmentError> {
        TelemetryConfig::default().environment(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318");

    #[test]
    fn nothing_set_is_nothing_exported() {
        assert!(!read(&[]).unwrap().exports_traces());
        assert!(!read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap().exports_traces());
    }

    #[test]
    fn the_traces_endpoint_wins_and_is_taken_as_it_is() {
        let both = [ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/x")];
        assert_eq!(read(&both).unwrap().traces.unwrap().endpoint(), "http://traces/x");
        let base = read(&[ENDPOINT]).unwrap().traces.unwrap();
        assert_eq!(base.endpoint(), "http://all:4318/v1/traces");
    }

    #[test]
    fn the_service_name_wins_over_the_resource_attributes() {
        let list = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a, team=x%20y,service.version=2");
        let resource = read(&[list]).unwrap().resource;
        assert_eq!(resource["service.name"], "a");
        assert_eq!(resource["team"], "x y");
        let resource = read(&[list, ("OTEL_SERVICE_NAME", "b")]).unwrap().resource;
        assert_eq!(resource["service.name"], "b");
        assert_eq!(resource["service.version"], "2");
    }

    #[test]
    fn headers_are_decoded_and_never_quoted_in_errors() {
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc,x=1");
        let traces = read(&[ENDPOINT, headers]).unwrap().traces.unwrap();
        assert_eq!(traces.headers["authorization"], "Bearer abc");
        let bad = ("OTEL_EXPORTER_OTLP_HEADERS", "x=1,secret%2");
        let error = read(&[ENDPOINT, bad]).unwrap_err();
        assert!(matches!(error, EnvironmentError::Pair { number: 2, .. }));
        assert!(!error.to_string().contains("secret"));
        assert!(read(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "x=%zz")]).is_err());
    }

    #[test]
    fn the_ratio_counts_with_its_sampler_only() {
        let ratio = ("OTEL_TRACES_SAMPLER_ARG", "0.25");
        let sampler = |more: &[(&str, &str)]| {
            let all = [&[ENDPOINT, ratio], more].concat();
            read(&all).map(|config| config.traces.unwrap().sampler)
        };
        assert_eq!(sampler(&[]), Ok(Sampler::ALWAYS));
        for name in ["traceidratio", "parentbased_traceidratio"] {
            assert_eq!(sampler(&[(SAMPLER, name)]).unwrap(), Sampler::ratio(0.25).unwrap());
        }
        assert_eq!(sampler(&[(SAMPLER, "always_off")]), Ok(Sampler::NEVER));
        assert!(sampler(&[(SAMPLER, "jaeger_remote")]).is_err());
        let arg = |text| read(&[ENDPOINT, (SAMPLER, "traceidratio"), (SAMPLER_ARG, text)]);
        assert!(matches!(arg("half"), Err(EnvironmentError::Number(_))));
        assert!(matches!(arg("2"), Err(EnvironmentError::Ratio(_))));
    }

    #[test]
    fn what_this_build_cannot_do_is_said() {
        let grpc = [ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        assert!(matches!(read(&grpc), Err(EnvironmentError::Unsupported { .. })));
        let soon = [ENDPOINT, ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")];
        assert!(matches!(read(&soon), Err(EnvironmentError::Milliseconds { .. })));
    }

    #[test]
    fn it_can_be_switched_off() {
        for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert!(!read(&[ENDPOINT, off]).unwrap().exports_traces());
        }
    }
}
