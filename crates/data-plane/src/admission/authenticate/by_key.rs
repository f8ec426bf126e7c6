//! By an API key: its id is looked up, its secret compared with the digest.

use chrono::{DateTime, Utc};
use service::Problem;
use tenancy::ApiKey;

use super::{Own, unauthorized};
use crate::routes::Routes;
use crate::session::Principal;

pub(super) async fn authenticate(
    routes: &Routes,
    key: &ApiKey,
    now: DateTime<Utc>,
) -> Result<(Principal, Own), Problem> {
    let served = routes.of_key(key.id()).await?.ok_or_else(unauthorized)?;
    let mut keys = served.route.keys.iter().zip(&served.principals);
    let (known, principal) = keys.find(|(known, _)| known.id == *key.id()).ok_or_else(unauthorized)?;
    // Compared in constant time; an expired key is refused only after it was.
    let is_proven = known.digest == key.digest();
    let is_expired = known.expires_at.is_some_and(|expiry| expiry <= now);
    if !is_proven || is_expired {
        return Err(unauthorized());
    }
    Ok((principal.clone(), Own::One(served)))
}
