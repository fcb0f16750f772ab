//! A program in a cell of level strict, and what the report says: `cargo run -p neuroflow-sandbox
//! --example cell -- sh -c 'id; ls /'`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to people")]

use neuroflow_sandbox::{Cell, Level, Program};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().unwrap_or_else(|| "id".into());
    let cell = Cell::builder(Level::Strict).memory(256 << 20).cpu(0.5).processes(16).build()?;
    let done = cell.run_blocking(Program::new(program).args(words))?;
    print!("{}", String::from_utf8_lossy(&done.stdout));
    eprint!("{}", String::from_utf8_lossy(&done.stderr));
    println!("{:?} behind {}", done.report.end, done.report.boundary);
    for denial in &done.report.denials {
        println!("refused: {} ({} times)", denial.call, denial.count);
    }
    Ok(())
}
