//! The planes' processes: their logs with a name in front, their health, and their end.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::api;
use super::config::{DRAIN, Process};
use crate::cargo;
use crate::leash::{Leash, Manners};
use crate::stop::Stop;

/// The first start migrates the registry.
const UNTIL_READY: Duration = Duration::from_secs(90);

/// How much of a log is told again when its process has ended.
const LAST_LINES: usize = 15;

/// Bright enough on dark and light; the order is that of the processes.
const COLOURS: [u8; 6] = [36, 35, 33, 32, 34, 31];

/// All processes, control planes first.
pub(super) struct Planes {
    running: Vec<Plane>,
}

struct Plane {
    process: Process,
    leash: Leash,
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

impl Planes {
    pub(super) fn start(built: &BTreeMap<String, PathBuf>, processes: Vec<Process>) -> Result<Self> {
        let width = processes.iter().map(|it| it.name.len()).max().unwrap_or(0);
        let has_colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let mut running = Vec::new();
        for (index, process) in processes.into_iter().enumerate() {
            let mut command = Command::new(cargo::binary(built, process.binary)?);
            command.arg("--config").arg(&process.config);
            let manners = Manners { grace: DRAIN * 2, ..Manners::default() };
            let mut leash = Leash::spawn(&command, manners, |shell| {
                shell.stdout(Stdio::piped()).stderr(Stdio::piped());
            })?;
            let prefix = prefix(&process.name, width, has_colour.then_some(COLOURS[index % COLOURS.len()]));
            let last_lines = Arc::default();
            let child = leash.child();
            follow(child.stdout.take(), &prefix, &last_lines);
            follow(child.stderr.take(), &prefix, &last_lines);
            running.push(Plane { process, leash, last_lines });
        }
        Ok(Self { running })
    }

    /// Until every ops listener says ready; a process that ends before is an error with its last words.
    pub(super) fn wait_until_ready(&mut self, stop: &Stop) -> Result<()> {
        let deadline = Instant::now() + UNTIL_READY;
        for index in 0..self.running.len() {
            loop {
                self.ensure_alive()?;
                let process = &self.running[index].process;
                let answer = api::readiness(&process.listeners.ops_url());
                if matches!(&answer, Ok((200, _))) {
                    break;
                }
                if Instant::now() > deadline {
                    let what = match answer {
                        Ok((status, body)) => format!("/readyz says {status}: {body}"),
                        Err(error) => error.to_string(),
                    };
                    bail!("{} is not ready after {} s: {what}", process.name, UNTIL_READY.as_secs());
                }
                stop.pause(Duration::from_millis(50))?;
            }
        }
        Ok(())
    }

    pub(super) fn ensure_alive(&mut self) -> Result<()> {
        for plane in &mut self.running {
            if let Some(status) = plane.leash.ended()? {
                // What it wrote last may still be on its way through the pipe.
                std::thread::sleep(Duration::from_millis(100));
                let lines = plane.last_lines.lock().unwrap_or_else(PoisonError::into_inner);
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                bail!("{} ended ({status}); its last lines:\n{}", plane.process.name, lines.join("\n"));
            }
        }
        Ok(())
    }

    /// Data planes first, so that they can still say goodbye. Each drains, or is killed in the end.
    pub(super) fn stop(mut self) {
        let (control, data): (Vec<_>, Vec<_>) =
            self.running.drain(..).partition(|plane| plane.process.binary == "petstore-control-plane");
        for mut group in [data, control] {
            for plane in &mut group {
                plane.leash.release();
            }
            drop(group);
        }
    }
}

fn prefix(name: &str, width: usize, colour: Option<u8>) -> String {
    match colour {
        Some(colour) => format!("\x1b[{colour}m{name:width$} |\x1b[0m "),
        None => format!("{name:width$} | "),
    }
}

/// Copies a log, line by line. Nobody reading us any more does not stop the planes' writing.
fn follow(output: Option<impl Read + Send + 'static>, prefix: &str, last_lines: &Arc<Mutex<VecDeque<String>>>) {
    let Some(output) = output else { return };
    let (prefix, last_lines) = (prefix.to_owned(), Arc::clone(last_lines));
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let _ = writeln!(std::io::stdout().lock(), "{prefix}{line}");
            let mut lines = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LAST_LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    });
}
