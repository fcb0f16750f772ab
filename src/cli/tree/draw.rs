//! The tree as text: branches, columns, and the last failures.

use std::io::{self, Write};

use crate::control::{ActorRow, FailureRow, Tree};
use crate::plain;

/// Failures that are drawn; the JSON has all that the node keeps.
const DRAWN_FAILURES: usize = 5;

pub(super) fn draw(tree: &Tree, out: &mut dyn Write) -> io::Result<()> {
    let mut actors: Vec<&ActorRow> = tree.actors.iter().collect();
    // By names, not by characters: `a-b` must not come between `a` and `a/x`.
    actors.sort_by(|a, b| names(&a.path).cmp(&names(&b.path)));
    let branches = branches(&actors.iter().map(|actor| names(&actor.path)).collect::<Vec<_>>());
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(actors.iter().zip(branches).map(|(actor, branch)| row(actor, branch)));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3, 4, 5, 6].map(|column| width(column).unwrap_or_default());
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            let gap = if column == 0 { "" } else { "  " };
            // Numbers stand to the right.
            let (before, after) = if column < FIRST_NUMBER { ("", &*space) } else { (&*space, "") };
            line.extend([gap, before, cell, after]);
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    if tree.actors_omitted > 0 {
        writeln!(out, "… and {} more", tree.actors_omitted)?;
    }
    draw_failures(&tree.post_mortems, out)
}

const HEAD: [&str; 7] = ["ACTOR", "KIND", "STATE", "MAILBOX", "HANDLED", "RESTARTS", "AGE"];
const FIRST_NUMBER: usize = 3;

fn row(actor: &ActorRow, branch: String) -> [String; 7] {
    let name = names(&actor.path).last().map_or_else(|| "/".to_owned(), plain::name);
    [
        branch + &name,
        plain::name(&actor.kind),
        plain::name(&actor.state),
        format!("{}/{}", actor.mailbox.depth, actor.mailbox.capacity),
        actor.handled.to_string(),
        actor.restarts.to_string(),
        age(actor.age_seconds),
    ]
}

fn names(path: &str) -> Vec<&str> {
    path.split('/').filter(|name| !name.is_empty()).collect()
}

/// What stands before each name. The paths are ordered, so whether a sibling follows is known when
/// they are walked backwards.
fn branches(paths: &[Vec<&str>]) -> Vec<String> {
    // Per level, whether a sibling of the path that is being looked at comes after it.
    let mut follows: Vec<bool> = Vec::new();
    let mut branches: Vec<String> = Vec::with_capacity(paths.len());
    for path in paths.iter().rev() {
        let depth = path.len();
        follows.resize(depth, false);
        let mut branch = String::new();
        if let Some((own, above)) = follows.split_last_mut() {
            branch.extend(above.iter().map(|&follows| if follows { "│  " } else { "   " }));
            branch.push_str(if *own { "├─ " } else { "└─ " });
            *own = true;
        }
        branches.push(branch);
    }
    branches.reverse();
    branches
}

fn draw_failures(failures: &[FailureRow], out: &mut dyn Write) -> io::Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nLast failures, newest first:")?;
    for failure in failures.iter().take(DRAWN_FAILURES) {
        let ago = age(failure.seconds_ago);
        let (path, cause) = (plain::name(&failure.path), plain::name(&failure.cause));
        writeln!(out, "  {ago} ago  {path} (life {}): {cause}", failure.generation)?;
        if let Some(message) = &failure.message {
            let before: Vec<String> = failure.trail.iter().map(plain::name).collect();
            writeln!(out, "    on message {message:?}; last ones: {}", before.join(", "))?;
        }
    }
    if failures.len() > DRAWN_FAILURES {
        writeln!(out, "  … and {} more with --json", failures.len() - DRAWN_FAILURES)?;
    }
    Ok(())
}

/// The two largest units, such as `2h05m`.
fn age(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an age isn't negative, and the cast saturates"
    )]
    let whole = seconds as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3_600, whole / 86_400);
    match whole {
        0..10 => format!("{seconds:.1}s"),
        10..60 => format!("{whole}s"),
        60..3_600 => format!("{minutes}m{:02}s", whole % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_show_who_follows() {
        let paths = ["/", "/a", "/a/x", "/a/x/1", "/a/y", "/b", "/b/z"];
        let drawn = branches(&paths.map(names));
        let expected = ["", "├─ ", "│  ├─ ", "│  │  └─ ", "│  └─ ", "└─ ", "   └─ "];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn ages_are_short() {
        let shown = [0.25, 12.9, 61.0, 7_500.0, 200_000.0].map(age);
        assert_eq!(shown, ["0.2s", "12s", "1m01s", "2h05m", "2d07h"]);
    }

    #[test]
    fn a_terminal_is_not_steered_and_no_line_is_forged() {
        let failure = FailureRow {
            path: "/agents/a".to_owned(),
            kind: "agent".to_owned(),
            generation: 1,
            cause: "boom\x1b[2J\n  0.1s ago  /agents/b".to_owned(),
            seconds_ago: 3.0,
            message: Some("ask\n\u{9b}".to_owned()),
            trail: vec!["tick\u{202e}".to_owned()],
        };
        let mut out = Vec::new();
        draw_failures(&[failure], &mut out).unwrap();
        let expected = "
Last failures, newest first:
  3.0s ago  /agents/a (life 1): boom\\u{1b}[2J\\n  0.1s ago  /agents/b
    on message \"ask\\n\\u{9b}\"; last ones: tick\\u{202e}
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
