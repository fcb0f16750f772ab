//! The arguments of a run.

use std::path::PathBuf;

use super::compare::TOLERANCE;

pub(crate) const USAGE: &str = "\
usage: cargo bench --bench suite -- [OPTIONS]

  --iterations N    rounds of each figure (default 200); 1 is a smoke test
  --tasks N         tasks of gateway/durable-memory (default 200000)
  --only NAME       a group (kernel) or a figure (kernel/call); may be given several times
  --json PATH       write machine, commit and every figure's quantiles there
  --compare PATH    exit with 1 if a figure is worse than in that file
  --strict          exit with 1 if a figure misses its aim
  --tolerance X     how much worse it may be, as a ratio (default 1.3)
  --help            this text
";

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Order {
    Help,
    Run(Arguments),
    /// One measurement in a process of its own, started by the suite itself.
    Child {
        what: String,
        count: usize,
    },
}

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) iterations: usize,
    pub(crate) tasks: usize,
    pub(crate) json: Option<PathBuf>,
    pub(crate) compare: Option<PathBuf>,
    /// Whether a missed aim is a failure.
    pub(crate) strict: bool,
    pub(crate) tolerance: f64,
    only: Vec<String>,
}

impl Arguments {
    /// Whether the figure `group/name` is wanted.
    pub(crate) fn wants(&self, figure: &str) -> bool {
        let covers = |only: &String| {
            figure
                .strip_prefix(only.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.only.is_empty() || self.only.iter().any(covers)
    }

    /// Whether the figure was asked for by its own name: some take minutes, and aren't for every run.
    /// A smoke test has them all.
    pub(crate) fn names(&self, figure: &str) -> bool {
        let smoke = self.iterations == 1 && self.wants(figure);
        smoke || self.only.iter().any(|only| only == figure)
    }

    /// What was asked for and isn't among the figures.
    pub(crate) fn unknown(&self, known: &[&str]) -> Option<&str> {
        let names = |only: &&String| {
            !known.iter().any(|figure| {
                figure
                    .strip_prefix(only.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        self.only.iter().find(names).map(String::as_str)
    }
}

impl Order {
    /// Reads the arguments after the program's name.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut run = Arguments {
            iterations: ITERATIONS,
            tasks: TASKS,
            json: None,
            compare: None,
            strict: false,
            tolerance: TOLERANCE,
            only: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                // Cargo gives it to every benchmark.
                "--bench" => {}
                "--help" => return Ok(Self::Help),
                "--iterations" => run.iterations = positive(&argument, &value()?)?,
                "--tasks" => run.tasks = positive(&argument, &value()?)?,
                "--only" => run.only.push(value()?),
                "--json" => run.json = Some(value()?.into()),
                "--strict" => run.strict = true,
                "--compare" => run.compare = Some(value()?.into()),
                "--tolerance" => {
                    let text = value()?;
                    let ratio = text.parse().ok().filter(|ratio: &f64| *ratio >= 1.0);
                    run.tolerance = ratio.ok_or(format!("{argument} {text} isn't 1 or more"))?;
                }
                CHILD => {
                    let what = value()?;
                    return Ok(Self::Child { what, count: positive(&argument, &value()?)? });
                }
                _ => return Err(format!("unknown argument {argument}")),
            }
        }
        Ok(Self::Run(run))
    }
}

/// Makes the suite one measurement of its own: `--child WHAT COUNT`.
const CHILD: &str = "--child";

pub(crate) fn child_arguments(what: &str, count: usize) -> [String; 3] {
    [CHILD.to_owned(), what.to_owned(), count.to_string()]
}

/// Enough for a p99 that two runs agree on, and a full run in a few minutes.
const ITERATIONS: usize = 200;

/// So many that a byte kept of each would show, in less than a minute.
const TASKS: usize = 200_000;

fn positive(argument: &str, text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or(format!("{argument} {text} isn't a positive number"))
}
