//! What an outcome means at a level. Pure.

use std::time::Duration;

use super::{Attempt, Outcome, Stopped, Wall, expected};
use crate::level::{Layer, Level};

/// One attempt at one level.
///
/// ```no_run
/// # fn doc(attack: &neuroflow_sandbox::escape::Attack) {
/// println!("{}: {:?}", attack.attempt.name, attack.judgement());
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attack {
    /// What was tried.
    pub attempt: &'static Attempt,
    /// At which level.
    pub level: Level,
    /// Layers of the level that this host lacks, and that the cell may do without.
    pub degraded: Vec<Layer>,
    /// How it ended.
    pub outcome: Outcome,
    /// How the same ended without a cell, if that was tried.
    pub control: Option<Outcome>,
    /// How long it took.
    pub took: Duration,
}

/// What an outcome means.
///
/// ```
/// use neuroflow_sandbox::escape::Judgement;
///
/// assert!(Judgement::Breach.is_failure() && !Judgement::Held.is_failure());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Judgement {
    /// It was stopped by what has to stop it.
    Held,
    /// It was stopped, but not by what has to stop it.
    OtherWall,
    /// It got through, and the level promises that it doesn't.
    Breach,
    /// The level promises nothing about it, whatever came of it.
    Open,
    /// It shows nothing here.
    Void,
    /// Nothing can be concluded, although the level promises something.
    Unclear,
}

impl Judgement {
    /// Whether the level, or the attempt, isn't as it should be.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::OtherWall | Self::Breach | Self::Unclear)
    }
}

impl Attack {
    /// An attempt that ended so, without a control, and with all layers in force.
    ///
    /// ```
    /// use neuroflow_sandbox::Level;
    /// use neuroflow_sandbox::escape::{Attack, Judgement, Outcome, Suite};
    ///
    /// let attempt = Suite::attempts().next().ok_or("no attempts")?;
    /// let attack = Attack::new(attempt, Level::Strict, Outcome::Succeeded("read it".into()));
    /// assert_eq!(attack.judgement(), Judgement::Breach);
    /// # Ok::<(), &str>(())
    /// ```
    pub fn new(attempt: &'static Attempt, level: Level, outcome: Outcome) -> Self {
        let (degraded, control, took) = (Vec::new(), None, Duration::ZERO);
        Self { attempt, level, degraded, outcome, control, took }
    }

    /// What the outcome means.
    pub fn judgement(&self) -> Judgement {
        judge(&self.outcome, &self.expected())
    }

    /// The walls of which one has to stop the attempt at the level; none if nothing is promised.
    pub fn expected(&self) -> Vec<Wall> {
        expected::walls(self.attempt.name, self.level, &self.degraded)
    }
}

pub(super) fn judge(outcome: &Outcome, expected: &[Wall]) -> Judgement {
    match outcome {
        Outcome::Moot(_) | Outcome::NotTried(_) | Outcome::Degraded(_) => Judgement::Void,
        _ if expected.is_empty() => Judgement::Open,
        Outcome::Succeeded(_) => Judgement::Breach,
        Outcome::Stopped(Stopped { layer, .. }) if expected.contains(layer) => Judgement::Held,
        Outcome::Stopped(_) => Judgement::OtherWall,
        Outcome::Unclear(_) => Judgement::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_promised_wall_holds() {
        let root = Wall::Layer(Layer::PrivateRoot);
        let by = |layer| Outcome::Stopped(Stopped { layer, evidence: String::new() });
        assert_eq!(judge(&by(root), &[root]), Judgement::Held);
        assert_eq!(judge(&by(Wall::FirstProcess), &[root]), Judgement::OtherWall);
        assert_eq!(judge(&Outcome::Succeeded(String::new()), &[root]), Judgement::Breach);
        assert_eq!(judge(&Outcome::Unclear(String::new()), &[root]), Judgement::Unclear);
        assert_eq!(judge(&Outcome::Succeeded(String::new()), &[]), Judgement::Open);
        assert_eq!(judge(&Outcome::Moot(String::new()), &[root]), Judgement::Void);
        assert_eq!(judge(&Outcome::Degraded(Layer::Cgroup), &[]), Judgement::Void);
    }
}
