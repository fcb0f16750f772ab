//! The telemetry of a kernel that really runs, seen from outside.

#[cfg(test)]
mod metrics;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod scrape;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod traces;
