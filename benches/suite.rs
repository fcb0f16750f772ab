//! Measures the product beside its peers and prints one table.
//!
//! Every group is interleaved: in each round each contestant has its turn, so that whatever else
//! the machine does hits all alike. Whatever is timed is also checked, and what fails is never a
//! sample: it ends the run.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the machine's clock and starts its peers itself"
)]
#![expect(clippy::expect_used, clippy::panic, reason = "a failed operation ends the run")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it's for")]

mod cell;
mod gateway;
mod journal;
mod kernel;
mod process;
mod python;

mod counting;
mod support;

use std::process::ExitCode;

use support::{Arguments, Baseline, Figure, Order, Run, USAGE, compare, print, read, write};

fn main() -> ExitCode {
    let done = match Order::read(std::env::args().skip(1)) {
        Ok(Order::Help) => {
            println!("{USAGE}\nfigures:\n  {}", figures().join("\n  "));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Order::Child { what, count }) => {
            kernel::child(&what, count);
            Ok(ExitCode::SUCCESS)
        }
        Ok(Order::Run(arguments)) => run(&arguments),
        Err(error) => Err(format!("{error}\n\n{USAGE}")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

/// What is measured together: its figures, and the function that measures those that are wanted.
struct Group {
    figures: &'static [&'static str],
    measure: fn(&Arguments) -> Vec<Figure>,
}

const GROUPS: [Group; 6] = [
    Group { figures: kernel::FIGURES, measure: kernel::measure },
    Group { figures: gateway::FIGURES, measure: gateway::measure },
    Group { figures: journal::FIGURES, measure: journal::measure },
    Group { figures: process::FIGURES, measure: process::measure },
    Group { figures: cell::FIGURES, measure: cell::measure },
    Group { figures: python::FIGURES, measure: python::measure },
];

fn figures() -> Vec<&'static str> {
    GROUPS.iter().flat_map(|group| group.figures).copied().collect()
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    if let Some(unknown) = arguments.unknown(&figures()) {
        return Err(format!("there is no figure {unknown}; there are: {}", figures().join(", ")));
    }
    // Read first, so that a wrong path is told before minutes of measuring.
    let baseline: Option<Baseline> = arguments.compare.as_deref().map(read).transpose()?;
    let run = Run::here(arguments.iterations);
    run.print();
    let figures: Vec<Figure> = GROUPS.iter().flat_map(|group| (group.measure)(arguments)).collect();
    print(&figures);
    if let Some(path) = &arguments.json {
        write(path, &run, &figures)?;
    }
    let missed = figures.iter().filter(|figure| figure.is_met() == Some(false)).count();
    let worse = match &baseline {
        Some(baseline) => compare(&figures, baseline, arguments.tolerance)?.len(),
        None => 0,
    };
    let failed = worse > 0 || arguments.strict && missed > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
