//! What the escape suite showed, in the words of a report.

use std::io::{self, Write};

use neuroflow::Level;
use neuroflow::sandbox::escape::{
    Attack, Class, Comparison, Judgement, Outcome, Stopped, Suite, SuiteError,
};
use serde::Serialize;

/// All attacks at one level.
#[derive(Debug, Serialize)]
pub(super) struct LevelAttacks {
    pub(super) level: String,
    pub(super) attempts: usize,
    /// Stopped by what has to stop them.
    held: usize,
    /// Nothing is promised about these.
    open: usize,
    /// These show nothing here.
    void: usize,
    /// Got through against the promise.
    pub(super) breaches: usize,
    /// Stopped, but not by what has to stop them.
    pub(super) other_wall: usize,
    /// Nobody knows by what they were stopped, so the promise isn't shown to be kept.
    pub(super) unclear: usize,
    attacks: Vec<AttackRow>,
}

#[derive(Debug, Serialize)]
struct AttackRow {
    attempt: &'static str,
    class: String,
    about: &'static str,
    judgement: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_by: Option<String>,
    evidence: String,
    expected: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    without_cell: Option<String>,
    milliseconds: u128,
}

/// Attacks a level that the host can give.
pub(super) async fn attack(
    suite: &mut Suite,
    level: Level,
    quick: bool,
) -> Result<Vec<Attack>, SuiteError> {
    suite.run(level, |attempt| attempt.quick || !quick, |_| ()).await
}

impl LevelAttacks {
    pub(super) fn new(level: Level, attacks: &[Attack]) -> Self {
        let count = |wanted: &[Judgement]| {
            attacks.iter().filter(|attack| wanted.contains(&attack.judgement())).count()
        };
        Self {
            level: level.to_string(),
            attempts: attacks.len(),
            held: count(&[Judgement::Held]),
            open: count(&[Judgement::Open]),
            void: count(&[Judgement::Void]),
            breaches: count(&[Judgement::Breach]),
            other_wall: count(&[Judgement::OtherWall]),
            unclear: count(&[Judgement::Unclear]),
            attacks: attacks.iter().map(AttackRow::new).collect(),
        }
    }

    /// One line of counts, then every attempt that didn't end as promised, or all of them.
    pub(super) fn write(&self, out: &mut dyn Write, all: bool) -> io::Result<()> {
        writeln!(
            out,
            "{:<9} {} attempts: {} stopped as promised, {} without a promise, {} show nothing \
             here, {} got through, {} stopped by another wall, {} unclear",
            self.level,
            self.attempts,
            self.held,
            self.open,
            self.void,
            self.breaches,
            self.other_wall,
            self.unclear
        )?;
        for class in Class::ALL {
            let name = class.to_string();
            let rows = self.attacks.iter().filter(|row| row.class == name);
            let mut rows = rows.filter(|row| all || row.is_failure()).peekable();
            if rows.peek().is_some() {
                writeln!(out, "  {name}")?;
            }
            for row in rows {
                row.write(out)?;
            }
        }
        Ok(())
    }
}

impl AttackRow {
    fn new(attack: &Attack) -> Self {
        let (outcome, stopped_by, evidence) = words(&attack.outcome);
        Self {
            attempt: attack.attempt.name,
            class: attack.attempt.class.to_string(),
            about: attack.attempt.about,
            judgement: judgement(attack.judgement()),
            outcome,
            stopped_by,
            evidence,
            expected: attack.expected().iter().map(ToString::to_string).collect(),
            without_cell: attack.control.as_ref().map(|control| {
                let (outcome, _, evidence) = words(control);
                format!("{outcome}: {evidence}")
            }),
            milliseconds: attack.took.as_millis(),
        }
    }

    fn is_failure(&self) -> bool {
        [BREACH, ELSEWHERE, UNCLEAR].contains(&self.judgement)
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let by = self.stopped_by.as_deref().unwrap_or(self.outcome);
        write!(out, "    {:<26} {:<16} {by} ({})", self.attempt, self.judgement, self.evidence)?;
        if self.is_failure() {
            write!(out, "; it has to be: {}", self.expected.join(" or "))?;
        }
        writeln!(out)
    }
}

/// The words for an outcome: what it is, by whom, and what shows it.
fn words(outcome: &Outcome) -> (&'static str, Option<String>, String) {
    match outcome {
        Outcome::Stopped(Stopped { layer, evidence }) => {
            ("stopped", Some(layer.to_string()), evidence.clone())
        }
        Outcome::Succeeded(what) => ("got through", None, what.clone()),
        Outcome::Moot(why) => ("shows nothing", None, why.clone()),
        Outcome::NotTried(why) => ("not tried", None, (*why).to_owned()),
        Outcome::Degraded(layer) => {
            ("not tried", None, format!("missing here, which is allowed: {layer}"))
        }
        Outcome::Unclear(why) => ("unclear", None, why.clone()),
        _ => ("unknown", None, String::new()),
    }
}

const BREACH: &str = "breach";
const ELSEWHERE: &str = "other wall";
const UNCLEAR: &str = "unclear";

fn judgement(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Held => "held",
        Judgement::OtherWall => ELSEWHERE,
        Judgement::Breach => BREACH,
        Judgement::Open => "no promise",
        Judgement::Void => "void",
        _ => UNCLEAR,
    }
}

/// The table of `docs/SECURITY.md`: attempts by rows, levels and the peer by columns.
pub(super) fn write_markdown(
    out: &mut dyn Write,
    levels: &[(Level, Option<Vec<Attack>>)],
    peer: Option<&[Comparison]>,
) -> io::Result<()> {
    write!(out, "| attempt | class |")?;
    for (level, _) in levels {
        write!(out, " {level} |")?;
    }
    writeln!(out, "{}", if peer.is_some() { " bwrap |" } else { "" })?;
    let columns = 2 + levels.len() + usize::from(peer.is_some());
    writeln!(out, "|{}", "---|".repeat(columns))?;
    for attempt in Suite::attempts() {
        write!(out, "| {}: {} | {} |", attempt.name, attempt.about, attempt.class)?;
        for (_, attacks) in levels {
            let attack = attacks
                .as_ref()
                .map(|attacks| attacks.iter().find(|attack| attack.attempt.name == attempt.name));
            let text = match attack {
                None => "not to be had here".to_owned(),
                Some(None) => NOTHING.to_owned(),
                Some(Some(attack)) => cell(&attack.outcome, attack.judgement()),
            };
            write!(out, " {text} |")?;
        }
        if let Some(peer) = peer {
            let found = peer.iter().find(|comparison| comparison.attempt.name == attempt.name);
            let text = found.map_or_else(
                || NOTHING.to_owned(),
                |comparison| cell(&comparison.outcome, Judgement::Breach),
            );
            write!(out, " {text} |")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// In a table, for what wasn't tried.
const NOTHING: &str = "–";

fn cell(outcome: &Outcome, judgement: Judgement) -> String {
    match outcome {
        Outcome::Stopped(Stopped { layer, .. }) => layer.to_string(),
        Outcome::Succeeded(_) if judgement == Judgement::Open => "open".to_owned(),
        Outcome::Succeeded(_) => "**got through**".to_owned(),
        Outcome::Moot(_) => "(nobody can here)".to_owned(),
        Outcome::Unclear(why) => format!("stopped ({why})"),
        _ => NOTHING.to_owned(),
    }
}
