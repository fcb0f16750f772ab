//! The journal in a database without the feature `postgres`: there can be none, and whoever names one is
//! told.

use std::future::{Ready, ready};

use neuroflow_kernel::Clock;

use super::index::Kept;
use super::{
    Append, AppendError, DatabaseError, HeadPage, OpenError, ReadError, Retention, TaskHead,
    TaskLog, TaskQuery,
};

/// Nothing is ever one.
#[derive(Debug)]
pub(super) enum Postgres {}

impl Postgres {
    pub(super) fn open(_: &str, _: &str, _: Clock) -> Ready<Result<Self, OpenError>> {
        ready(Err(OpenError::Unsupported))
    }

    pub(super) fn open_to_read(_: &str, _: Clock) -> Ready<Result<Self, OpenError>> {
        ready(Err(OpenError::Unsupported))
    }

    pub(super) fn commit(&self, _: &[Append]) -> Ready<Vec<Result<(), AppendError>>> {
        match *self {}
    }

    pub(super) fn read(&self, _: &str, _: &str) -> Ready<Result<Option<TaskLog>, ReadError>> {
        match *self {}
    }

    pub(super) fn head(&self, _: &str, _: &str) -> Ready<Result<Option<TaskHead>, ReadError>> {
        match *self {}
    }

    pub(super) fn answers(&self) -> Ready<Result<(), DatabaseError>> {
        match *self {}
    }

    pub(super) fn agents(&self) -> Ready<Result<Vec<String>, ReadError>> {
        match *self {}
    }

    pub(super) fn heads(&self, _: &str, _: &TaskQuery) -> Ready<Result<HeadPage, ReadError>> {
        match *self {}
    }

    pub(super) fn unfinished(&self, _: &str) -> Ready<Result<Vec<TaskHead>, ReadError>> {
        match *self {}
    }

    pub(super) fn remove(&self, _: &[(String, String)]) -> Ready<Result<usize, AppendError>> {
        match *self {}
    }

    pub(super) fn ended(&self) -> Kept {
        match *self {}
    }

    pub(super) fn due(
        &self,
        _: &Retention,
        _: Option<u64>,
    ) -> Ready<Result<Vec<(String, String)>, AppendError>> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::{JournalConfig, JournalPlace, OpenedJournal};
    use super::*;

    #[tokio::test]
    async fn a_database_is_refused_with_the_feature_that_it_needs() {
        let place = JournalPlace::parse("postgres://me:s3cr3t@db.example.org/tasks").unwrap();
        let opened = OpenedJournal::open(JournalConfig::new(place), Clock::system()).await;
        let error = opened.unwrap_err();
        assert!(matches!(error, OpenError::Unsupported), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("feature postgres") && !text.contains("s3cr3t"), "{text}");
    }
}
