//! Where the journal lies: a URL, or the directory that the system gives a service for its state.

use std::path::PathBuf;

use neuroflow::actors::JournalPlace;

use super::value::{Problem, Raw, Value, quoted, text};

/// The URL of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalUrl(JournalPlace);

impl JournalUrl {
    pub(crate) fn place(&self) -> &JournalPlace {
        &self.0
    }
}

impl Value for JournalUrl {
    const EXPECTED: &'static str = "\"memory\", a URL such as \"file:///var/lib/neuroflow/journal\", \
                                    or \"postgres://user@host/database\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        Ok(Self(JournalPlace::parse(text(raw)?)?))
    }

    fn toml(&self) -> Option<String> {
        match &self.0 {
            JournalPlace::Memory => Some(quoted("memory")),
            JournalPlace::Directory(path) => Some(quoted(&format!("file://{}", path.to_str()?))),
            JournalPlace::Postgres(url) => Some(quoted(&without_password(url))),
            _ => None,
        }
    }

    fn shown(raw: &Raw) -> String {
        text(raw).map_or_else(|_| raw.to_string(), |url| quoted(&without_password(url)))
    }
}

pub(super) fn without_password(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let Some((user, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    match user.split_once(':') {
        Some((user, _password)) => format!("{scheme}://{user}:***@{host}"),
        None => url.to_owned(),
    }
}

/// The journal's directory unless the configuration names another: the service's own, the user's, or
/// none if there is neither.
pub(crate) fn default_directory() -> Option<PathBuf> {
    directory(|name| std::env::var(name).ok())
}

fn directory(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |path: String| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let first = |list: String| list.split(':').next().map(str::to_owned);
    let service = variable("STATE_DIRECTORY").and_then(first).and_then(absolute);
    let user = || {
        let state = variable("XDG_STATE_HOME").and_then(absolute);
        let home = || Some(variable("HOME").and_then(absolute)?.join(".local/state"));
        state.or_else(home).map(|state| state.join("neuroflow"))
    };
    service.or_else(user).map(|state| state.join("journal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Result<JournalUrl, Problem> {
        JournalUrl::read(&Raw::Plain(text.to_owned()))
    }

    #[test]
    fn passwords_are_not_shown() {
        let url = plain("postgres://me:secret@db.example.org/tasks?sslpassword=secret").unwrap();
        assert_eq!(url.toml().unwrap(), "\"postgres://me:***@db.example.org/tasks\"");
        let shown = JournalUrl::shown(&Raw::Text("postgres://me:secret@host".into()));
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(plain("file:///a/b").unwrap().toml().unwrap(), "\"file:///a/b\"");
        assert!(matches!(plain("file://a/b"), Err(Problem::Journal(_))));
    }

    #[test]
    fn the_directory_is_the_services_or_the_users() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> =
                set.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let path = directory(|name| Some(set.iter().find(|(set, _)| set == name)?.1.clone()));
            path.map(|path| path.display().to_string())
        };
        let both = [("STATE_DIRECTORY", "/var/lib/n:/other"), ("HOME", "/home/me")];
        assert_eq!(of(&both).as_deref(), Some("/var/lib/n/journal"));
        assert_eq!(of(&both[1..]).as_deref(), Some("/home/me/.local/state/neuroflow/journal"));
        let state = [("XDG_STATE_HOME", "/state"), ("HOME", "/home/me")];
        assert_eq!(of(&state).as_deref(), Some("/state/neuroflow/journal"));
        assert_eq!(of(&[("XDG_STATE_HOME", "relative")]), None);
    }
}
