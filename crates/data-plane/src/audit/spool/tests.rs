//! Spools on a real disk: nothing is lost or twice, whenever the process dies.

use tenancy::audit::Notice;

use super::super::noticed;
use super::*;

const PLENTY: u64 = 64 << 20;

fn event(number: u64) -> Noticed {
    Noticed { count: Some(number), ..noticed(Notice::CrossTenantAttempt) }
}

/// All that waits, batch by batch, as the control plane would take it.
fn drain(spool: &mut Spool) -> Vec<(u64, Vec<Noticed>)> {
    let mut batches = Vec::new();
    while let Some(number) = spool.take().unwrap() {
        batches.push((number, read(&spool.path(number)).unwrap()));
        spool.done(number).unwrap();
    }
    batches
}

fn counts(batches: &[(u64, Vec<Noticed>)]) -> Vec<u64> {
    batches.iter().flat_map(|(_, events)| events.iter().filter_map(|event| event.count)).collect()
}

#[test]
fn what_was_written_is_there_after_a_crash_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("audit");
    let mut spool = Spool::open(&folder, PLENTY).unwrap();
    let id = spool.id();
    for number in 0..3 {
        spool.append(&event(number)).unwrap();
    }
    drop(spool);
    // Half a line, as a loss of power leaves it.
    let newest = path_of(&folder, 1);
    OpenOptions::new().append(true).open(newest).unwrap().write_all(b"{\"at\":\"20").unwrap();
    let mut spool = Spool::open(&folder, PLENTY).unwrap();
    assert_eq!(spool.id(), id);
    spool.append(&event(3)).unwrap();
    // Brought away, and not heard of: the same batch comes again.
    let first = spool.take().unwrap().unwrap();
    let brought = read(&spool.path(first)).unwrap();
    spool.append(&event(4)).unwrap();
    drop(spool);
    let mut spool = Spool::open(&folder, PLENTY).unwrap();
    assert_eq!(spool.take().unwrap(), Some(first));
    assert_eq!(read(&spool.path(first)).unwrap().len(), brought.len());
    let batches = drain(&mut spool);
    assert_eq!(counts(&batches), [0, 1, 2, 3, 4]);
    let numbers: Vec<u64> = batches.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2]);
    drop(spool);
    // All was taken: the number is kept all the same.
    let mut spool = Spool::open(&folder, PLENTY).unwrap();
    spool.append(&event(5)).unwrap();
    assert_eq!(spool.take().unwrap(), Some(3));
}

#[test]
fn a_full_spool_drops_the_oldest_counts_them_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let most = 4 * CLOSE_AT;
    let mut spool = Spool::open(folder.path(), most).unwrap();
    let mut gone = 0;
    // So many that the drops of before are dropped themselves.
    let all = 60_000;
    for number in 0..all {
        gone += spool.append(&event(number)).unwrap();
        assert!(spool.bytes() < most + CLOSE_AT, "it is bounded");
    }
    assert!(gone > 1_000);
    let batches = drain(&mut spool);
    let is_told = |event: &&Noticed| event.notice == Notice::EventsDropped;
    let told: u64 =
        batches.iter().flat_map(|(_, events)| events.iter().filter(is_told)).filter_map(|it| it.count).sum();
    let kept: Vec<u64> = batches
        .iter()
        .flat_map(|(_, events)| events.iter().filter(|it| !is_told(it)).filter_map(|it| it.count))
        .collect();
    assert_eq!(kept.last(), Some(&(all - 1)), "the newest are kept");
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "without a gap");
    let lost = all - kept.len() as u64;
    assert_eq!((told, gone), (lost, lost), "each is counted once, also what told of others and was dropped itself");
}

#[test]
fn what_is_in_hand_is_not_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), CLOSE_AT).unwrap();
    spool.append(&event(0)).unwrap();
    let first = spool.take().unwrap().unwrap();
    for number in 1..10_000 {
        spool.append(&event(number)).unwrap();
    }
    assert_eq!(read(&spool.path(first)).unwrap().len(), 1);
}

#[test]
fn a_damaged_line_is_counted_and_the_rest_is_brought() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), PLENTY).unwrap();
    spool.append(&event(1)).unwrap();
    spool.open.file.write_all(b"\xff\xff\n").unwrap();
    spool.append(&event(2)).unwrap();
    let number = spool.take().unwrap().unwrap();
    let events = read(&spool.path(number)).unwrap();
    let told: Vec<_> = events.iter().map(|it| (it.notice, it.count)).collect();
    let attempt = Notice::CrossTenantAttempt;
    assert_eq!(told, [(attempt, Some(1)), (attempt, Some(2)), (Notice::EventsDropped, Some(1))]);
}
