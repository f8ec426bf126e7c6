//! Rust source without what is not code: comments and the insides of literals become blanks, so
//! that words in them are not taken for calls. Lines stay where they are.
//!
//! A sketch of the lexer, not a parser: enough for the rules of tidy.

/// Keeps length in lines; what is blanked becomes spaces.
pub(super) fn without_text(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => block_comment_end(&chars, at),
            '"' => string_end(&chars, at),
            'r' | 'b' | 'c' if !follows_a_word(&chars, at) => raw_string_end(&chars, at).unwrap_or(at),
            '\'' => char_end(&chars, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { c } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The line, counted from 0, where a module of tests begins; tests come last in a file.
pub(super) fn tests_begin(code: &str) -> Option<usize> {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    (0..lines.len()).find(|&index| {
        lines[index].starts_with("#[cfg(test)]")
            && lines[index..]
                .iter()
                .map(|line| line.trim_start_matches("#[cfg(test)]").trim_start())
                .find(|line| !line.is_empty() && !line.starts_with("#["))
                .is_some_and(|line| line.starts_with("mod ") && !line.ends_with(';'))
    })
}

fn follows_a_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn line_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    at + rest.iter().position(|&c| c == '\n').unwrap_or(rest.len())
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start + 2, 1);
    while at < chars.len() && depth > 0 {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at.min(chars.len())
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `r"…"`, `r#"…"#`, `br#"…"#`; none of these: None.
fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let mut at = start;
    while matches!(chars.get(at), Some('b' | 'c')) {
        at += 1;
    }
    (chars.get(at) == Some(&'r')).then_some(())?;
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    at += 1 + hashes;
    (chars.get(at) == Some(&'"')).then_some(())?;
    let is_end =
        |at: usize| chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
    let end = (at + 1..chars.len()).find(|&at| is_end(at));
    Some(end.map_or(chars.len(), |end| end + 1 + hashes))
}

/// A char literal, not a lifetime.
fn char_end(chars: &[char], start: usize) -> Option<usize> {
    if chars.get(start + 1) == Some(&'\\') {
        let close = chars.get(start + 3..)?.iter().position(|&c| c == '\'')?;
        return Some(start + 3 + close + 1);
    }
    (chars.get(start + 2) == Some(&'\'')).then_some(start + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_become_blanks_and_lines_stay() {
        let source = "a // x.unwrap()\nb /* y\n */ c \"\\\"todo!\" r#\"\"q\"\"# '\"' '\\'' <'a> d";
        let code = without_text(source);
        assert_eq!(code.lines().count(), source.lines().count());
        let words: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(words, ["a", "b", "c", "<'a>", "d"]);
    }

    #[test]
    fn tests_begin_where_their_module_does() {
        let code = "fn a() {}\n#[cfg(test)]\nfn of() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n";
        assert_eq!(tests_begin(code), Some(3));
        assert_eq!(tests_begin("#[cfg(test)]\nmod tests;\nfn a() {}\n"), None);
    }
}
