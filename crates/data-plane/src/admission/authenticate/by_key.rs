//! By an API key: its id is looked up, its secret compared with the digest.

use chrono::{DateTime, Utc};
use service::Problem;
use tenancy::ApiKey;

use super::{Own, unauthorized};
use crate::plane::Plane;
use crate::session::Principal;

pub(super) async fn authenticate(plane: &Plane, key: &ApiKey, now: DateTime<Utc>) -> Result<(Principal, Own), Problem> {
    let served = plane.routes.of_key(key.id()).await?.ok_or_else(unauthorized)?;
    let at = served.route.keys.iter().position(|known| known.id == *key.id()).ok_or_else(unauthorized)?;
    let (known, principal) = (&served.route.keys[at], served.principals[at].clone());
    // Compared in constant time; an expired key is refused only after it was.
    let is_proven = known.digest == key.digest();
    let is_expired = known.expires_at.is_some_and(|expiry| expiry <= now);
    if !is_proven || is_expired {
        return Err(unauthorized());
    }
    plane.key_uses.note(&served.noted[at], key.id(), now);
    Ok((principal, Own::One(served)))
}
