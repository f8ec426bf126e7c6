//! Reads credentials of arbitrary text: keys and tokens.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| data_plane::fuzzing::credential(text));
