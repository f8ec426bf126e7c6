//! `freehold tenant rewrap`: batch after batch, until everything is sealed under the current keys.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::client::{Client, path};
use crate::output::Output;
use crate::progress::Progress;

/// Batches without any progress that are borne: another may be at the same rows.
const IDLE_BATCHES: u32 = 5;
/// The wait after one.
const PAUSE: Duration = Duration::from_secs(1);

/// One batch, and in the end all of them.
#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    rewrapped: u64,
    remaining: u64,
    /// Sealed by a key that the ring does not have.
    unopened: u64,
}

pub(super) fn run(client: &Client, output: Output) -> Result<()> {
    let all = rewrap(client)?;
    output.show_all(&all, || {
        format!("{} sealed anew, {} remain, {} could not be opened", all.rewrapped, all.remaining, all.unopened)
    })?;
    if all.unopened > 0 {
        bail!("{} could not be opened: `freehold tenant doctor` names them", all.unopened);
    }
    if all.remaining > 0 {
        bail!("{} remain, and no batch takes them; see the control plane's log, then run it again", all.remaining);
    }
    Ok(())
}

/// Batch after batch, for as long as they get on.
fn rewrap(client: &Client) -> Result<Batch> {
    let progress = Progress::new("sealing under the current keys");
    let mut all = Batch { rewrapped: 0, remaining: u64::MAX, unopened: 0 };
    let mut idle = 0;
    while all.remaining > 0 && idle < IDLE_BATCHES {
        let batch: Batch = client.post(&path(["rewrap"]), Some("{}"))?.json("batch of sealed things")?;
        let has_moved = batch.rewrapped > 0 || batch.remaining < all.remaining;
        all.rewrapped += batch.rewrapped;
        all.remaining = batch.remaining;
        // Each batch meets the same ones again.
        all.unopened = all.unopened.max(batch.unopened);
        progress.say(&format!("{} sealed anew, {} remain", all.rewrapped, all.remaining));
        idle = if has_moved { 0 } else { idle + 1 };
        // What cannot be opened remains for ever.
        if !has_moved && all.remaining <= all.unopened {
            break;
        }
        if !has_moved {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::{Act, server};

    fn batches<const N: usize>(bodies: [&'static str; N]) -> Batch {
        let answer = |body| Act::Say("200 OK\r\ncontent-type: application/json", body);
        let (client, asked) = server(bodies.into_iter().map(answer).collect());
        let all = rewrap(&client).unwrap();
        asked.join().unwrap();
        all
    }

    #[test]
    fn batches_are_asked_for_until_none_remains() {
        let all = batches([
            r#"{"rewrapped":100,"remaining":20,"unopened":0}"#,
            r#"{"rewrapped":20,"remaining":0,"unopened":0}"#,
        ]);
        assert_eq!((all.rewrapped, all.remaining, all.unopened), (120, 0, 0));
    }

    #[test]
    fn what_cannot_be_opened_ends_the_batches_whether_or_not_it_counts_as_remaining() {
        let stays = r#"{"rewrapped":0,"remaining":2,"unopened":2}"#;
        let all = batches([r#"{"rewrapped":5,"remaining":2,"unopened":2}"#, stays]);
        assert_eq!((all.rewrapped, all.remaining, all.unopened), (5, 2, 2));
        let all = batches([r#"{"rewrapped":5,"remaining":0,"unopened":2}"#]);
        assert_eq!((all.rewrapped, all.remaining, all.unopened), (5, 0, 2));
    }
}
