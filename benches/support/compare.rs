//! This run against a former one.
//!
//! Where both runs have the same first peer, what counts is how the ratio to it has changed: what
//! slows the machine down slows the peer down too. Without a peer the medians are compared.

use super::figure::Figure;
use super::machine::Run;

/// How many times as costly as before a figure may be. Less than this is the noise of a machine
/// that is shared with others.
pub(crate) const TOLERANCE: f64 = 1.3;

pub(crate) struct Baseline {
    pub(crate) run: Run,
    pub(crate) figures: Vec<Figure>,
}

/// Prints how each figure has changed, and gives the names of those that are worse than allowed.
pub(crate) fn compare<'a>(
    figures: &'a [Figure],
    baseline: &Baseline,
    tolerance: f64,
) -> Result<Vec<&'a str>, String> {
    println!("\nagainst {} (worse than {tolerance} × is a regression)", baseline.run.commit);
    let (mut worse, mut compared) = (Vec::new(), 0);
    for figure in figures {
        let Some(former) = baseline.figures.iter().find(|former| former.name == figure.name) else {
            println!("  {figure}: not in the baseline");
            continue;
        };
        if former.unit != figure.unit {
            return Err(format!("{figure} was measured in another unit"));
        }
        compared += 1;
        let (change, by) = change(figure, former);
        let verdict = if change > tolerance { "REGRESSION" } else { "ok" };
        println!("  {figure}: {change:.2} × {by}: {verdict}");
        if change > tolerance {
            worse.push(figure.name.as_str());
        }
    }
    if compared == 0 {
        return Err("the baseline has none of these figures".to_owned());
    }
    Ok(worse)
}

/// How many times as costly as before, and what that was told by.
fn change(now: &Figure, former: &Figure) -> (f64, String) {
    if let (Some(peer), Some(old)) = (now.peers.first(), former.peers.first())
        && peer.name == old.name
    {
        return (peer.ratio / old.ratio, format!("beside {}", peer.name));
    }
    (now.unit.cost(now.ours.p50, former.ours.p50), "by its median".to_owned())
}
