//! The telemetry of a kernel that really runs, seen from outside.

#[cfg(test)]
mod metrics;
#[cfg(test)]
mod outage;
#[cfg(test)]
#[path = "../../../tests/shared/promtool.rs"]
mod promtool;
#[cfg(test)]
mod scrape;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod traces;
#[cfg(test)]
#[path = "../../../tests/shared/untried.rs"]
mod untried;
