//! Control planes that share a registry, each with a ring of its own.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tenancy::Product;
use tenancy::audit::SigningKeys;
use tenancy::seal::{KeyRing, KeyRingConfig};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::SCHEMA_VERSION;
use crate::config::{DomainsConfig, Proof};
use crate::engine::{Engines, Worker};
use crate::mail::Mail;
use crate::plane::{Parts, Plane};
use crate::proof::HostProofs;
use crate::provision::pace::Pace;
use crate::provision::tests::mail::mail_into;
use crate::provision::tests::notes::Notes;
use crate::provision::{Breakers, Kept, Wake};
use crate::registry::Registry;

/// A ring; the key of an id is the same in every ring.
fn ring(primary: &str, ids: &[&str]) -> KeyRing {
    let key =
        |id: &str| STANDARD.encode([id.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte)); 32]);
    let keys = ids.iter().map(|id| ((*id).to_owned(), key(id).into())).collect();
    KeyRing::new(&KeyRingConfig { primary: primary.to_owned(), keys }).unwrap()
}

pub(super) fn plane_on(registry: Registry, folder: &Path, primary: &str, keys: &[&str], patience: Duration) -> Plane {
    let id = Uuid::new_v4();
    let product =
        Product { name: "Notes", mount: "/api", schema_version: SCHEMA_VERSION, scopes: &[], config_keys: Vec::new() };
    let signing = KeyRingConfig { primary: "k".into(), keys: [("k".into(), STANDARD.encode([7; 32]).into())].into() };
    Plane::new(Parts {
        id,
        registry,
        tenants_ring: ring(primary, keys),
        servers_ring: ring(primary, keys),
        signing: Arc::new(SigningKeys::new(&signing).unwrap()),
        refusals: crate::audit::Refusals::default(),
        mail: Some(Mail::of(&mail_into(folder), &product).unwrap()),
        product,
        schema: Arc::new(Notes),
        wake: Wake::default(),
        breakers: Breakers::default(),
        restock: tokio::sync::Notify::new(),
        fleet: tokio::sync::Notify::new(),
        entered: Kept::default(),
        proofs: HostProofs::new(&DomainsConfig { proof: Proof::None, ..DomainsConfig::default() }).unwrap(),
        allow_private_issuers: true,
        stale_after: Duration::from_hours(1),
        ack_after: Duration::from_mins(2),
        grace: Duration::ZERO,
        lease: Pace::default().lease,
        hold_slugs: Duration::from_hours(1),
        rotate_after: None,
        stopping: CancellationToken::new(),
        schemas: crate::fleet::Schemas::default(),
        engines: Engines::new(Worker { id, scram_iterations: NonZeroU32::MIN, patience }),
    })
}
