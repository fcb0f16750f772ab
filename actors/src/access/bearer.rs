//! Bearer tokens of this node: made, written down as hashes, and looked up.
//!
//! A token is 256 random bits, so its plain SHA-256 can't be searched for and a slow hash would only
//! slow every request down: those are for secrets that people choose.

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::rand::{SecureRandom, SystemRandom};

use super::credential::AuthError;
use super::file::sha256;
use super::principal::Principal;
use crate::limits::{GROUPS, TOKENS};

/// What a token of this node begins with, so that scanners for leaked secrets know it.
const PREFIX: &str = "nf_";

/// Random bytes of a token.
const SECRET_BYTES: usize = 32;

/// The name of a token's holder: 1 to 64 letters, digits, `.`, `_` or `-`.
///
/// ```
/// use neuroflow_actors::TokenName;
/// assert_eq!(TokenName::new("ci")?.as_str(), "ci");
/// assert!(TokenName::new("a b").is_err());
/// # Ok::<(), neuroflow_actors::TokenProblem>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenName(String);

impl TokenName {
    /// Checks a name.
    ///
    /// # Errors
    /// Says what a name is made of.
    pub fn new(name: impl Into<String>) -> Result<Self, TokenProblem> {
        let name = name.into();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(TokenProblem::Name);
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A token that was just made. It's shown once, and then only its hash is known.
///
/// ```
/// use neuroflow_actors::{FreshToken, TokenName};
/// let token = FreshToken::generate(&TokenName::new("ci")?, &["builders".to_owned()], None)?;
/// assert!(token.secret().starts_with("nf_"));
/// assert!(token.line().starts_with("ci sha256:") && !token.line().contains(token.secret()));
/// # Ok::<(), neuroflow_actors::TokenProblem>(())
/// ```
pub struct FreshToken {
    secret: String,
    line: String,
}

impl fmt::Debug for FreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshToken").field("line", &self.line).finish_non_exhaustive()
    }
}

/// The last second of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

impl FreshToken {
    /// Makes a token for this holder, with its groups and the moment it ends.
    ///
    /// # Errors
    /// Says what is wrong with a group or the moment, or that the system has no random bytes.
    pub fn generate(
        name: &TokenName,
        groups: &[String],
        expires: Option<SystemTime>,
    ) -> Result<Self, TokenProblem> {
        let mut random = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut random).map_err(|_unspecified| TokenProblem::NoRandom)?;
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let mut line =
            format!("{} sha256:{}", name.as_str(), HEXLOWER.encode(&sha256(secret.as_bytes())));
        if !groups.is_empty() {
            let groups = groups.join(",");
            read_groups(&groups)?;
            line.push_str(" groups=");
            line.push_str(&groups);
        }
        if let Some(at) = expires {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            // Beyond the year 9999 no line has a form for it.
            let seconds = i64::try_from(since.as_secs()).ok().filter(|it| *it <= LAST_SECOND);
            let at = seconds.and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0));
            let at = at.ok_or(TokenProblem::Expires)?;
            line.push_str(" expires=");
            line.push_str(&at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        }
        Ok(Self { secret, line })
    }

    /// What the holder sends.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The line for the file of tokens.
    pub fn line(&self) -> &str {
        &self.line
    }
}

/// What is wrong with a line of the file of tokens.
///
/// ```
/// assert!(neuroflow_actors::TokenProblem::Digest.to_string().contains("sha256:"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenProblem {
    /// No name, or one with other characters.
    #[error("a name is 1 to 64 letters, digits, '.', '_' or '-'")]
    Name,
    /// No digest, or one of another form.
    #[error("after the name comes sha256: and 64 hexadecimal digits")]
    Digest,
    /// A field that isn't known.
    #[error("{field:?} is neither groups=A,B nor expires=2030-01-31T00:00:00Z")]
    Field {
        /// The field.
        field: String,
    },
    /// Groups have other characters, or there are too many.
    #[error("groups are up to {GROUPS} names of 1 to 64 letters, digits, '.', '_' or '-'")]
    Groups,
    /// Not a moment.
    #[error("expires is a moment such as 2030-01-31T00:00:00Z")]
    Expires,
    /// Two lines have the same token.
    #[error("the same token is there twice")]
    Twice,
    /// More than a node keeps.
    #[error("there are more than {TOKENS} tokens; use an issuer of JWTs")]
    TooMany,
    /// It isn't UTF-8.
    #[error("it isn't UTF-8")]
    Unicode,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

/// Why a file of tokens isn't one.
///
/// ```
/// use neuroflow_actors::{TokenFileError, TokenProblem};
/// let error = TokenFileError { path: "tokens".into(), line: 3, problem: TokenProblem::Name };
/// assert!(error.to_string().starts_with("tokens:3"));
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {problem}; make lines with `neuroflow token new NAME`", path.display())]
pub struct TokenFileError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: TokenProblem,
}

/// The tokens of a file.
#[derive(Debug, Default)]
pub(super) struct Tokens(HashMap<[u8; 8], Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    digest: [u8; 32],
    principal: Principal,
    /// Since the Unix epoch.
    expires: Option<Duration>,
}

impl Tokens {
    /// Reads a file: a token per line, empty lines, and comments after `#`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, (usize, TokenProblem)> {
        let text = std::str::from_utf8(bytes).map_err(|_invalid| (1, TokenProblem::Unicode))?;
        let mut tokens = Self::default();
        let mut count = 0_usize;
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            count += 1;
            let taken = if count > TOKENS { Err(TokenProblem::TooMany) } else { entry(line) };
            taken.and_then(|entry| tokens.add(entry)).map_err(|problem| (index + 1, problem))?;
        }
        Ok(tokens)
    }

    fn add(&mut self, entry: Entry) -> Result<(), TokenProblem> {
        let entries = self.0.entry(index(&entry.digest)).or_default();
        if entries.iter().any(|other| other.digest == entry.digest) {
            return Err(TokenProblem::Twice);
        }
        entries.push(entry);
        Ok(())
    }

    /// Whether it looks like a token of this node.
    pub(super) fn is_ours(token: &str) -> bool {
        token.starts_with(PREFIX)
    }

    /// Who has a token of this name that is still valid.
    pub(super) fn holder(&self, name: &str, now: Duration) -> Option<Principal> {
        let mut entries = self.0.values().flatten();
        let found = entries.find(|entry| {
            entry.principal.name() == name && entry.expires.is_none_or(|at| at > now)
        });
        found.map(|entry| entry.principal.clone())
    }

    /// Whose token has this digest, and when it ends. `now` is the time since the Unix epoch.
    pub(super) fn at(
        &self,
        digest: &[u8; 32],
        now: Duration,
    ) -> Result<(&Principal, Option<Duration>), AuthError> {
        // A digest's first bytes say nothing of the token, so this look-up may take its time.
        let candidates = self.0.get(&index(digest)).map(Vec::as_slice).unwrap_or_default();
        let found = candidates.iter().find(|entry| same(&entry.digest, digest));
        let entry = found.ok_or(AuthError::UnknownToken)?;
        match entry.expires {
            Some(at) if at <= now => Err(AuthError::Expired),
            _ => Ok((&entry.principal, entry.expires)),
        }
    }
}

fn index(digest: &[u8; 32]) -> [u8; 8] {
    let mut index = [0; 8];
    index.copy_from_slice(digest.first_chunk::<8>().unwrap_or(&[0; 8]));
    index
}

/// Compares in a time that says nothing about where they differ.
fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let differing = left.iter().zip(right).fold(0, |sum, (left, right)| sum | (left ^ right));
    black_box(differing) == 0
}

fn entry(line: &str) -> Result<Entry, TokenProblem> {
    let mut fields = line.split_ascii_whitespace();
    let name = TokenName::new(fields.next().unwrap_or_default())?;
    let digest = fields.next().and_then(|field| field.strip_prefix("sha256:"));
    // Upper case is taken as well: other tools than ours write digests so.
    let digest = digest.and_then(|digits| HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok());
    let digest = digest.and_then(|digest| digest.try_into().ok()).ok_or(TokenProblem::Digest)?;
    let (mut groups, mut expires) = (Vec::new(), None);
    for field in fields {
        if let Some(text) = field.strip_prefix("groups=") {
            groups = read_groups(text)?;
        } else if let Some(text) = field.strip_prefix("expires=") {
            let at = DateTime::parse_from_rfc3339(text).map_err(|_other| TokenProblem::Expires)?;
            let seconds = u64::try_from(at.timestamp()).map_err(|_past| TokenProblem::Expires)?;
            expires = Some(Duration::from_secs(seconds));
        } else {
            return Err(TokenProblem::Field { field: field.to_owned() });
        }
    }
    Ok(Entry { digest, principal: Principal::token(name.0, groups), expires })
}

fn read_groups(text: &str) -> Result<Vec<String>, TokenProblem> {
    let groups: Vec<String> = text
        .split(',')
        .map(|group| TokenName::new(group).map(|name| name.0))
        .collect::<Result<_, _>>()
        .map_err(|_name| TokenProblem::Groups)?;
    if groups.len() > GROUPS { Err(TokenProblem::Groups) } else { Ok(groups) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(tokens: &Tokens, token: &str, now: Duration) -> Result<Principal, AuthError> {
        tokens.at(&sha256(token.as_bytes()), now).map(|(principal, _)| principal.clone())
    }

    fn fresh(name: &str, groups: &[&str], expires: Option<u64>) -> FreshToken {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let expires = expires.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at));
        FreshToken::generate(&TokenName::new(name).unwrap(), &groups, expires).unwrap()
    }

    const NOW: Duration = Duration::from_secs(1_000_000);

    #[test]
    fn a_token_is_found_by_its_secret_alone() {
        let (a, b) = (fresh("a", &["x", "y"], None), fresh("b", &[], None));
        let file = format!("# tokens\n\n{}  # the first\n{}\n", a.line(), b.line());
        let tokens = Tokens::parse(file.as_bytes()).unwrap();
        let found = find(&tokens, a.secret(), NOW).unwrap();
        assert_eq!((found.id(), found.groups()), ("token:a", &["x".into(), "y".into()][..]));
        assert_eq!(find(&tokens, b.secret(), NOW).unwrap().id(), "token:b");
        let (name, digest) = b.line().split_once(':').unwrap();
        let upper = format!("{name}:{}", digest.to_ascii_uppercase());
        assert!(find(&Tokens::parse(upper.as_bytes()).unwrap(), b.secret(), NOW).is_ok());
        let other = fresh("a", &[], None);
        assert!(matches!(find(&tokens, other.secret(), NOW), Err(AuthError::UnknownToken)));
        assert!(matches!(find(&tokens, a.line(), NOW), Err(AuthError::UnknownToken)));
        assert!(!file.contains(a.secret()));
    }

    #[test]
    fn a_token_ends_when_its_line_says_so() {
        let token = fresh("a", &[], Some(NOW.as_secs()));
        let tokens = Tokens::parse(token.line().as_bytes()).unwrap();
        assert!(find(&tokens, token.secret(), NOW.saturating_sub(Duration::from_secs(1))).is_ok());
        assert!(matches!(find(&tokens, token.secret(), NOW), Err(AuthError::Expired)));
    }

    #[test]
    fn a_bad_line_is_named() {
        let line = fresh("a", &[], None).line().to_owned();
        let problem = |text: &str| Tokens::parse(text.as_bytes()).unwrap_err();
        assert_eq!(problem(&format!("{line}\n{line}")), (2, TokenProblem::Twice));
        assert_eq!(problem("a/b sha256:00"), (1, TokenProblem::Name));
        assert_eq!(problem("\n\na sha256:00"), (3, TokenProblem::Digest));
        assert_eq!(problem("a"), (1, TokenProblem::Digest));
        let signs = format!("a sha256:{}", "+f".repeat(32));
        assert_eq!(problem(&signs), (1, TokenProblem::Digest));
        assert_eq!(problem(&format!("{line} groups=a,,b")), (1, TokenProblem::Groups));
        assert_eq!(problem(&format!("{line} expires=soon")), (1, TokenProblem::Expires));
        let field = TokenProblem::Field { field: "admin".into() };
        assert_eq!(problem(&format!("{line} admin")), (1, field));
    }
}
