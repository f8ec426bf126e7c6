//! What the fields of a server may be.

use service::Problem;

pub(super) fn label(field: &'static str, text: &str) -> Result<String, Problem> {
    let is_label = (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if is_label {
        return Ok(text.to_owned());
    }
    Err(Problem::invalid_field(
        field,
        "begins with a lower-case letter and has letters, digits and hyphens, 63 at most",
    ))
}

pub(super) fn amount(field: &'static str, number: u32) -> Result<i32, Problem> {
    match i32::try_from(number) {
        Ok(number) if (1..=1_000_000).contains(&number) => Ok(number),
        _ => Err(Problem::invalid_field(field, "must be from 1 to 1000000")),
    }
}

pub(super) fn rate(number: u32) -> Result<i32, Problem> {
    match i32::try_from(number) {
        Ok(number) if (1..=10_000).contains(&number) => Ok(number),
        _ => Err(Problem::invalid_field("connect_rate", "must be from 1 to 10000")),
    }
}

pub(super) fn warm(number: u32) -> Result<i32, Problem> {
    match i32::try_from(number) {
        Ok(number) if number <= 1_000 => Ok(number),
        _ => Err(Problem::invalid_field("warm", "must be from 0 to 1000")),
    }
}
