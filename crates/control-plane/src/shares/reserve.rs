//! The reserve: how many of a server's connections are left to control planes, and what they may use of it.

use secrecy::SecretString;

use crate::engine::{ADMIN_CONNECTIONS, EngineKind};
use crate::plane::Plane;
use crate::registry::entities::servers;
use crate::{doctor, fleet, provision};

/// Targets of a rollout that are worked on at once on one server, unless more is reserved there.
const ROLLOUT: u32 = 8;
/// Connections that go on for a moment after their clients have left, for each that may be opened in a second.
const LAG_SECONDS: f64 = 0.02;

/// Sessions whose client has left and that the server still ends, at most.
pub(crate) fn closing(connect_rate: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small part of at most 10,000")]
    let closing = (f64::from(connect_rate) * LAG_SECONDS).ceil() as u32;
    closing
}

/// What is needed there at once beside rollouts: the admin's sessions, one for each operation that is at work, for each database
/// that is looked at and for each that is kept ready, the registry's if it is on the same server, and what ends.
fn beside_rollouts(plane: &Plane, admin_url: &SecretString, connect_rate: u32, warm: u32) -> u32 {
    let at_once = provision::AT_ONCE + doctor::AT_ONCE + fleet::VERIFIED_ON_SERVER;
    let ready = Ord::min(warm as usize, provision::MOST_KEPT);
    let registry = if plane.registry.is_on_server_of(admin_url) { crate::registry::CONNECTIONS } else { 0 };
    ADMIN_CONNECTIONS + u32::try_from(at_once + ready).unwrap_or(u32::MAX) + registry + closing(connect_rate)
}

/// What one control plane may need there at once.
pub(crate) fn needed(plane: &Plane, admin_url: &SecretString, connect_rate: u32, warm: u32) -> u32 {
    beside_rollouts(plane, admin_url, connect_rate, warm) + ROLLOUT
}

/// Targets of rollouts that may be worked on at once on this server, so that control planes keep to what is reserved for them.
pub(crate) fn rollout_room(plane: &Plane, server: &servers::Model) -> u32 {
    if server.engine != EngineKind::Postgres.as_str() {
        return u32::MAX;
    }
    // The server was registered before there was a reserve.
    if server.control_reserve == 0 {
        return ROLLOUT;
    }
    // No work is done on a server whose URL does not open.
    let Ok(url) = plane.admin_url(server) else { return 1 };
    let (rate, warm) = (server.connect_rate.unsigned_abs(), server.warm_target.unsigned_abs());
    let beside = beside_rollouts(plane, &url, rate, warm);
    server.control_reserve.unsigned_abs().saturating_sub(beside).max(1)
}
