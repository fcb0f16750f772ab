//! The table that a run prints.

use super::figure::Figure;

/// Prints all figures in one table: ours on the first line of a figure, a line for each peer.
pub(crate) fn print(figures: &[Figure]) {
    let mut lines = vec![HEAD.map(str::to_owned)];
    for figure in figures {
        let verdict = match figure.is_met() {
            None => "",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        let show = |value| figure.unit.show(value);
        lines.push([
            figure.name.clone(),
            figure.aim(),
            verdict.to_owned(),
            String::new(),
            String::new(),
            String::new(),
            show(figure.ours.p50),
            show(figure.ours.p99),
        ]);
        lines.extend(figure.peers.iter().map(|peer| {
            [
                String::new(),
                String::new(),
                String::new(),
                peer.name.clone(),
                format!("{:.2}", peer.ratio),
                format!("{:.2}", peer.tail_ratio),
                show(peer.quantiles.p50),
                show(peer.quantiles.p99),
            ]
        }));
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths = std::array::from_fn::<_, COLUMNS, _>(|column| width(column).unwrap_or_default());
    for line in &lines {
        let cells = line.iter().zip(widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| {
            if column < FIRST_NUMBER { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    println!(
        "ratio: how many times the peer's cost ours is, by the medians and by p99; above 1 is dearer."
    );
    println!("p99: what all but the worst hundredth of the samples reach.");
}

const COLUMNS: usize = 8;
const HEAD: [&str; COLUMNS] = ["figure", "aim", "", "peer", "ratio", "of p99", "p50", "p99"];
/// From this column on numbers are aligned to the right.
const FIRST_NUMBER: usize = 4;
