//! Custom hosts: claimed by anybody, proven by whoever writes into their DNS zone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::net::UdpSocket;

use crate::bed::{Bed, Store, Tuning, send};

/// A name server that answers TXT questions from a table.
#[derive(Clone, Default)]
struct NameServer(Arc<Mutex<HashMap<String, String>>>);

impl NameServer {
    async fn start() -> (Self, String) {
        let (server, socket) = (Self::default(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (address, zone) = (socket.local_addr().unwrap().to_string(), server.clone());
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut question).await {
                let _ = socket.send_to(&zone.answer(&question[..length]), peer).await;
            }
        });
        (server, address)
    }

    fn write(&self, name: &str, text: &str) {
        self.0.lock().unwrap().insert(name.to_owned(), text.to_owned());
    }

    /// RFC 1035: header, the question as it came, and a record or "no such name".
    fn answer(&self, question: &[u8]) -> Vec<u8> {
        let (mut labels, mut at) = (Vec::new(), 12);
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_ascii_lowercase());
            at = end;
        }
        let text = self.0.lock().unwrap().get(&labels.join(".")).cloned();
        let mut answer = question[..2].to_vec();
        answer.extend(if text.is_some() { [0x81, 0x80] } else { [0x81, 0x83] });
        answer.extend([0, 1, 0, u8::from(text.is_some()), 0, 0, 0, 0]);
        answer.extend(&question[12..at + 5]);
        if let Some(text) = text {
            let length = u8::try_from(text.len()).unwrap();
            // The question's name, TXT, IN, for no time.
            answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, length + 1, length]);
            answer.extend(text.bytes());
        }
        answer
    }
}

async fn with_proofs(store: Store) -> (Bed, NameServer) {
    let (names, address) = NameServer::start().await;
    let domains = format!("proof = \"dns\"\nname_servers = [\"{address}\"]\n");
    // For the length of the test's process.
    let tuning = Tuning { domains: domains.leak(), ..Tuning::DEFAULT };
    (Bed::start_with(store, 1, 1, tuning).await, names)
}

async fn leads(bed: &Bed, key: &str, host: &str) -> u16 {
    send(bed.request(0, "GET", "/api/me").bearer_auth(key).header("host", host)).await.status
}

async fn a_host_leads_to_whoever_proved_it(store: Store) {
    let (bed, names) = with_proofs(store).await;
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    let host = json!({ "host": "Shop.Acme.Example" });
    // Somebody else comes first, and can prove nothing.
    bed.done("POST", "/v1/tenants/globex/domains", Some(host.clone())).await;
    let claimed = bed.done("POST", "/v1/tenants/acme/domains", Some(host.clone())).await;
    assert_eq!((claimed["host"].as_str(), &claimed["is_proven"]), (Some("shop.acme.example"), &json!(false)));
    assert_eq!(claimed["proof"]["name"], "_freehold.shop.acme.example");
    let value = claimed["proof"]["value"].as_str().unwrap();
    for tenant in [&acme, &globex] {
        bed.until(tenant, "/api/me", 200).await;
        assert_eq!(leads(&bed, &tenant.key, "shop.acme.example").await, 404, "not proven");
    }
    let prove = async |tenant: &str| {
        bed.operator("POST", &format!("/v1/tenants/{tenant}/domains/shop.acme.example/prove"), None).await
    };
    let missing = prove("acme").await;
    assert_eq!((missing.status, missing.kind().as_str()), (409, "host-unproven"));
    assert!(missing.text.contains(value), "it says what to write: {missing:?}");
    names.write("_freehold.shop.acme.example", "freehold-domain=another");
    assert!(prove("acme").await.text.contains("say other things"));
    names.write("_freehold.shop.acme.example", value);
    assert_eq!(prove("globex").await.status, 409, "the record is acme's");
    for _ in 0..2 {
        let proven = prove("acme").await;
        assert_eq!((proven.status, &proven.json()["is_proven"]), (200, &json!(true)), "{proven:?}");
    }
    let told = bed.done("GET", "/v1/audit?tenant=acme&action=domain.proven", None).await;
    assert_eq!(told["items"].as_array().unwrap().len(), 1, "told once: {told}");
    while leads(&bed, &acme.key, "shop.acme.example").await != 200 {}
    assert_eq!(leads(&bed, &globex.key, "shop.acme.example").await, 404);
    let again = bed.operator("POST", "/v1/tenants/globex/domains", Some(host)).await;
    assert_eq!((again.status, again.kind().as_str()), (409, "host-taken"));

    // What is claimed and what is proven is listed in one order, and goes by one call.
    for host in ["a.acme.example", "z.acme.example"] {
        bed.done("POST", "/v1/tenants/acme/domains", Some(json!({ "host": host }))).await;
    }
    let first = bed.done("GET", "/v1/tenants/acme/domains?limit=2", None).await;
    let hosts: Vec<_> = first["items"].as_array().unwrap().iter().map(|it| it["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["a.acme.example", "shop.acme.example"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = bed.done("GET", &format!("/v1/tenants/acme/domains?limit=2&cursor={cursor}"), None).await;
    assert_eq!((rest["items"][0]["host"].as_str(), &rest["next_cursor"]), (Some("z.acme.example"), &json!(null)));
    for (host, status) in [("z.acme.example", 204), ("shop.acme.example", 204), ("z.acme.example", 404)] {
        let gone = bed.operator("DELETE", &format!("/v1/tenants/acme/domains/{host}"), None).await;
        assert_eq!(gone.status, status, "{host}");
    }
    while leads(&bed, &acme.key, "shop.acme.example").await != 404 {}
    assert_eq!(prove("acme").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_leads_to_whoever_proved_it_on_sqlite() {
    a_host_leads_to_whoever_proved_it(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_leads_to_whoever_proved_it_on_postgres() {
    a_host_leads_to_whoever_proved_it(Store::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_host_lies_under_the_base_domain_and_silent_name_servers_are_told() {
    let tuning = Tuning { domains: "proof = \"dns\"\nname_servers = [\"127.0.0.1:9\"]\n", ..Tuning::DEFAULT };
    let bed = Bed::start_with(Store::Sqlite, 1, 0, tuning).await;
    bed.tenant("acme").await;
    for host in ["pets.test", "acme.pets.test", "A.B.Pets.Test."] {
        let refused = bed.operator("POST", "/v1/tenants/acme/domains", Some(json!({ "host": host }))).await;
        assert_eq!((refused.status, refused.json()["errors"][0]["field"].as_str()), (422, Some("host")), "{refused:?}");
    }
    bed.done("POST", "/v1/tenants/acme/domains", Some(json!({ "host": "notpets.test" }))).await;
    let silent = bed.operator("POST", "/v1/tenants/acme/domains/notpets.test/prove", None).await;
    assert_eq!((silent.status, silent.kind().as_str()), (503, "name-servers-silent"), "{silent:?}");
    let none = bed.operator("POST", "/v1/tenants/acme/domains/other.test/prove", None).await;
    assert_eq!(none.status, 404);
}
