//! Leases are of the registry's time, however wrong a process' clock is. A registry that is a file has the machine's.

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use super::stage::{Stage, in_time};
use crate::provision::faults::Faults;
use crate::provision::slots::{Slots, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_whose_clocks_differ_agree_on_a_lease() {
    let stage = Stage::postgres().await;
    in_time(Box::pin(agree_on_a_lease(&stage))).await;
    stage.clear().await;
}

async fn agree_on_a_lease(stage: &Stage) {
    let mut pace = Stage::pace(&Faults::default());
    // Its heartbeat is a third of it.
    pace.lease = Duration::from_secs(6);
    let right = &stage.plane.registry;
    let early = &right.seen_by_a_clock_that_is_wrong_by(TimeDelta::hours(1));
    let late = &right.seen_by_a_clock_that_is_wrong_by(TimeDelta::hours(-1));
    let operation = stage.create("acme", None).await;
    for holder in [early, right, late] {
        let lease = take(holder, Uuid::new_v4(), &pace, Slots::new(1)).await.unwrap().pop().expect("it is due for all");
        for other in [early, right, late] {
            assert!(take(other, Uuid::new_v4(), &pace, Slots::new(1)).await.unwrap().is_empty(), "it is not over");
        }
        // A renewal is of the same time.
        let taken_until = stage.operation(&operation).await.lease_until.unwrap();
        let held = lease.hold(async {
            while stage.operation(&operation).await.lease_until.unwrap() == taken_until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        held.await.unwrap();
        let lasts = stage.operation(&operation).await.lease_until.unwrap() - right.now();
        assert!(lasts > TimeDelta::zero() && lasts <= TimeDelta::from_std(pace.lease).unwrap(), "{lasts}");
        lease.release(holder.after(Duration::ZERO)).await.unwrap();
    }
    // What one of them puts off is put off for all.
    let lease = take(early, Uuid::new_v4(), &pace, Slots::new(1)).await.unwrap().pop().unwrap();
    lease.release(late.after(Duration::from_mins(1))).await.unwrap();
    assert!(take(early, Uuid::new_v4(), &pace, Slots::new(1)).await.unwrap().is_empty(), "it is not due yet");
}

#[tokio::test]
async fn a_process_puts_its_clock_right_by_the_registrys() {
    let stage = Stage::postgres().await;
    let wrong = stage.plane.registry.seen_by_a_clock_that_is_wrong_by(TimeDelta::hours(-5));
    let off = || (wrong.now() - stage.plane.registry.now()).abs();
    assert!(off() > TimeDelta::hours(4));
    wrong.set_clock().await.unwrap();
    assert!(off() < TimeDelta::minutes(1));
    stage.clear().await;
}
