//! What a message may still spend.

/// Remaining units of work that a request and everything below it may spend.
///
/// The kernel carries and takes the minimum; what a unit is (a token, a cell-second) the servers
/// that charge it agree on.
///
/// ```
/// use neuroflow_kernel::Budget;
/// let mut budget = Budget::units(3);
/// budget.charge(2)?;
/// assert!(budget.charge(2).is_err());
/// assert_eq!(budget, Budget::units(1));
/// # Ok::<(), neuroflow_kernel::BudgetSpent>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Budget(u64);

impl Budget {
    /// No limit.
    pub const UNLIMITED: Self = Self(u64::MAX);

    /// So many units.
    pub const fn units(units: u64) -> Self {
        Self(units)
    }

    /// The remaining units; nothing if there is no limit.
    pub fn remaining(self) -> Option<u64> {
        (self != Self::UNLIMITED).then_some(self.0)
    }

    /// Takes `units` away, or takes nothing and says what was missing.
    ///
    /// # Errors
    /// [`BudgetSpent`] if fewer units remain.
    pub fn charge(&mut self, units: u64) -> Result<(), BudgetSpent> {
        if *self == Self::UNLIMITED {
            return Ok(());
        }
        match self.0.checked_sub(units) {
            Some(rest) => {
                self.0 = rest;
                Ok(())
            }
            None => Err(BudgetSpent { asked: units, remaining: self.0 }),
        }
    }
}

/// A charge that the budget doesn't cover.
///
/// ```
/// use neuroflow_kernel::Budget;
/// let refused = Budget::units(1).charge(5).unwrap_err();
/// assert_eq!((refused.asked, refused.remaining), (5, 1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} units asked of a budget with {remaining} left")]
pub struct BudgetSpent {
    /// What was to be spent.
    pub asked: u64,
    /// What was left.
    pub remaining: u64,
}
