//! Every kind of tampering, at every record.

use chrono::DateTime;
use proptest::prelude::*;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::{Event, SigningKeys};
use super::*;
use crate::seal::KeyRingConfig;

const LENGTH: u64 = 9;

fn keys() -> SigningKeys {
    let seed = "YXVkaXQta2V5LW9mLXRoZS10ZXN0cy1vZi0zMi1ieXQ=".to_owned().into();
    SigningKeys::new(&KeyRingConfig { primary: "k".into(), keys: [("k".to_owned(), seed)].into() }).unwrap()
}

fn chain() -> Chain {
    Chain::Tenant(Uuid::from_u128(7).into())
}

fn event(number: u64) -> Event {
    let text = format!(
        r#"{{"id":"{}","at":"2026-11-25T09:00:00Z","action":"tenant.suspended","actor":"ada","detail":"{number}"}}"#,
        Uuid::from_u128(number.into())
    );
    serde_json::from_str(&text).unwrap()
}

fn records(chain: Chain, count: u64) -> Vec<Record> {
    let mut previous = Digest::before_first(chain);
    (1..=count)
        .map(|seq| {
            let record = Record::following(chain, seq, previous, &event(seq)).unwrap();
            previous = record.hash;
            record
        })
        .collect()
}

fn sign(record: &Record) -> Checkpoint {
    keys().sign(record.chain, record.seq, record.hash, DateTime::from_timestamp(1_800_000_000, 0).unwrap())
}

fn judge(records: &[Record], checkpoints: &[Checkpoint]) -> Result<Verdict, Fault> {
    let mut verifier = Verifier::new(keys().public().iter().copied());
    for checkpoint in checkpoints {
        verifier.trust(checkpoint.clone())?;
    }
    for record in records {
        verifier.take(record);
    }
    verifier.judge()
}

fn forged(record: &mut Record) {
    let text = record.payload.get().replace("ada", "eve");
    record.payload = RawValue::from_string(text).unwrap();
}

/// All hashes from this record on, as somebody computes them who has no key.
fn chained_anew(records: &mut [Record], from: usize) {
    for at in from..records.len() {
        let previous = if at == 0 { Digest::before_first(records[0].chain) } else { records[at - 1].hash };
        let record = &mut records[at];
        record.seq = at as u64 + 1;
        record.previous = previous;
        record.digest = Digest::of(record.payload.get().as_bytes());
        record.hash = Digest::chained(record.chain, record.seq, previous, record.digest);
    }
}

#[test]
fn a_whole_trail_is_what_it_was_and_says_what_no_checkpoint_vouches_for() {
    let (tenants, platforms) = (records(chain(), LENGTH), records(Chain::Platform, 3));
    let mixed: Vec<Record> = platforms[..2].iter().chain(&tenants).chain(&platforms[2..]).cloned().collect();
    let signed = [sign(&tenants[4]), sign(&tenants[6]), sign(&platforms[2])];
    assert_eq!(judge(&mixed, &signed), Ok(Verdict { chains: 2, records: 12, unsigned: 2 }));
    assert_eq!(judge(&mixed, &[]), Ok(Verdict { chains: 2, records: 12, unsigned: 12 }));
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let record = &records(chain(), 1)[0];
    let text = serde_json::to_string(record).unwrap();
    let read: Record = serde_json::from_str(&text).unwrap();
    assert!(read.is_whole() && read.event().unwrap().actor == "ada");
    assert_eq!(judge(&[read], &[sign(record)]).unwrap().unsigned, 0);
}

proptest! {
    /// By somebody who leaves the rest alone.
    #[test]
    fn the_first_record_that_was_tampered_with_is_named(number in 1..=LENGTH, other in 1..=LENGTH) {
        let chain = chain();
        let whole = records(chain, LENGTH);
        let signed = [sign(&whole[8])];
        let at = usize::try_from(number).unwrap() - 1;

        let mut changed = whole.clone();
        forged(&mut changed[at]);
        prop_assert_eq!(judge(&changed, &signed), Err(Fault::Changed { chain, seq: number }));
        // With the digest of the new payload, and the old hash.
        changed[at].digest = Digest::of(changed[at].payload.get().as_bytes());
        prop_assert_eq!(judge(&changed, &signed), Err(Fault::Changed { chain, seq: number }));
        // With digest and hash of the new payload.
        let mut changed = whole.clone();
        forged(&mut changed[at]);
        let only = at + 1;
        chained_anew(&mut changed[..only], at);
        let expected = if number == LENGTH {
            Fault::Rewritten { chain, from: 1, to: LENGTH }
        } else {
            Fault::Changed { chain, seq: number }
        };
        prop_assert_eq!(judge(&changed, &signed), Err(expected));

        let mut removed = whole.clone();
        removed.remove(at);
        prop_assert_eq!(judge(&removed, &signed), Err(Fault::Removed { chain, seq: number }));
        // With the numbers behind it written over.
        for (index, record) in removed.iter_mut().enumerate() {
            record.seq = index as u64 + 1;
        }
        prop_assert_eq!(judge(&removed, &signed), Err(Fault::Removed { chain, seq: number }));

        let mut doubled = whole.clone();
        doubled.insert(at + 1, whole[at].clone());
        prop_assert_eq!(judge(&doubled, &signed), Err(Fault::Inserted { chain, seq: number }));
        // One of an own making, before or behind the true one, with a hash that fits or none that does.
        for (place, fits) in [(at, false), (at, true), (at + 1, false)] {
            let mut inserted = whole.clone();
            let mut own = whole[at].clone();
            forged(&mut own);
            inserted.insert(place, own);
            if fits {
                chained_anew(&mut inserted[..=at], at);
            }
            prop_assert_eq!(judge(&inserted, &signed), Err(Fault::Inserted { chain, seq: number }));
        }

        if number != other {
            let other_at = usize::try_from(other).unwrap() - 1;
            let mut swapped = whole.clone();
            swapped.swap(at, other_at);
            let first = number.min(other);
            prop_assert_eq!(judge(&swapped, &signed), Err(Fault::Reordered { chain, seq: first }));
            let first_at = at.min(other_at);
            for (index, record) in swapped.iter_mut().enumerate().skip(first_at) {
                record.seq = index as u64 + 1;
            }
            prop_assert_eq!(judge(&swapped, &signed), Err(Fault::Reordered { chain, seq: first }));
        }
    }

    /// By somebody who computes every hash behind it anew: the next checkpoint finds it.
    #[test]
    fn a_chain_that_was_computed_anew_is_found_by_the_next_checkpoint(number in 1..=LENGTH, kind in 0..3) {
        let chain = chain();
        let whole = records(chain, LENGTH);
        let signed = [sign(&whole[2]), sign(&whole[5]), sign(&whole[8])];
        let at = usize::try_from(number).unwrap() - 1;
        let mut anew = whole.clone();
        match kind {
            0 => forged(&mut anew[at]),
            1 => anew.insert(at, { let mut own = whole[at].clone(); forged(&mut own); own }),
            _ => drop(anew.remove(at)),
        }
        chained_anew(&mut anew, at);
        let to = [3, 6, 9].into_iter().find(|&seq| seq >= number).unwrap();
        let expected = if to > anew.len() as u64 {
            Fault::Removed { chain, seq: LENGTH }
        } else {
            Fault::Rewritten { chain, from: to - 2, to }
        };
        prop_assert_eq!(judge(&anew, &signed), Err(expected));
    }
}

#[test]
fn a_cut_tail_is_found_by_a_checkpoint_that_was_kept() {
    let whole = records(chain(), LENGTH);
    assert_eq!(judge(&whole[..6], &[sign(&whole[8])]), Err(Fault::Removed { chain: chain(), seq: 7 }));
    assert_eq!(judge(&[], &[sign(&whole[8])]), Err(Fault::Removed { chain: chain(), seq: 1 }));
    let mut anew = whole.clone();
    forged(&mut anew[3]);
    chained_anew(&mut anew, 3);
    let both = [sign(&whole[8]), sign(&anew[8])];
    assert!(matches!(judge(&whole, &both), Err(Fault::Rewritten { .. })), "two words that contradict each other");
    assert!(matches!(judge(&anew, &both), Err(Fault::Rewritten { .. })));
}

#[test]
fn a_checkpoint_counts_by_its_signature_alone() {
    let whole = records(chain(), LENGTH);
    let good = sign(&whole[8]);
    for bad in [
        Checkpoint { seq: 8, ..good.clone() },
        Checkpoint { hash: whole[7].hash, ..good.clone() },
        Checkpoint { chain: Chain::Platform, ..good.clone() },
        Checkpoint { at: good.at + chrono::TimeDelta::seconds(1), ..good.clone() },
        Checkpoint { signature: "AAAA".into(), ..good.clone() },
    ] {
        assert!(matches!(judge(&whole, &[bad]), Err(Fault::BadSignature { .. })));
    }
    let stranger = Checkpoint { key: "0000000000000000".into(), ..good };
    assert!(matches!(judge(&whole, &[stranger]), Err(Fault::UnknownKey { .. })));
}
