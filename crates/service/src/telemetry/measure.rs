//! Labelling and counting by itself, without a request around it: for `cargo xtask bench` alone.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use http::StatusCode;

use super::{RequestContext, Telemetry};

/// Requests that were answered, one for each tenant, to be counted again and again.
#[derive(Debug)]
pub struct Answered {
    telemetry: Telemetry,
    contexts: Vec<Arc<RequestContext>>,
}

impl Answered {
    /// One request of each of so many tenants.
    pub fn of(telemetry: Telemetry, tenants: usize) -> Self {
        let context = |number| {
            let context = RequestContext::of(&Request::new(Body::empty()), None);
            context.set_tenant(format!("tenant-{number}"));
            context
        };
        Self { telemetry, contexts: (0..tenants).map(context).collect() }
    }

    /// Labels and counts one of them.
    pub fn count(&self, at: usize) {
        let context = &self.contexts[at % self.contexts.len()];
        self.telemetry.requests().count(context, StatusCode::OK, Duration::from_micros(300));
    }
}
