//! Child processes that never outlive us, not even when xtask itself is killed with SIGKILL.
//!
//! A child runs in a process group of its own, so that Ctrl-C reaches xtask alone, beside a small
//! shell that reads a pipe whose only writing end we hold. Its end of file, by our letting go or by
//! our death, is the order to stop: first the polite signal, after the grace period SIGKILL.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::stop::Stop;

/// The child runs in the foreground of the shell, so that it gets default signal handling; the
/// watcher in the background. `trap :` lets both shells survive the signal to their own group
/// (a subshell starts without its parent's traps). The pause before the signal is for a child that
/// is let go before it was forked: the signal would miss it, and it would live through its grace.
/// When the child has ended, stragglers of its group get a SIGTERM too.
const SUPERVISOR: &str = r#"
signal=$1 grace=$2 remove=$3; shift 3
trap : TERM INT QUIT HUP
exec 3<&0
(
    trap : TERM INT QUIT HUP
    read -r _ <&3
    sleep 0.1
    kill -s "$signal" 0
    sleep "$grace"
    if [ -n "$remove" ]; then rm -rf "$remove"; fi
    kill -s KILL 0
) >/dev/null 2>&1 &
watcher=$!
"$@" </dev/null 3<&-
code=$?
if [ -n "$remove" ]; then rm -rf "$remove"; fi
kill -s KILL "$watcher"
wait "$watcher" 2>/dev/null
kill -s TERM 0
exit "$code"
"#;

/// How a child is asked to stop, and what it leaves behind.
#[derive(Clone, Copy)]
pub(crate) struct Manners<'a> {
    /// The polite signal, by its name without SIG.
    pub(crate) signal: &'a str,
    /// How long it may take to follow.
    pub(crate) grace: Duration,
    /// A folder to remove once the child is gone.
    pub(crate) remove: Option<&'a Path>,
}

impl Default for Manners<'_> {
    fn default() -> Self {
        Self { signal: "TERM", grace: Duration::from_secs(5), remove: None }
    }
}

/// A running child; dropping it stops the child and waits until it is gone.
pub(crate) struct Leash {
    child: Child,
    hold: Option<ChildStdin>,
}

impl Leash {
    /// Starts `command` (its program, arguments, environment and folder) under supervision; `dress`
    /// may set the user and the output of the process that is really started.
    pub(crate) fn spawn(command: &Command, manners: Manners<'_>, dress: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", SUPERVISOR, "leash", manners.signal])
            .arg(manners.grace.as_secs().to_string())
            .arg(manners.remove.map_or_else(|| OsStr::new(""), Path::as_os_str))
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        shell.stdin(Stdio::piped()).process_group(0);
        dress(&mut shell);
        let mut child =
            shell.spawn().with_context(|| format!("could not start {}", command.get_program().to_string_lossy()))?;
        let hold = child.stdin.take();
        Ok(Self { child, hold })
    }

    /// The outputs that `dress` made pipes of.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Lets go: the child is asked to stop now. Does not wait.
    pub(crate) fn release(&mut self) {
        self.hold = None;
    }

    /// How the child ended, if it did. A signal is told as 128 and its number.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("could not wait for a child")
    }

    /// Waits for the end; when `stop` comes first, asks the child to stop and goes on waiting.
    pub(crate) fn wait(&mut self, stop: &Stop) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if self.hold.is_none() {
                std::thread::sleep(Duration::from_millis(20));
            } else if stop.wait(Duration::from_millis(20)) {
                self.release();
            }
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.release();
        // Bounded by the supervisor's grace period, after which it kills the whole group.
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_exit_code_is_the_childs() {
        let mut leash = Leash::spawn(&shell("exit 7"), Manners::default(), |_| {}).unwrap();
        assert_eq!(leash.wait(&Stop::default()).unwrap().code(), Some(7));
    }

    #[test]
    fn letting_go_stops_a_child_and_removes_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("data");
        std::fs::create_dir(&inner).unwrap();
        let manners = Manners { remove: Some(&inner), ..Manners::default() };
        let leash = Leash::spawn(&shell("sleep 60"), manners, |_| {}).unwrap();
        let begun = Instant::now();
        drop(leash);
        assert!(begun.elapsed() < Duration::from_secs(4));
        assert!(!inner.exists());
    }

    #[test]
    fn a_child_that_ignores_the_polite_signal_is_killed_after_its_grace() {
        let manners = Manners { grace: Duration::from_secs(1), ..Manners::default() };
        let script = "trap '' TERM; while :; do sleep 1; done";
        let leash = Leash::spawn(&shell(script), manners, |_| {}).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let begun = Instant::now();
        drop(leash);
        assert!(begun.elapsed() < Duration::from_secs(4));
    }
}
