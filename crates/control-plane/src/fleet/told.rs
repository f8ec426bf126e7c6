//! Lists of lines that come from databases, as much of them as is told.

/// At most so many of the lines, none longer than so many characters; how many were left out is the last.
pub(crate) fn shortened(lines: Vec<String>, most: usize, longest: usize) -> Vec<String> {
    let left_out = lines.len().saturating_sub(most);
    let mut told: Vec<String> = lines.into_iter().take(most).map(|line| cut(line, longest)).collect();
    if left_out > 0 {
        told.push(format!("… and {left_out} more"));
    }
    told
}

fn cut(line: String, longest: usize) -> String {
    match line.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_list_only_so_much_is_told() {
        let told = shortened(vec!["+ ä".repeat(400); 107], 100, 400);
        assert_eq!((told.len(), told[100].as_str()), (101, "… and 7 more"));
        assert_eq!(told[0].chars().count(), 401);
        assert_eq!(shortened(vec!["+ table more".to_owned()], 100, 400), ["+ table more"]);
    }
}
