//! Names of actors and the paths that they make.

use std::fmt;
use std::sync::Arc;

use crate::limits::{MAX_NAME_BYTES, MAX_PATH_DEPTH};

/// One segment of a path: 1 to 128 bytes of `a-z A-Z 0-9 . _ -`.
///
/// ```
/// use neuroflow_kernel::Name;
/// assert!(Name::new("echo").is_ok());
/// assert!(Name::new("a/b").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong { bytes: text.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some((at, character)) = text.char_indices().find(|&(_, c)| !allowed(c)) {
            return Err(NameError::Character { character, at });
        }
        if text.chars().all(|c| c == '.') {
            return Err(NameError::Dots);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text isn't a name.
///
/// ```
/// use neuroflow_kernel::{Name, NameError};
/// assert_eq!(Name::new("").unwrap_err(), NameError::Empty);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is no text.
    #[error("a name needs at least one character")]
    Empty,
    /// The text is over the limit.
    #[error("a name has at most {MAX_NAME_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
    },
    /// A character that paths, metrics or logs would have to escape.
    #[error("a name has letters, digits, '.', '_' and '-' only, not {character:?} at byte {at}")]
    Character {
        /// The character.
        character: char,
        /// Where it stands.
        at: usize,
    },
    /// Only dots, which a reader of paths would take for a direction.
    #[error("a name can't be made of dots only")]
    Dots,
    /// A path with too many names.
    #[error("a path has at most {MAX_PATH_DEPTH} names")]
    TooDeep,
}

/// Where an actor stands in the supervision tree, such as `/agents/echo`.
///
/// ```
/// use neuroflow_kernel::{Name, Path};
/// let agents = Path::ROOT.join(&Name::new("agents")?)?;
/// assert_eq!(agents.as_str(), "/agents");
/// assert!(agents.is_within(&Path::ROOT));
/// # Ok::<(), neuroflow_kernel::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Option<Arc<str>>);

impl Path {
    /// `/`, the root of the tree.
    pub const ROOT: Self = Self(None);

    /// The path of a child of this name.
    ///
    /// # Errors
    /// [`NameError::TooDeep`] past the depth limit.
    pub fn join(&self, name: &Name) -> Result<Self, NameError> {
        let parent = self.0.as_deref().unwrap_or_default();
        if parent.bytes().filter(|&b| b == b'/').count() >= MAX_PATH_DEPTH {
            return Err(NameError::TooDeep);
        }
        Ok(Self(Some(Arc::from(format!("{parent}/{name}")))))
    }

    /// The text, beginning with `/`.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("/")
    }

    /// The last name, or nothing for the root.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref().and_then(|path| path.rsplit('/').next())
    }

    /// Whether this is `scope` or below it.
    pub fn is_within(&self, scope: &Self) -> bool {
        match (&self.0, &scope.0) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(path), Some(scope)) => path
                .strip_prefix(&**scope)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_refuses_what_a_path_would_have_to_escape() {
        assert_eq!(Name::new("a b").unwrap_err(), NameError::Character { character: ' ', at: 1 });
        assert_eq!(Name::new("..").unwrap_err(), NameError::Dots);
        assert_eq!(Name::new("x".repeat(129)).unwrap_err(), NameError::TooLong { bytes: 129 });
        assert_eq!(Name::new("mcp.git-hub_1").unwrap().as_str(), "mcp.git-hub_1");
    }

    #[test]
    fn within_respects_whole_names() {
        let path = |names: &[&str]| {
            names
                .iter()
                .fold(Path::ROOT, |path, name| path.join(&Name::new(name).unwrap()).unwrap())
        };
        assert!(path(&["agents", "echo"]).is_within(&path(&["agents"])));
        assert!(!path(&["agents2"]).is_within(&path(&["agents"])));
        assert!(!Path::ROOT.is_within(&path(&["agents"])));
        assert_eq!(path(&["agents", "echo"]).name(), Some("echo"));
    }

    #[test]
    fn a_path_has_a_depth_limit() {
        let name = Name::new("n").unwrap();
        let deep = (0..MAX_PATH_DEPTH).try_fold(Path::ROOT, |path, _| path.join(&name)).unwrap();
        assert_eq!(deep.join(&name).unwrap_err(), NameError::TooDeep);
    }
}
