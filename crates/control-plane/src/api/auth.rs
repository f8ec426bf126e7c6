//! Who calls: an operator or a data plane, each with its token. Checked before anything else of a request is read.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use service::Problem;
use service::extract::bearer;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Api;

/// Who the bootstrap operator token stands for, in what is written down.
pub(super) const OPERATOR: &str = "operator";

/// Digests of the tokens that are taken.
pub(crate) struct Tokens {
    operator: [u8; 32],
    node: [u8; 32],
}

impl Tokens {
    /// The tokens of the configuration.
    pub(crate) fn new(operator: &SecretString, node: &SecretString) -> Self {
        Self { operator: digest(operator.expose_secret()), node: digest(node.expose_secret()) }
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// An operator, proven by the operator token.
pub(super) struct Operator {
    /// Names the token without telling it.
    pub(super) token: [u8; 32],
}

/// A data plane, proven by the node token.
pub(super) struct Node;

/// Either of them.
pub(super) enum Caller {
    Operator,
    Node,
}

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Caller::from_request_parts(parts, api).await? {
            Caller::Operator => Ok(Self { token: api.tokens.operator }),
            Caller::Node => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "This is for operators. Use the operator token, not a node's.",
            )),
        }
    }
}

impl FromRequestParts<Api> for Node {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Caller::from_request_parts(parts, api).await? {
            Caller::Node => Ok(Self),
            Caller::Operator => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "This is for data planes. Use the node token, not the operator's.",
            )),
        }
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let token = bearer(&parts.headers).ok_or_else(unauthorized)?;
        let shown = digest(token);
        let is_operator: bool = shown.ct_eq(&api.tokens.operator).into();
        let is_node: bool = shown.ct_eq(&api.tokens.node).into();
        match (is_operator, is_node) {
            (true, _) => Ok(Self::Operator),
            (false, true) => Ok(Self::Node),
            (false, false) => Err(unauthorized()),
        }
    }
}

fn unauthorized() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "Send `Authorization: Bearer TOKEN` with a token of this control plane.",
    )
    .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
