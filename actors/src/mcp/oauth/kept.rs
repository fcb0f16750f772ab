//! A refresh token that its issuer replaces at each use, and the file that keeps the latest one over the
//! node's restarts.
//!
//! The file says by a digest which token the operator gave that it comes from: another one that is given
//! later counts in place of what is kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::HEXLOWER;
use futures_util::future::BoxFuture;
use rmcp::transport::{AuthError, CredentialStore, InMemoryCredentialStore, StoredCredentials};
use serde::{Deserialize, Serialize};

use crate::access::sha256;
use crate::limits::KEPT_TOKEN_BYTES;

/// Why a kept refresh token can't be used.
///
/// ```
/// use neuroflow_actors::KeptTokenError;
/// let error = KeptTokenError::Open { path: "crm.token".into(), mode: 0o644 };
/// assert!(error.to_string().contains("chmod 600"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptTokenError {
    /// The system says no.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read or write it.
    #[error("{} is open to others (mode {mode:o}); close it with chmod 600", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It isn't what a node keeps.
    #[error("{} isn't a kept token; remove it, and give a fresh refresh token", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another version of this program has written it.
    #[error("{} has version {found}, and this build knows {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    /// Of the client and the token that was given, hexadecimal.
    of: String,
    refresh_token: String,
}

/// The latest refresh token of one MCP server.
#[derive(Clone)]
pub(super) struct Refresh(Arc<Inner>);

struct Inner {
    /// The digest of what was given, and what was.
    of: String,
    given: String,
    /// What took its place.
    latest: Mutex<Option<String>>,
    file: Option<PathBuf>,
}

impl Refresh {
    /// The token that was given to a client, and where a later one is kept.
    pub(super) fn new(client: &str, token: &str, file: Option<&Path>) -> Self {
        let given = format!("{}:{client}:{token}", client.len());
        let of = HEXLOWER.encode(&sha256(given.as_bytes()));
        let (given, file) = (token.to_owned(), file.map(Path::to_owned));
        Self(Arc::new(Inner { of, given, latest: Mutex::default(), file }))
    }

    /// The latest one, as far as it's known; blocks if that has to be read.
    pub(super) fn token(&self) -> Result<String, KeptTokenError> {
        let mut latest = self.0.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(path)) = (&*latest, &self.0.file) {
            *latest = read(path)?.filter(|kept| kept.of == self.0.of).map(|it| it.refresh_token);
        }
        Ok(latest.clone().unwrap_or_else(|| self.0.given.clone()))
    }

    /// The same, where nothing may block.
    pub(super) async fn latest(&self) -> Result<String, KeptTokenError> {
        let own = self.clone();
        match tokio::task::spawn_blocking(move || own.token()).await {
            Ok(token) => token,
            // It doesn't panic, and is cancelled with the runtime only.
            Err(_cancelled) => std::future::pending().await,
        }
    }

    /// Another one has come, perhaps. It's on the disk before anybody uses what came with it.
    async fn came(&self, token: String) {
        let path = {
            let mut latest = self.0.latest.lock().unwrap_or_else(PoisonError::into_inner);
            if latest.as_ref().unwrap_or(&self.0.given) == &token {
                return;
            }
            *latest = Some(token.clone());
            self.0.file.clone()
        };
        let Some(path) = path else {
            tracing::warn!(
                "an issuer has replaced a refresh token, and nothing keeps it: after a restart the \
                 one that was given isn't good any more; name a file in oauth.keep"
            );
            return;
        };
        let record = Record { version: VERSION, of: self.0.of.clone(), refresh_token: token };
        let place = path.clone();
        let written = tokio::task::spawn_blocking(move || write(&place, &record)).await;
        if let Ok(Err(error)) = written {
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                file = %path.display(),
                "a replaced refresh token isn't kept: after a restart a fresh one has to be given"
            );
        }
    }
}

fn read(path: &Path) -> Result<Option<Record>, KeptTokenError> {
    let unreadable = |source| KeptTokenError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeptTokenError::Open { path: path.to_owned(), mode });
        }
    }
    let mut bytes = Vec::new();
    // What is longer is cut, and then it's no record.
    file.take(KEPT_TOKEN_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    let record: Record = serde_json::from_slice(&bytes)
        .map_err(|source| KeptTokenError::Form { path: path.to_owned(), source })?;
    if record.version != VERSION {
        return Err(KeptTokenError::Version { path: path.to_owned(), found: record.version });
    }
    Ok(Some(record))
}

/// Whole or not at all, and its owner's only.
fn write(path: &Path, record: &Record) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    // One that a crash has left may have another mode.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Where the protocol's library has the credentials of one server.
pub(super) struct Store {
    held: InMemoryCredentialStore,
    refresh: Refresh,
}

impl Store {
    pub(super) fn new(refresh: Refresh) -> Self {
        Self { held: InMemoryCredentialStore::new(), refresh }
    }

    async fn keep(&self, credentials: StoredCredentials) -> Result<(), AuthError> {
        // The library's type is another crate's, whose names we don't have.
        let given = serde_json::to_value(&credentials.token_response).unwrap_or_default();
        if let Some(token) = given["refresh_token"].as_str() {
            self.refresh.came(token.to_owned()).await;
        }
        self.held.save(credentials).await
    }
}

type Doing<'a, T> = BoxFuture<'a, Result<T, AuthError>>;

/// As `async-trait` would write it.
impl CredentialStore for Store {
    fn load<'life, 'doing>(&'life self) -> Doing<'doing, Option<StoredCredentials>>
    where
        'life: 'doing,
        Self: 'doing,
    {
        self.held.load()
    }

    fn save<'life, 'doing>(&'life self, credentials: StoredCredentials) -> Doing<'doing, ()>
    where
        'life: 'doing,
        Self: 'doing,
    {
        Box::pin(self.keep(credentials))
    }

    fn clear<'life, 'doing>(&'life self) -> Doing<'doing, ()>
    where
        'life: 'doing,
        Self: 'doing,
    {
        self.held.clear()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn fresh(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kept-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("crm.token")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _left = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn the_latest_token_outlives_the_process_and_is_its_owners_only() {
        let folder = Folder::fresh("latest");
        let file = folder.file();
        let first = Refresh::new("client", "given", Some(&file));
        assert_eq!(first.latest().await.unwrap(), "given");
        first.came("given".to_owned()).await;
        assert!(!file.exists(), "nothing was replaced");
        // A crash has left this one.
        fs::write(folder.0.join("crm.token.part"), "half").unwrap();
        for token in ["second", "third"] {
            first.came(token.to_owned()).await;
            assert_eq!(first.latest().await.unwrap(), token);
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let again = Refresh::new("client", "given", Some(&file));
        assert_eq!(again.latest().await.unwrap(), "third");
        // Whoever gives another token means that one, and another client has nothing of this.
        for (client, token) in [("client", "fresh"), ("other", "given")] {
            let other = Refresh::new(client, token, Some(&file));
            assert_eq!(other.latest().await.unwrap(), token);
        }
        assert!(!fs::read_to_string(&file).unwrap().contains("given"));
    }

    #[test]
    fn what_others_may_read_or_what_is_none_is_refused() {
        let folder = Folder::fresh("refused");
        let file = folder.file();
        let token = || Refresh::new("client", "given", Some(&file)).token();
        fs::write(&file, "{}").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(token(), Err(KeptTokenError::Open { mode: 0o640, .. })));
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(matches!(token(), Err(KeptTokenError::Form { .. })));
        fs::write(&file, r#"{"version":2,"of":"","refresh_token":"t"}"#).unwrap();
        assert!(matches!(token(), Err(KeptTokenError::Version { found: 2, .. })));
        fs::write(&file, vec![b' '; 1 << 20]).unwrap();
        assert!(matches!(token(), Err(KeptTokenError::Form { .. })));
        fs::remove_file(&file).unwrap();
        assert_eq!(token().unwrap(), "given");
    }
}
