//! Messages for people: parsers' words in plain ones, and the name that was meant.

/// `1,199,882`
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Names longer than this are near to none: a file may hold one of megabytes.
const LONGEST_NAME: usize = 64;

/// Bytes of a message that lists the names which may stand somewhere, beyond which only those that are near are told.
const LONGEST_LIST: usize = 200;

/// A parser's message on one line, without the names of Rust's types; for a name that is not known, what may have been meant.
pub(crate) fn in_plain_words(message: &str) -> String {
    if message.contains("expected unit struct") {
        return "takes no settings".into();
    }
    let message = match meant(message) {
        // fifty names hide the one that is meant
        Some(near) if message.len() > LONGEST_LIST => {
            let start = message.split(", expected").next().unwrap_or(message);
            format!("{start}; did you mean {near}?")
        }
        Some(near) => format!("{message}; did you mean {near}?"),
        None => message.to_string(),
    };
    [
        ("\n", " "),
        ("expected usize", "expected a whole number of at least 0"),
        ("expected u64", "expected a whole number of at least 0"),
        ("expected i64", "expected a whole number"),
        ("expected f32", "expected a number"),
        ("expected f64", "expected a number"),
        ("expected variant identifier", "expected a name in quotes"),
        ("unit variant, expected string only", "something else, expected a name in quotes"),
        ("map, expected map with a single key", "a table, expected a name in quotes"),
        ("expected unit", "expected a name in quotes, without settings"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected a table"),
    ]
    .into_iter()
    .fold(without_types(message), |message, (from, to)| message.replace(from, to))
}

/// A message without the name behind "expected struct".
fn without_types(message: String) -> String {
    match message.split_once("expected struct ") {
        Some((before, name)) => {
            let after = name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            format!("{before}expected a table{after}")
        }
        None => message,
    }
}

/// Of the names that "unknown variant `dens`, expected one of `dense`, `conv2d`" expects, those near the one it has.
fn meant(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    // whatever stands between backticks: first what was found, then what may stand there
    let mut quoted = message.split('`').skip(1).step_by(2);
    let word = quoted.next().filter(|word| word.len() <= LONGEST_NAME)?;
    let near = nearest(word, &quoted.collect::<Vec<_>>());
    (!near.is_empty()).then(|| near.join(" or "))
}

/// Names that a word may have meant: few edits away, or containing it.
pub(crate) fn nearest<'n>(word: &str, names: &[&'n str]) -> Vec<&'n str> {
    let mut scored: Vec<(usize, &str)> = names
        .iter()
        .map(|&name| (edit_distance(word, name), name))
        .filter(|(d, name)| {
            *d <= (word.len() / 3).max(2).min(word.len() / 2) || (word.len() > 2 && name.contains(word))
        })
        .collect();
    scored.sort();
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Insertions, deletions and replacements from one word to another (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
