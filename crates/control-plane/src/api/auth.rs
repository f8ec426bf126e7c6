//! Who calls: an operator with a role, or a data plane, each with its token. Checked before anything else of a request is
//! read.

pub(crate) mod role;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use sea_orm::EntityTrait;
use secrecy::{ExposeSecret, SecretString};
use service::Problem;
use service::extract::bearer;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tenancy::{ApiKey, KeyDigest};

use super::{Api, operators};
use crate::audit::Account;
use crate::registry::entities::operators as rows;
use role::{Audience, Role, audience};

/// Who the token of the configuration stands for, in what is written down.
pub(super) const BOOTSTRAP: &str = "bootstrap";

/// Who the data planes' token stands for, where it is refused.
const NODE: &str = "node";

/// Begins every operator's token: `fo_<id>_<secret>`.
pub(super) const TOKEN_PREFIX: &str = "fo_";

/// Digests of the tokens of the configuration.
pub(crate) struct Tokens {
    bootstrap: [u8; 32],
    node: [u8; 32],
}

impl Tokens {
    /// The tokens of the configuration.
    pub(crate) fn new(bootstrap: &SecretString, node: &SecretString) -> Self {
        Self { bootstrap: digest(bootstrap.expose_secret()), node: digest(node.expose_secret()) }
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// An operator whose role allows the call.
#[derive(Clone)]
pub(super) struct Operator {
    /// Names the token without telling it.
    pub(super) token: [u8; 32],
    /// Who it is, in what is written down.
    pub(super) subject: String,
    /// It is nobody yet, and may make the first admin.
    pub(super) is_bootstrap: bool,
}

/// A data plane, proven by the node token.
#[derive(Clone, Copy)]
pub(super) struct Node;

/// Either of them, where a call is for both.
pub(super) struct Caller;

/// Around every call: lets pass who may make it. Before anything of the request is looked at but its method, its path's
/// pattern and its token, so that nobody else learns anything.
pub(super) async fn admit(State(api): State<Api>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let pattern = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let operator = match let_in(&api, request.method(), &pattern, request.headers()).await {
        Ok(Admitted::Operator(operator)) => operator,
        Ok(Admitted::Node) => {
            request.extensions_mut().insert(Node);
            return Ok(next.run(request).await);
        }
        Err(Refused { by, problem }) => {
            // Who shows nothing tried nothing.
            let is_tried = by.is_some() || request.headers().contains_key(header::AUTHORIZATION);
            if is_tried && matches!(problem.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                let call = format!("{} {pattern}", request.method());
                api.plane.refusals.tell(&api.plane.registry, by.as_deref(), call).await;
            }
            return Err(problem);
        }
    };
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let account = Account::new(operator.subject.clone());
    request.extensions_mut().insert(operator);
    if is_read {
        return Ok(next.run(request).await);
    }
    let response = account.clone().scope(next.run(request)).await;
    // A change of the registry without a deed did not commit. This is for what is changed by other ways.
    if response.status().is_success() && !account.is_settled() {
        return Err(Problem::internal(format!("{pattern} succeeded and told the audit trail nothing")));
    }
    Ok(response)
}

/// Who may make a call.
enum Admitted {
    Node,
    Operator(Operator),
}

/// Who may not, as far as it is known, and what it is told.
struct Refused {
    by: Option<String>,
    problem: Problem,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { by: None, problem }
    }
}

async fn let_in(api: &Api, method: &Method, pattern: &str, headers: &HeaderMap) -> Result<Admitted, Refused> {
    let token = bearer(headers).ok_or_else(unauthorized)?;
    let shown = digest(token);
    let is_node: bool = shown.ct_eq(&api.tokens.node).into();
    let refused = |by: &str, problem| Refused { by: Some(by.to_owned()), problem };
    let wanted = match audience(method, pattern) {
        Audience::Nodes | Audience::Everybody(_) if is_node => return Ok(Admitted::Node),
        _ if is_node => {
            let problem = forbidden("This is for operators. Use an operator's token, not a node's.");
            return Err(refused(NODE, problem));
        }
        Audience::Nodes => None,
        Audience::Operators(role) | Audience::Everybody(role) => Some(role),
    };
    let (subject, role) = match known(token, api).await? {
        Known::Bootstrap => (BOOTSTRAP.to_owned(), None),
        Known::Operator { name, role } => (name, Some(role)),
    };
    // Only those who may call at all are told for whom a call is.
    let Some(wanted) = wanted else {
        let problem = forbidden("This is for data planes. Use the node token, not an operator's.");
        return Err(refused(&subject, problem));
    };
    match role {
        None => may_bootstrap(api, method, pattern).await.map_err(|problem| refused(BOOTSTRAP, problem))?,
        Some(role) if role < wanted => {
            let (is, wanted) = (role.as_str(), wanted.as_str());
            let problem = forbidden(&format!(
                "This needs the role {wanted}, and your token has the role {is}. Ask an admin to do it, or for a token with \
                 that role."
            ));
            return Err(refused(&subject, problem));
        }
        Some(_) => {}
    }
    Ok(Admitted::Operator(Operator { token: shown, subject, is_bootstrap: role.is_none() }))
}

/// Who was let in as what a handler wants. Another is a fault of ours: the audience of the call is not what its handler says.
fn admitted<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, Problem> {
    parts.extensions.get::<T>().cloned().ok_or_else(|| Problem::internal("a call's audience and its handler differ"))
}

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        admitted(parts)
    }
}

impl FromRequestParts<Api> for Node {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        admitted(parts)
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        admitted::<Operator>(parts).map(drop).or_else(|_| admitted::<Node>(parts).map(drop)).map(|()| Self)
    }
}

/// Whose token it is.
enum Known {
    Bootstrap,
    Operator { name: String, role: Role },
}

/// One look-up by the id that the token names. Nothing is remembered: a token that is revoked counts no more at once, on
/// every replica.
async fn known(token: &str, api: &Api) -> Result<Known, Problem> {
    if digest(token).ct_eq(&api.tokens.bootstrap).into() {
        return Ok(Known::Bootstrap);
    }
    let shown = ApiKey::parse_as(TOKEN_PREFIX, token).map_err(|_| unauthorized())?;
    let row = rows::Entity::find_by_id(shown.id().as_str()).one(api.plane.registry.db()).await?;
    let row = row.ok_or_else(unauthorized)?;
    let is_proven = KeyDigest::try_from(row.digest.clone()).is_ok_and(|digest| digest == shown.digest());
    match Role::of(&row.role) {
        Some(role) if is_proven && operators::counts(&row, api.plane.registry.now()) => {
            Ok(Known::Operator { name: row.name, role })
        }
        _ => Err(unauthorized()),
    }
}

/// The token of the configuration makes the first admin, and is good for nothing else: everything that is done is done by
/// somebody who has a name. When the last admin's token is revoked or has expired, it makes the next.
async fn may_bootstrap(api: &Api, method: &Method, pattern: &str) -> Result<(), Problem> {
    if operators::has_admin(api.plane.registry.db(), api.plane.registry.now()).await? {
        return Err(bootstrap_is_over());
    }
    if (method, pattern) != (&Method::POST, operators::PATH) {
        return Err(forbidden(
            "The bootstrap token only makes the first admin. Do that by POST /v1/operators with {\"name\": \"you\", \
             \"role\": \"admin\"}, and use the token that it answers.",
        ));
    }
    Ok(())
}

pub(super) fn bootstrap_is_over() -> Problem {
    forbidden(
        "The bootstrap token only makes the first admin, and there is one. Use an operator's token: an admin makes them by \
         POST /v1/operators.",
    )
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

fn unauthorized() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "Send `Authorization: Bearer TOKEN` with a token of this control plane.",
    )
    .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
