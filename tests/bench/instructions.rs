//! Instructions that a process runs for one request, counted by callgrind. Other load on the machine does not change them. Those of
//! the data plane repeat within 2 %. Those of the plain service differ by up to 30 % from run to run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::load::Call;

/// Requests before the count begins: they open connections and fill caches.
const WARMING: usize = 300;
/// Requests that are counted, one after another on one connection.
const COUNTED: usize = 1_000;

/// Starts programs under callgrind and reads its counts.
pub(crate) struct Counting {
    folder: tempfile::TempDir,
}

impl Counting {
    /// `None` if callgrind is not installed.
    pub(crate) fn new() -> Option<Self> {
        let asked = Command::new("callgrind_control").arg("--version").stdout(Stdio::null()).status();
        if !asked.is_ok_and(|status| status.success()) {
            eprintln!("instructions are not counted: install valgrind");
            return None;
        }
        Some(Self { folder: tempfile::tempdir().unwrap() })
    }

    /// The command that runs a program under callgrind.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("valgrind");
        let written = self.folder.path().join("callgrind.%p");
        command.args(["--quiet", "--tool=callgrind"]);
        command.arg(format!("--callgrind-out-file={}", written.display())).arg(program);
        command
    }

    /// Instructions for each of these calls in the process that answers them.
    pub(crate) async fn of(&self, call: &Call) -> f64 {
        call.ask_in_turn(WARMING).await;
        control("--zero", call.process);
        call.ask_in_turn(COUNTED).await;
        control("--dump", call.process);
        let all = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let begins = format!("callgrind.{}", call.process);
        let written: Vec<PathBuf> = all
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins)))
            .collect();
        let sum: f64 = written.iter().map(|path| total(path)).sum();
        for path in written {
            std::fs::remove_file(path).unwrap();
        }
        #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
        let count = COUNTED as f64;
        sum / count
    }
}

fn control(what: &str, process: u32) {
    let done = Command::new("callgrind_control").args([what, &process.to_string()]).stdout(Stdio::null()).status();
    assert!(done.unwrap().success(), "callgrind_control {what}");
}

/// The total in one of callgrind's files.
fn total(path: &Path) -> f64 {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("totals: "));
    lines.map(|total| total.trim().parse::<f64>().unwrap()).sum()
}
