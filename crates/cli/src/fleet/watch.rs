//! `freehold fleet migrate` and `watch`: a live line on a terminal, plain lines in a pipeline, events for a script.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::events::{Event, between, failed, some};
use super::rollout::{Counts, Rollout, Target};
use super::status::failures;
use super::{order, rehearsal};
use crate::client::{Client, Lost, Refusal, path};
use crate::output::{Output, note, print};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);
/// Between two lines that only say how far it is, in a pipeline.
const TELLING: Duration = Duration::from_secs(10);

/// What is typed after `freehold fleet migrate`.
#[derive(clap::Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    order: order::Options,
    /// Only order it
    #[arg(long)]
    no_wait: bool,
    /// Order nothing if a migration does what holds tenants up, or cannot be rehearsed
    #[arg(long)]
    strict: bool,
}

/// The rollout stopped, since more failed than its budget bears.
#[derive(Debug)]
pub(crate) struct BudgetSpent(String);

impl fmt::Display for BudgetSpent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BudgetSpent {}

pub(super) fn migrate(client: &Client, output: Output, options: &Migrate) -> Result<()> {
    let body = options.order.body()?;
    rehearsal::lint(client, output, &body, options.strict)?;
    let answer = client.post(&path(["rollouts"]), Some(&body))?;
    let rollout: Rollout = answer.json("rollout")?;
    if options.no_wait {
        let watch = format!("\n`freehold fleet watch {}` shows how it goes.", rollout.id);
        return output.show(answer.text(), || rollout.facts().to_string() + &watch);
    }
    run(client, output, &rollout.id)
}

/// Watches until nothing more happens by itself.
pub(super) fn run(client: &Client, output: Output, id: &str) -> Result<()> {
    let is_left = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_left)).context("could not listen for Ctrl-C")?;
    }
    let mut view = View::new(output);
    let mut before: Option<Rollout> = None;
    let mut told = HashSet::new();
    loop {
        match look(client, id, before.as_ref()) {
            Ok((now, failures)) => {
                for event in between(before.as_ref(), &now) {
                    view.tell(&event)?;
                    if matches!(&event, Event::State { state, .. } if state == "paused") {
                        view.hint(&format!("`freehold fleet resume {id}` goes on."));
                    }
                }
                for target in failures.iter().filter(|target| told.insert(target.tenant.clone())) {
                    view.tell(&failed(target))?;
                }
                view.see(&now);
                view.progress(&now, before.as_ref())?;
                if now.has_ended() || now.is_held_by_its_canaries() {
                    drop(view);
                    return end(&now, output);
                }
                before = Some(now);
            }
            // The rollout does not end with the control plane that we asked: another goes on with it.
            Err(error) if is_passing(&error) => view.lost(&error),
            Err(error) => return Err(error),
        }
        if is_left.load(Ordering::Relaxed) {
            drop(view);
            bail!(
                "no longer watched, and it goes on: `freehold fleet watch {id}` watches it again, `freehold fleet pause {id}` pauses it"
            );
        }
        std::thread::sleep(PAUSE);
    }
}

/// How far it is, and what failed if more did than before.
fn look(client: &Client, id: &str, before: Option<&Rollout>) -> Result<(Rollout, Vec<Target>)> {
    let now: Rollout = client.get(&path(["rollouts", id]))?.json("rollout")?;
    let known = before.map_or(0, |before| before.counts.failed);
    let failed = if now.counts.failed > known { failures(client, id, None)? } else { Vec::new() };
    Ok((now, failed))
}

/// The next look may fare better.
fn is_passing(error: &anyhow::Error) -> bool {
    error.is::<Lost>() || error.downcast_ref::<Refusal>().is_some_and(Refusal::is_of_the_server)
}

/// The last word, and the exit code.
fn end(rollout: &Rollout, output: Output) -> Result<()> {
    let Counts { done, failed, skipped, .. } = rollout.counts;
    if !output.is_json && !rollout.waves.is_empty() {
        print(rollout.wave_table().to_string().trim_end())?;
    }
    let (id, version, had) = (&rollout.id, rollout.version, rollout.already);
    if rollout.is_held_by_its_canaries() {
        bail!(
            "it is held for its canaries, and nothing more happens by itself\n  `freehold fleet resume {id}` goes on all the same, \
             `freehold fleet abort {id}` gives it up."
        );
    }
    if rollout.is_whole() {
        return output.done(&match (done, skipped) {
            (0, 0) => format!(
                "Nothing to do: {} at version {version} or past it.",
                if had == 1 { "1 tenant is".to_owned() } else { format!("{had} tenants are") }
            ),
            (_, 0) => format!("Done: {} brought to version {version}; {had} had it already.", some(done, "tenant")),
            _ => format!(
                "Done: {} brought to version {version}; {had} had it already, {skipped} gone meanwhile.",
                some(done, "tenant")
            ),
        });
    }
    if rollout.is_spent() {
        return Err(BudgetSpent(format!(
            "the error budget is spent: {failed} failed, {done} are done, {} were not begun\n  \
             `freehold fleet status {id}` shows what failed, `freehold fleet retry {id}` tries it again, \
             `freehold fleet abort {id}` gives it up.",
            rollout.counts.pending
        ))
        .into());
    }
    let what = if failed > 0 {
        format!("shows what failed, `freehold fleet retry {id}` tries it again")
    } else {
        "shows how far it came".to_owned()
    };
    let state = &rollout.state;
    bail!(
        "the rollout is {state}: {done} done, {failed} failed, {skipped} skipped\n  `freehold fleet status {id}` {what}."
    )
}

/// Where it is shown.
struct View {
    output: Output,
    /// On a terminal.
    bar: Option<ProgressBar>,
    begun: Instant,
    /// Ended when it was first seen.
    first: Option<u64>,
    /// When it was last said how far it is.
    said: Instant,
    is_lost: bool,
}

impl View {
    fn new(output: Output) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let bar = (!output.is_json && !bar.is_hidden()).then(|| {
            let style = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let now = Instant::now();
        Self { output, bar, begun: now, first: None, said: now, is_lost: false }
    }

    fn see(&mut self, now: &Rollout) {
        self.is_lost = false;
        let ended = now.counts.ended();
        let first = *self.first.get_or_insert(ended);
        let Some(bar) = &self.bar else { return };
        bar.set_length(now.counts.all());
        bar.set_position(ended);
        bar.set_message(how_far(now, ended - first.min(ended), self.begun.elapsed()));
    }

    fn tell(&self, event: &Event) -> Result<()> {
        if self.output.is_json {
            return print(&serde_json::to_string(event)?);
        }
        self.hint(&event.line());
        Ok(())
    }

    /// Says something to a person alone.
    fn hint(&self, text: &str) {
        match &self.bar {
            _ if self.output.is_json => {}
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// How far it is: now and then in a pipeline, at each change for a script.
    fn progress(&mut self, now: &Rollout, before: Option<&Rollout>) -> Result<()> {
        let is_news = before.is_some_and(|before| before.counts.ended() != now.counts.ended());
        let is_due = self.output.is_json || self.bar.is_none() && self.said.elapsed() >= TELLING;
        if is_news && is_due {
            self.said = Instant::now();
            self.tell(&Event::progress(now.counts))?;
        }
        Ok(())
    }

    fn lost(&mut self, error: &anyhow::Error) {
        if !std::mem::replace(&mut self.is_lost, true) {
            self.hint(&format!("{error:#}\n  The rollout goes on by itself; asked again until it answers."));
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The wave, the rate and the time that is left.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate of targets"
)]
fn how_far(now: &Rollout, ended: u64, took: Duration) -> String {
    let mut parts = vec![format!("wave {} (the last is {})", now.wave, now.waves.len().saturating_sub(1))];
    let is_running = now.state == "running";
    if !is_running {
        parts.push(now.state.clone());
    }
    let rate = ended as f64 / took.as_secs_f64().max(0.001);
    let left = now.counts.pending + now.counts.running;
    if ended > 0 && is_running {
        parts.push(format!("{rate:.1}/s"));
        if left > 0 {
            parts.push(format!("{} s left", (left as f64 / rate).ceil() as u64));
        }
    }
    if now.counts.failed > 0 {
        parts.push(format!("{} failed", now.counts.failed));
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::{Act, server};

    fn rollout(rest: &str) -> Rollout {
        serde_json::from_str(&format!(r#"{{"id":"01a","version":3,{rest}}}"#)).unwrap()
    }

    #[test]
    fn the_line_tells_wave_rate_and_what_is_left() {
        let waves = r#""waves":[{"kind":"canary","size":1},{"kind":"wave","size":99}],"wave":1"#;
        let now = rollout(&format!(
            r#""state":"running","counts":{{"pending":40,"running":8,"done":50,"failed":2}},{waves}"#
        ));
        assert_eq!(how_far(&now, 52, Duration::from_secs(13)), "wave 1 (the last is 1) · 4.0/s · 12 s left · 2 failed");
        let paused = rollout(&format!(r#""state":"paused","counts":{{"pending":100}},{waves}"#));
        assert_eq!(how_far(&paused, 0, Duration::from_secs(1)), "wave 1 (the last is 1) · paused");
    }

    #[test]
    fn the_exit_code_tells_the_spent_budget_from_the_rest() {
        let output = Output { is_json: true };
        let whole = rollout(r#""state":"done","counts":{"done":3}"#);
        assert!(end(&whole, output).is_ok());
        let spent = rollout(r#""state":"failed","note":"the budget is spent","counts":{"failed":1}"#);
        assert!(end(&spent, output).unwrap_err().is::<BudgetSpent>());
        for other in [r#""state":"aborted""#, r#""state":"done","counts":{"failed":1}"#] {
            assert!(!end(&rollout(other), output).unwrap_err().is::<BudgetSpent>());
        }
    }

    #[test]
    fn who_is_held_by_canaries_is_not_watched_for_ever_and_who_asked_to_be_waited_for_is() {
        let held = rollout(r#""state":"paused","awaits":"health","counts":{"done":1,"pending":9}"#);
        assert!(held.is_held_by_its_canaries());
        let error = end(&held, Output { is_json: true }).unwrap_err();
        assert!(error.to_string().contains("freehold fleet resume 01a") && !error.is::<BudgetSpent>(), "{error}");
        for waits in [
            r#""state":"paused","awaits":"confirm""#,
            r#""state":"paused","awaits":null"#,
            r#""state":"running","awaits":"health""#,
        ] {
            assert!(!rollout(waits).is_held_by_its_canaries(), "{waits}");
        }
    }

    #[test]
    fn every_failure_is_told_however_many_pages_they_are() {
        let say = |body: String| Act::Say("200 OK\r\ncontent-type: application/json", Box::leak(body.into_boxed_str()));
        let page = |from: usize, to: usize, next: &str| {
            let items: Vec<String> =
                (from..to).map(|it| format!(r#"{{"tenant":"t{it}","slug":null,"error":"x"}}"#)).collect();
            say(format!(r#"{{"items":[{}],"next_cursor":{next}}}"#, items.join(",")))
        };
        let ended = r#"{"id":"01a","version":3,"state":"failed","counts":{"failed":201}}"#;
        let (client, asked) = server(vec![say(ended.to_owned()), page(0, 200, r#""x""#), page(200, 201, "null")]);
        let (_, failed) = look(&client, "01a", None).unwrap();
        assert_eq!(failed.len(), 201);
        assert_eq!(asked.join().unwrap().len(), 3);
    }

    #[test]
    fn a_control_plane_that_goes_away_does_not_end_the_watch() {
        let say = |body| Act::Say("200 OK\r\ncontent-type: application/json", body);
        let done = r#"{"id":"01a","version":3,"state":"done","counts":{"done":1}}"#;
        let (client, asked) = server(vec![Act::Hang, say(done)]);
        run(&client, Output { is_json: true }, "01a").unwrap();
        assert!(asked.join().unwrap().iter().all(|request| request.starts_with("GET /v1/rollouts/01a ")));
    }
}
