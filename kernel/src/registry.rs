//! Names, and the scopes that say who may look them up.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::address::Address;
use crate::message::Message;
use crate::name::{Name, NameError, Path};
use crate::slot::{Lineage, Resolve};

#[derive(Default)]
pub(crate) struct Registry {
    names: RwLock<HashMap<Path, Named>>,
}

/// Whose name it is, and what leads there.
struct Named {
    lineage: Arc<Lineage>,
    entry: Arc<dyn Any + Send + Sync>,
}

/// Wraps the trait object, because `Any` needs a sized type.
struct Entry<M>(Arc<dyn Resolve<M>>);

impl Registry {
    pub(crate) fn insert<M: Message>(&self, path: Path, slot: Arc<dyn Resolve<M>>) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let lineage = Arc::clone(slot.lineage());
        names.insert(path, Named { lineage, entry: Arc::new(Entry(slot)) });
    }

    /// Takes a name away from this actor, unless another has it by now.
    pub(crate) fn remove(&self, path: &Path, of: &Arc<Lineage>) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if names.get(path).is_some_and(|named| Arc::ptr_eq(&named.lineage, of)) {
            names.remove(path);
        }
    }

    fn get(&self, path: &Path) -> Option<Arc<dyn Any + Send + Sync>> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.get(path).map(|named| Arc::clone(&named.entry))
    }

    fn below(&self, scope: &Path) -> Vec<Path> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut below: Vec<_> =
            names.keys().filter(|path| path.is_within(scope)).cloned().collect();
        below.sort();
        below
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// The power to look up names below one path, and nowhere else.
///
/// Nothing hands a scope out by itself: it comes from the [`Kernel`](crate::Kernel)'s owner, who
/// passes it, or a narrower one, to whom it wants.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// use neuroflow_kernel::{Kernel, LookupError, Message};
/// # struct Ping;
/// # impl Message for Ping { fn name(&self) -> &'static str { "ping" } }
/// let kernel = Kernel::builder().start().await?;
/// let agents = kernel.scope().within("agents")?;
/// assert!(matches!(agents.lookup::<Ping>("echo"), Err(LookupError::Unknown { .. })));
/// # kernel.stop().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scope {
    registry: Arc<Registry>,
    path: Path,
}

impl Scope {
    pub(crate) fn new(registry: Arc<Registry>, path: Path) -> Self {
        Self { registry, path }
    }

    /// The scope of one name further down.
    ///
    /// # Errors
    /// Says what is wrong with the name.
    pub fn within(&self, name: &str) -> Result<Self, NameError> {
        let path = self.path.join(&Name::new(name)?)?;
        Ok(Self { registry: Arc::clone(&self.registry), path })
    }

    /// The path that this scope covers.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The address of the actor at `relative`, such as `echo` or `billing/invoices`. It follows the
    /// name across restarts.
    ///
    /// # Errors
    /// Says whether the name is malformed, unknown here, or another kind of actor.
    pub fn lookup<M: Message>(&self, relative: &str) -> Result<Address<M>, LookupError> {
        let path = relative
            .split('/')
            .try_fold(self.path.clone(), |path, name| path.join(&Name::new(name)?))?;
        let entry = self.registry.get(&path);
        let Some(entry) = entry else {
            return Err(LookupError::Unknown { path });
        };
        match entry.downcast_ref::<Entry<M>>() {
            Some(Entry(slot)) => Ok(Address::of_name(Arc::clone(slot))),
            None => Err(LookupError::OtherMessage { path }),
        }
    }

    /// The names below this scope.
    pub fn names(&self) -> Vec<Path> {
        self.registry.below(&self.path)
    }
}

/// Why a name leads nowhere.
///
/// ```
/// use neuroflow_kernel::{LookupError, NameError};
/// assert!(matches!(LookupError::from(NameError::Empty), LookupError::Name(_)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// Not a name.
    #[error("not a valid name")]
    Name(#[from] NameError),
    /// Nothing has this name in this scope.
    #[error("there is no actor {path}")]
    Unknown {
        /// The full path.
        path: Path,
    },
    /// Something has this name, and takes other messages.
    #[error("the actor {path} takes other messages")]
    OtherMessage {
        /// The full path.
        path: Path,
    },
}
