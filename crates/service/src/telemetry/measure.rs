//! Labelling and counting by itself, without a request around it: for `cargo xtask bench` alone.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use http::StatusCode;

use super::{RequestContext, Telemetry};

/// Makes requests of many tenants and counts them, to measure counting alone.
#[derive(Debug)]
pub struct Answered {
    telemetry: Telemetry,
    tenants: Vec<Arc<str>>,
}

impl Answered {
    /// For this many tenants.
    pub fn new(telemetry: Telemetry, tenants: usize) -> Self {
        Self { telemetry, tenants: (0..tenants).map(|number| format!("tenant-{number}").into()).collect() }
    }

    /// A request of this tenant.
    ///
    /// # Panics
    ///
    /// If there is no such tenant.
    pub fn request(&self, tenant: usize) -> Arc<RequestContext> {
        let context = RequestContext::of(&Request::new(Body::empty()), None);
        context.set_tenant(self.tenants[tenant].clone());
        context
    }

    /// Labels and counts an answered request.
    pub fn count(&self, request: &RequestContext) {
        self.telemetry.requests().count(request, StatusCode::OK, Duration::from_micros(300));
    }
}
