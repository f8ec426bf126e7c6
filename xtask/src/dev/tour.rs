//! What dev prints when all is up: where things are, and commands that work when pasted.

use std::fmt::Write as _;
use std::io::Write as _;

use super::config::MAIL;
use super::demo::{DOMAIN, Dev};
use super::folder::Folder;

pub(super) fn print(dev: &Dev, folder: &Folder) {
    let text = text(dev, &folder.path().display().to_string());
    // Nobody reading is no reason to stop the planes.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn text(dev: &Dev, folder: &str) -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        let _ = writeln!(text, "{line}");
    };
    line("");
    line("Freehold is up. Ctrl-C drains and stops; the next run goes on with what is there.");
    line("");
    line(&format!("  control plane  {0}  docs {0}/docs  ops {1}", dev.control_url, dev.control_ops_url));
    for (url, ops) in dev.data_urls.iter().zip(&dev.data_ops_urls) {
        line(&format!("  data plane     {url}  docs {url}/docs  ops {ops}"));
    }
    line(&format!("  state          {folder}  (dev.json has these URLs, tokens and keys)"));
    line(&format!("  mail           {folder}/{MAIL}  (the welcome of every tenant that has an admin_email)"));
    line("");

    if let Some(tenant) = dev.tenants.iter().find(|it| !it.api_key.is_empty()) {
        let (url, slug) = (&dev.data_url, &tenant.slug);
        let bearer = format!("-H 'Authorization: Bearer {}'", tenant.api_key);
        let port = url.rsplit(':').next().unwrap_or_default();
        line(&format!("Five ways to name the tenant {slug}, each with its key:"));
        line("");
        line(&format!("  # by its host name\n  curl {bearer} -H 'Host: {slug}.localhost:{port}' {url}/api/pets"));
        if slug == "acme" {
            line(&format!("  # by its custom domain\n  curl {bearer} -H 'Host: {DOMAIN}' {url}/api/pets"));
        }
        line(&format!("  # by the path\n  curl {bearer} {url}/{slug}/api/pets"));
        line(&format!("  # by a header\n  curl {bearer} -H 'X-Tenant-ID: {slug}' {url}/api/pets"));
        line(&format!("  # by the credential alone\n  curl {bearer} {url}/api/pets"));
        line("");
    }

    let operator = format!("-H 'Authorization: Bearer {}'", dev.operator_token);
    line("Create a third tenant and a key for it; the data plane serves it at once:");
    line("");
    line(&format!(
        "  curl {operator} -H 'Content-Type: application/json' -H 'Prefer: wait=60' \\\n    \
         {}/v1/tenants -d '{{\"slug\":\"initech\",\"name\":\"Initech\",\"plan\":\"basic\"}}'",
        dev.control_url
    ));
    line(&format!(
        "  curl {operator} -H 'Content-Type: application/json' \\\n    \
         {}/v1/tenants/initech/keys -d '{{\"name\":\"first\"}}'",
        dev.control_url
    ));
    text
}
