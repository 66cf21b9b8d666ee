//! The text of tables: read, told where it is unsound, and quoted in messages.

use std::path::Path;

use csv::{ErrorKind, Position};

use crate::DataError;

/// Longest field or name of a column: a quote that is not closed takes the rest of the file for one field.
pub(crate) const MAX_FIELD: usize = 1_000;

/// Characters of a text that a message quotes.
const QUOTED: usize = 40;

/// Names that a message lists.
const LISTED: usize = 20;

/// Refuses what is in another encoding, or no text at all.
pub(crate) fn check_text(data: &[u8]) -> Result<(), &'static str> {
    let start = &data[..data.len().min(100)];
    if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) || start.contains(&0) {
        return Err("is UTF-16, or no text at all: save it as UTF-8");
    }
    Ok(())
}

/// The bytes of a regular file: a pipe might never end.
pub(crate) fn open(path: &Path) -> Result<Vec<u8>, DataError> {
    let io = |source| DataError::Io { path: path.into(), source };
    if path.as_os_str().is_empty() {
        return Err(DataError::Shape {
            origin: "table".into(),
            message: "path is empty; name the file to read".into(),
        });
    }
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(DataError::NotAFile { path: path.into() });
    }
    std::fs::read(path).map_err(io)
}

/// The beginning of a text as a message shows it, in one line.
pub(crate) fn cut(text: &str) -> String {
    let mut start = String::new();
    for c in text.chars().take(QUOTED) {
        match c.is_control() {
            true => start.extend(c.escape_default()),
            false => start.push(c),
        }
    }
    start + if text.chars().nth(QUOTED).is_some() { "..." } else { "" }
}

pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", cut(text))
}

/// The first few names of a list.
pub(crate) fn listed(names: &[String]) -> String {
    let some: Vec<String> = names.iter().take(LISTED).map(|name| cut(name)).collect();
    some.join(", ") + if names.len() > LISTED { ", ..." } else { "" }
}

/// Refuses a text that is longer than any that is meant.
pub(crate) fn check_length(text: &str, what: &str) -> Result<(), String> {
    match text.len() {
        0..=MAX_FIELD => Ok(()),
        n => Err(format!(
            "{} is a {what} of {n} bytes, at most {MAX_FIELD} are read; is a quote not closed?",
            quoted(text)
        )),
    }
}

/// The line that a record begins in. The parser takes empty lines for the beginning of the next record.
pub(crate) fn line_at(position: &Position, data: &[u8]) -> u64 {
    let from = data.get(position.byte() as usize..).unwrap_or_default();
    let empty = from.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + empty.filter(|byte| **byte == b'\n').count() as u64
}

/// What the parser says of a record, as this crate says it.
pub(crate) fn in_words(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::Utf8 { err, .. } => {
            format!("field {} is not UTF-8: save the file as UTF-8", err.field() + 1)
        }
        ErrorKind::UnequalLengths { expected_len, len, .. } => format!(
            "{len} fields, where the lines above have {expected_len}; is the separator right, or a quote not closed?"
        ),
        _ => "not a table of separated values".into(),
    }
}

/// Refuses a text that ends in an open quote: the parser takes all that follows it for one field, and so passes over rows. Such a
/// quote stands in the last record, which begins at `last`. The error is the quote's line, and what to say.
pub(crate) fn open_quote(text: &[u8], last: &Position, delimiter: u8) -> Result<(), (u64, String)> {
    #[derive(Clone, Copy, PartialEq)]
    enum At {
        Start,
        Plain,
        Quoted,
        /// A quote that ends its field, or is the first of two, which are one of the field.
        Quote,
    }
    let text = text.get(last.byte() as usize..).unwrap_or_default();
    let (mut at, mut line, mut opened) = (At::Start, last.line(), last.line());
    for &byte in text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) {
        at = match (at, byte) {
            (At::Start, b'"') => {
                opened = line;
                At::Quoted
            }
            (At::Quoted, b'"') => At::Quote,
            (At::Quote, b'"') | (At::Quoted, _) => At::Quoted,
            (_, b'\r' | b'\n') => At::Start,
            (_, byte) if byte == delimiter => At::Start,
            _ => At::Plain,
        };
        line += u64::from(byte == b'\n');
    }
    match at {
        At::Quoted => {
            let message = "a quote opens here that is not closed: all that follows would be one field";
            Err((opened, message.into()))
        }
        _ => Ok(()),
    }
}
