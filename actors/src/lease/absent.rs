//! Leases without the feature `postgres`: nobody could keep them, and whoever wants some is told.

use std::future::{Ready, ready};
use std::time::Duration;

use neuroflow_kernel::Clock;

use super::{Fence, Holder, LeaseError};
use crate::journal::DatabaseError;

/// Nothing is ever one.
#[derive(Debug)]
pub(super) enum Database {}

/// What a keeper would ask for.
#[derive(Clone, Debug)]
pub(super) struct Key;

impl Key {
    pub(super) fn new(_: &str) -> Self {
        Self
    }

    pub(super) fn text(&self) -> &str {
        ""
    }
}

impl Database {
    pub(super) fn open(_: &str, _: &str, _: Clock) -> Ready<Result<Self, LeaseError>> {
        ready(Err(LeaseError::Unsupported))
    }

    pub(super) fn take(
        &self,
        _: &Key,
        _: Duration,
        _: Option<&str>,
    ) -> Ready<Result<Option<Fence>, DatabaseError>> {
        match *self {}
    }

    pub(super) fn keep(
        &self,
        _: &Key,
        _: Fence,
        _: Duration,
    ) -> Ready<Result<bool, DatabaseError>> {
        match *self {}
    }

    pub(super) fn give_back(&self, _: &Key, _: Fence) -> Ready<Result<(), DatabaseError>> {
        match *self {}
    }

    pub(super) fn holder(&self, _: &str) -> Ready<Result<Option<Holder>, DatabaseError>> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::Leases;
    use super::*;

    #[tokio::test]
    async fn leases_are_refused_with_the_feature_that_they_need() {
        let url = "postgres://me:s3cr3t@db.example.org/leases";
        let error = Leases::open(url, "a", Clock::system()).await.unwrap_err();
        assert!(matches!(error, LeaseError::Unsupported), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("feature postgres") && !text.contains("s3cr3t"), "{text}");
    }
}
