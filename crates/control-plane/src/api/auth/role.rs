//! What an operator may do: one table for all calls. What is not in it is for admins alone, so that a new call is closed
//! until somebody opens it.

use http::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Sees everything but secrets, and changes nothing.
    Viewer,
    /// Works on tenants.
    Operator,
    /// Works on servers, plans, nodes and operators too.
    Admin,
}

impl Role {
    pub(crate) const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The word used in the API and in the registry.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// For whom a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Data planes alone.
    Nodes,
    /// Operators of this role at least.
    Operators(Role),
    /// Both.
    Everybody(Role),
}

/// What data planes ask, and nobody else.
const NODES: &[&str] = &["/v1/feed", "/v1/routes", "/v1/key-uses", "/v1/audit/batches", "/v1/audit/trail"];

/// Below these paths operators work.
const OPERATORS: &[&str] = &["/v1/tenants", "/v1/operations", "/v1/doctor", "/v1/fleet", "/v1/rollouts"];

/// For whom a call is, by its method and its path's pattern.
pub(crate) fn audience(method: &Method, pattern: &str) -> Audience {
    let is_below =
        |path: &&str| pattern.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match pattern {
        _ if NODES.contains(&pattern) => Audience::Nodes,
        // A data plane says goodbye by it.
        "/v1/nodes/{id}" if *method == Method::DELETE => Audience::Everybody(Role::Admin),
        // Who may call at all is for those to see who decide it.
        _ if is_below(&"/v1/operators") => Audience::Operators(Role::Admin),
        _ if is_read => Audience::Operators(Role::Viewer),
        _ if OPERATORS.iter().any(is_below) => Audience::Operators(Role::Operator),
        _ => Audience::Operators(Role::Admin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_opened_is_for_admins() {
        let least = |method: &Method, pattern: &str| match audience(method, pattern) {
            Audience::Operators(role) | Audience::Everybody(role) => role,
            Audience::Nodes => panic!("{pattern} is for nodes"),
        };
        assert_eq!(least(&Method::POST, "/v1/something-new"), Role::Admin);
        assert_eq!(least(&Method::POST, "/v1/tenants-of-others"), Role::Admin);
        assert_eq!(least(&Method::DELETE, "/v1/tenants/{tenant}"), Role::Operator);
        assert_eq!(least(&Method::GET, "/v1/tenants/{tenant}"), Role::Viewer);
        assert_eq!(least(&Method::GET, "/v1/operators"), Role::Admin);
        assert_eq!(least(&Method::PUT, "/v1/plans/{name}"), Role::Admin);
    }
}
