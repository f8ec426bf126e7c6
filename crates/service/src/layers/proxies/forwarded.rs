//! `Forwarded`, by its grammar (RFC 7239, section 4). What a proxy appended is told from what a client wrote by the grammar
//! alone: a header that does not keep to it says nothing.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, header};

use super::{MOST_HOPS, Said, address};

/// Longest header that is read, in bytes over all of its lines.
const LONGEST: usize = 8_192;
/// Most parameters of one element; four are known.
const MOST_PARAMETERS: usize = 16;

/// What one machine says of whom it forwards for.
#[derive(Debug, Default)]
struct Element {
    address: Option<IpAddr>,
    host: Option<HeaderValue>,
}

/// Addresses, the nearest first, and the nearest machine's host. Nothing where any line is not sound.
pub(super) fn said(headers: &HeaderMap) -> Said {
    let mut elements = elements(headers).unwrap_or_default();
    let host = elements.last_mut().and_then(|nearest| nearest.host.take());
    (elements.iter().rev().take(MOST_HOPS).map(|element| element.address).collect(), host.into_iter().collect())
}

/// All elements in their order: several lines are one list. No element reaches beyond its line.
fn elements(headers: &HeaderMap) -> Option<Vec<Element>> {
    let lines = || headers.get_all(header::FORWARDED).iter().map(HeaderValue::as_bytes);
    if lines().map(<[u8]>::len).sum::<usize>() > LONGEST {
        return None;
    }
    let mut elements = Vec::new();
    for line in lines() {
        let mut rest = Rest(line);
        loop {
            rest.skip_whitespace();
            elements.push(rest.element()?);
            rest.skip_whitespace();
            if rest.0.is_empty() {
                break;
            }
            rest.take(b',').then_some(())?;
        }
    }
    Some(elements)
}

/// What is left of a line to be read. What is not sound is none.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// `[ pair ] *( ";" [ pair ] )`. One without any pair is an element too: a machine that says nothing.
    fn element(&mut self) -> Option<Element> {
        let (mut element, mut names) = (Element::default(), Vec::new());
        loop {
            if let Some(name) = self.token() {
                let is_again = names.iter().any(|known: &&[u8]| known.eq_ignore_ascii_case(name));
                if is_again || names.len() == MOST_PARAMETERS {
                    return None;
                }
                names.push(name);
                self.take(b'=').then_some(())?;
                let value = self.value()?;
                if name.eq_ignore_ascii_case(b"for") {
                    element.address = std::str::from_utf8(&value).ok().and_then(address);
                } else if name.eq_ignore_ascii_case(b"host") {
                    element.host = HeaderValue::from_bytes(&value).ok();
                }
            }
            if !self.take(b';') {
                return Some(element);
            }
        }
    }

    /// A token, or what is in quotes.
    fn value(&mut self) -> Option<Vec<u8>> {
        if self.take(b'"') { self.quoted() } else { self.token().map(<[u8]>::to_vec) }
    }

    /// What is left of a quoted string. A backslash takes the next character as it is.
    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(value),
                b'\\' => value.push(self.next()?),
                byte => value.push(byte),
            }
        }
    }

    /// The next character: visible, a space, a tab, or one of those beyond ASCII (obs-text).
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        matches!(first, b'\t' | b' '..=b'~' | 0x80..).then_some(first)
    }

    /// A token (RFC 9110, section 5.6.2), if one is next.
    fn token(&mut self) -> Option<&'a [u8]> {
        let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let end = self.0.iter().position(|byte| !is_of_token(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// Takes a character, if it is next.
    fn take(&mut self, expected: u8) -> bool {
        let Some(rest) = self.0.strip_prefix(&[expected]) else { return false };
        self.0 = rest;
        true
    }

    fn skip_whitespace(&mut self) {
        while self.take(b' ') || self.take(b'\t') {}
    }
}
