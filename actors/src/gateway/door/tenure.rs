//! How long something may go on that lasts longer than the request that asked for it: until its
//! credential isn't good any more, or the policy that allowed it is taken back.

use super::Admitted;
use crate::access::{Change, Standing};

/// Watches over who was let in.
#[derive(Debug)]
pub(crate) struct Tenure {
    admitted: Admitted,
    standing: Standing,
}

/// Why something can't go on.
#[derive(Debug)]
pub(crate) enum Lost<E> {
    /// The credential has ended.
    Credential,
    /// The rules allow it no more.
    Right(E),
}

/// What is said of a credential that has ended.
pub(crate) const CREDENTIAL_ENDED: &str =
    "the credential that this was opened with isn't good any more; bring a fresh one";

impl Admitted {
    /// For something that goes on; none where nobody has to prove who they are.
    pub(crate) fn tenure(&self) -> Option<Tenure> {
        let standing = self.standing()?;
        Some(Tenure { admitted: self.clone(), standing })
    }
}

impl Tenure {
    /// Returns once it's lost. `still` is asked under each change of the rules. Dropping the future
    /// loses nothing, unless it was ready.
    pub(crate) async fn lost<E>(
        &mut self,
        mut still: impl FnMut(&Admitted) -> Result<(), E>,
    ) -> Lost<E> {
        loop {
            match self.standing.changed().await {
                Change::Ended => return Lost::Credential,
                Change::Rules(rules, generation) => {
                    self.admitted.now_under(rules, generation);
                    if let Err(error) = still(&self.admitted) {
                        return Lost::Right(error);
                    }
                }
            }
        }
    }

    /// The clock that it goes by.
    #[cfg(feature = "mcp")]
    pub(crate) fn clock(&self) -> &neuroflow_kernel::Clock {
        self.standing.clock()
    }
}
