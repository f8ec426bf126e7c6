//! Reads the tenant's names from requests of arbitrary bytes: a target, a host, a header.
#![no_main]

libfuzzer_sys::fuzz_target!(|parts: (&str, &[u8], &[u8])| {
    let (target, host, header) = parts;
    data_plane::fuzzing::identify(target, host, header);
});
