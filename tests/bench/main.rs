//! What is measured: each bench prints a table and writes `NAME.json`. `cargo xtask bench` builds all that it needs and runs it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of the house that speaks to its user, and may end with a panic"
)]

mod admission;
mod fleet;
mod instructions;
mod load;
mod news;
mod pools;
mod provision;
mod report;
mod route;

use std::process::ExitCode;

use report::Report;

/// As in the programs that are measured: what is compared with them has SQLite in this one.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How much is measured: enough for a figure, or a look.
#[derive(Clone, Copy)]
struct Effort {
    is_quick: bool,
}

impl Effort {
    fn either<T>(self, whole: T, quick: T) -> T {
        if self.is_quick { quick } else { whole }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let effort = Effort { is_quick: arguments.iter().any(|argument| argument == "--quick") };
    let only = arguments.iter().position(|argument| argument == "--only").map(|at| arguments.get(at + 1));
    let only = only.map(|part| part.map_or("", String::as_str));
    if only.is_some_and(|part| arguments[0] != "pools" || !pools::PARTS.contains(&part)) {
        eprintln!("bench: `--only` takes one part of `pools`: {}", pools::PARTS.join(", "));
        return ExitCode::FAILURE;
    }
    let report: Report = match arguments.first().map(String::as_str) {
        Some("--list") => {
            println!("route\npools\nnews\nprovision\nadmission\nfleet");
            return ExitCode::SUCCESS;
        }
        Some("route") => route::measure(effort).await,
        Some("pools") => pools::measure(effort, only).await,
        Some("news") => news::measure(effort).await,
        Some("admission") => admission::measure(effort).await,
        Some("fleet") => fleet::measure(effort).await,
        Some("provision") => provision::measure(effort).await,
        _ => {
            eprintln!("bench: give it the name of a bench; --list tells them. `cargo xtask bench` does all of it");
            return ExitCode::FAILURE;
        }
    };
    report.finish()
}
