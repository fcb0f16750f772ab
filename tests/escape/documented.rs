//! The table of attempts in `docs/SECURITY.md` is the suite's own.

use std::path::Path;

use neuroflow_sandbox::escape::Suite;

/// Columns of a row: attempt, class, the four levels, and `bwrap`.
const COLUMNS: usize = 7;

#[test]
fn the_table_has_every_attempt_and_nothing_got_through() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let rows = text.lines().skip_while(|line| !line.starts_with("| attempt | class |")).skip(2);
    let rows: Vec<Vec<&str>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let told: Vec<_> = rows.iter().map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
    let suite: Vec<_> = Suite::attempts()
        .map(|attempt| (format!("{}: {}", attempt.name, attempt.about), attempt.class.to_string()))
        .collect();
    assert_eq!(told, suite, "print it anew: neuroflow doctor --markdown");
    for row in rows {
        assert_eq!(row.len(), COLUMNS, "{row:?}");
        let ours = &row[2..COLUMNS - 1];
        assert!(ours.iter().all(|level| !level.contains("got through")), "{row:?}");
    }
}
