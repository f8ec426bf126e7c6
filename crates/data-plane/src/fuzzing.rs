//! What is read of a client's bytes before anything is known of it, for the fuzzer alone.

use axum::body::Body;
use axum::extract::Request;
use http::HeaderValue;

use crate::admission::identify::Naming;
use crate::tokens::Unproven;

/// Reads the names of a request.
pub fn identify(target: &str, host: &[u8], header: &[u8]) {
    let mut request = Request::builder().uri(target);
    for (name, value) in [("host", host), ("x-tenant-id", header)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            request = request.header(name, value);
        }
    }
    if let Ok(request) = request.body(Body::empty()) {
        let _ = Naming::new("pets.test", "/api").identify(request);
    }
}

/// Reads a credential.
pub fn credential(text: &str) {
    let _ = text.parse::<tenancy::ApiKey>();
    let _ = Unproven::read(text);
}
