//! By a signed token: its issuer is the platform's or a tenant's own, and says who calls.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::StatusCode;
use service::Problem;

use super::{Own, unauthorized};
use crate::plane::Plane;
use crate::routes::{Lookup, Routes};
use crate::session::Principal;
use crate::tokens::{NotProven, Proven, SpeaksFor, Trusted, Unproven};

pub(super) async fn authenticate(plane: &Plane, token: &str, now: DateTime<Utc>) -> Result<(Principal, Own), Problem> {
    let (routes, tokens) = (&plane.routes, &plane.tokens);
    if let Some(proven) = tokens.known(token, now)
        && let Some(spoken_for) = spoken_for(plane, &proven).await?
    {
        return Ok(spoken_for);
    }
    // Not seen before, or its issuer is described otherwise than when it was.
    let unproven = Unproven::read(token).ok_or_else(unauthorized)?;
    // Before it is known whether its issuer is anybody's: that is nothing to be told by what is refused here.
    let knock = plane.strangers.knock()?;
    let trusted = match tokens.platform(unproven.issuer()) {
        Some(trusted) => trusted.clone(),
        None => match of_tenant(routes, unproven.issuer()).await {
            Ok(trusted) => trusted.ok_or_else(unauthorized)?,
            Err(problem) => {
                // The look-up has counted it already.
                knock.welcome();
                return Err(problem);
            }
        },
    };
    let proven = tokens.prove(&unproven, trusted, now).await.map_err(|reason| refused(&reason))?;
    knock.welcome();
    spoken_for(plane, &proven).await?.ok_or_else(unauthorized)
}

/// The tenant that trusts this issuer, if one does.
async fn of_tenant(routes: &Routes, issuer: &str) -> Result<Option<Trusted>, Problem> {
    let Some(served) = routes.of_name(&Lookup::Issuer(issuer.into())).await? else { return Ok(None) };
    let described = served.route.issuers.iter().find(|known| known.issuer == issuer);
    let speaks_for = SpeaksFor::Owner(served.route.tenant);
    Ok(described.map(|issuer| Trusted { issuer: issuer.clone(), speaks_for }))
}

/// The tenants that a token speaks for. None: it speaks for nobody any more.
async fn spoken_for(plane: &Plane, proven: &Arc<Proven>) -> Result<Option<(Principal, Own)>, Problem> {
    let (mut served, mut is_any_refused) = (Vec::new(), false);
    for name in &proven.tenants {
        let Some(found) = plane.routes.of_name(name).await? else { continue };
        if !proven.counts_for(name, &found.route, plane.tokens.leeway()) {
            is_any_refused = true;
        } else if served.iter().all(|other: &crate::routes::InUse| other.route.tenant != found.route.tenant) {
            served.push(found);
        }
    }
    let speaks_for_owner = matches!(proven.trusted.speaks_for, SpeaksFor::Owner(_));
    if served.is_empty() && (is_any_refused || speaks_for_owner) {
        return Ok(None);
    }
    let tenants: Vec<_> = served.iter().map(|served| served.route.tenant).collect();
    let principal = proven.principal(&tenants);
    let own = match served.pop() {
        Some(only) if served.is_empty() => Own::One(only),
        last => Own::Several(served.into_iter().chain(last).collect()),
    };
    Ok(Some((principal, own)))
}

fn refused(reason: &NotProven) -> Problem {
    tracing::debug!(%reason, "a token proves nothing");
    match reason {
        NotProven::KeysUnreachable => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "credential-unknown-now",
            "This is not known here, and its issuer cannot be asked now. Send the request again later.",
        )
        .with_retry_after(Duration::from_secs(10)),
        _ => unauthorized(),
    }
}
