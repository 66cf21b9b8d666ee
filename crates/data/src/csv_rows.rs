//! Rows of a table to be predicted: the columns that a network learned from, found by name.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use csv::{Position, ReaderBuilder, StringRecord, Trim};

use crate::{
    Csv, DataError, Features, Split, Targets,
    csv_table::{MAX_NUMBERS, MAX_ONE_HOT},
    csv_text::{check_text, cut, in_words, line_at, listed, open, open_quote, quoted},
};

/// Reads the rows of a CSV file as a network takes them that was trained on a table of these columns
/// ([`crate::Table::columns`]): `size` is the number of the column of that name, `colour=red` 1 where the column `colour` says
/// `red`, else 0. Other columns, as that of the label, are not looked at, and the order is of no account. Fields stand between
/// whatever the first line has most of commas, semicolons, tabs and bars. Of tables without a header, whose columns are called by
/// their numbers, the first line is a row. The split's targets mean nothing.
///
/// ```
/// use kiln_data::{Features, csv_rows};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("new.csv");
/// std::fs::write(&path, "colour,size\nred,7.5\ngreen,9\n")?;
/// let rows = csv_rows(&path, &["size", "colour=green", "colour=red"].map(String::from))?;
/// assert_eq!(rows.features(), &Features::Real(vec![7.5, 0., 1., 9., 1., 0.]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`DataError::Table`] with line and column: a column is missing, a field is no finite number or a text that was not among
/// those learned from, or there are no rows; [`DataError::Io`] and [`DataError::NotAFile`].
pub fn csv_rows(path: &Path, columns: &[String]) -> Result<Split, DataError> {
    parse_csv_rows(&open(path)?, path, columns)
}

/// [`csv_rows`] of a text in memory; the path names it in errors.
///
/// # Errors
/// As [`csv_rows`].
pub fn parse_csv_rows(text: &[u8], path: &Path, columns: &[String]) -> Result<Split, DataError> {
    let about = |line: Option<u64>, column: Option<&str>, message: String| DataError::Table {
        path: PathBuf::from(path),
        line,
        column: column.map(cut),
        message,
    };
    check_text(text).map_err(|message| about(None, None, message.into()))?;
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: &u8| first.iter().filter(|byte| *byte == delimiter).count();
    // of equals the last: a comma
    let delimiter = [b'|', b'\t', b';', b','].into_iter().max_by_key(count).unwrap_or(b',');
    let mut reader =
        ReaderBuilder::new().has_headers(false).delimiter(delimiter).trim(Trim::All).from_reader(text);
    let mut record = StringRecord::new();
    let mut begins = Position::new();
    let mut next = |record: &mut StringRecord, begins: &mut Position| {
        let is_row = reader.read_record(record).map_err(|error| {
            let at = error.position().map(|position| line_at(position, text));
            about(at, None, in_words(error.kind()))
        })?;
        if let Some(position) = record.position().filter(|_| is_row) {
            begins.clone_from(position);
        }
        Ok::<bool, DataError>(is_row)
    };
    if !next(&mut record, &mut begins)? {
        return Err(about(None, None, "is empty".into()));
    }
    let field = |record: &StringRecord, i: usize| -> String {
        record.get(i).unwrap_or_default().trim_start_matches('\u{feff}').to_string()
    };
    let numbered: Vec<String> = (0..record.len()).map(|i| i.to_string()).collect();
    // as they were named when the network was trained
    let named = Csv::new(path, "").names(&record);
    let by_name = named.as_ref().map_err(|_| None).and_then(|named| sources(columns, named).map_err(Some));
    let (names, sources, has_header) = match (named, by_name, sources(columns, &numbered)) {
        // a row of numbers names columns, too, if they are called so
        (Ok(named), Ok(by_name), Ok(by_number)) => {
            let is_used = |i: &usize| !matches!(by_name[*i], Source::Unused);
            match (0..named.len()).filter(is_used).all(|i| named[i] == numbered[i]) {
                true => (named, by_name, true),
                false => (numbered, by_number, false),
            }
        }
        (Ok(named), Ok(by_name), Err(_)) => (named, by_name, true),
        (_, Err(_), Ok(by_number)) => (numbered, by_number, false),
        (Ok(named), Err(missing), Err(_)) => {
            let message = format!(
                "has no column {}, which the network was trained on; there are {}",
                quoted(&missing.unwrap_or_default()),
                listed(&named)
            );
            return Err(about(None, None, message));
        }
        (Err(error), ..) => return Err(error),
    };
    let mut is_row = !has_header || next(&mut record, &mut begins)?;
    // each of a row's numbers stands in the file, but for those of texts
    let texts_of = |source: &Source<'_>| if let Source::Texts(known) = source { known.len() } else { 0 };
    let texts: usize = sources.iter().map(texts_of).sum();
    let mut values: Vec<f32> = Vec::new();
    let mut rows = 0usize;
    while is_row {
        let (begin, end) = (values.len(), values.len().saturating_add(columns.len()));
        let one_hot = (rows + 1).saturating_mul(texts).saturating_mul(size_of::<f32>());
        if end > MAX_NUMBERS || one_hot > MAX_ONE_HOT || values.try_reserve(columns.len()).is_err() {
            let message = format!("has more rows of {} numbers than are read at once", columns.len());
            return Err(about(None, None, message));
        }
        values.resize(end, 0.0);
        let row = &mut values[begin..];
        for (i, source) in sources.iter().enumerate() {
            let given = field(&record, i);
            let wrong = |message: String| about(Some(line_at(&begins, text)), Some(&names[i]), message);
            match source {
                Source::Unused => {}
                Source::Number(place) => match given.parse::<f32>() {
                    Ok(number) if number.is_finite() => row[*place] = number,
                    _ => return Err(wrong(format!("{} is no finite number", quoted(&given)))),
                },
                Source::Texts(known) => match known.get(given.as_str()) {
                    Some(&place) => row[place] = 1.0,
                    None => {
                        let mut texts: Vec<String> = known.keys().map(|text| text.to_string()).collect();
                        texts.sort();
                        return Err(wrong(format!(
                            "{} is none of the texts that the network was trained on: {}",
                            quoted(&given),
                            listed(&texts)
                        )));
                    }
                },
            }
        }
        rows += 1;
        is_row = next(&mut record, &mut begins)?;
    }
    open_quote(text, &begins, delimiter).map_err(|(line, message)| about(Some(line), None, message))?;
    if rows == 0 {
        return Err(about(None, None, "has no rows below its header".into()));
    }
    let targets = Targets::Classes { labels: vec![0; rows], classes: 1 };
    Split::new(Features::Real(values), [columns.len()], targets)
}

/// What a column of the file is to the network.
enum Source<'c> {
    Unused,
    /// The place of its number in a row.
    Number(usize),
    /// The places of its texts.
    Texts(HashMap<&'c str, usize>),
}

/// What each column of the file is, or the first of the network's columns that is not there, or not for it alone.
fn sources<'c>(columns: &'c [String], names: &[String]) -> Result<Vec<Source<'c>>, String> {
    let places: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
    // what names are as long as: others need not be looked up
    let lengths: HashSet<usize> = names.iter().map(String::len).collect();
    let mut sources: Vec<Source<'_>> = names.iter().map(|_| Source::Unused).collect();
    for (place, column) in columns.iter().enumerate() {
        let missing = || Err(column.clone());
        if let Some(&at) = places.get(column.as_str()) {
            if !matches!(sources[at], Source::Unused) {
                return missing();
            }
            sources[at] = Source::Number(place);
            continue;
        }
        // names and texts may have such signs in them
        let signs = column.match_indices('=').filter(|(sign, _)| lengths.contains(sign));
        let mut found =
            signs.filter_map(|(sign, _)| Some((*places.get(&column[..sign])?, &column[sign + 1..])));
        let Some((at, text)) = found.find(|(at, _)| !matches!(sources[*at], Source::Number(_))) else {
            return missing();
        };
        if let Source::Unused = sources[at] {
            sources[at] = Source::Texts(HashMap::new());
        }
        if let Source::Texts(known) = &mut sources[at]
            && known.insert(text, place).is_some()
        {
            return missing();
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, columns: &[&str]) -> Result<Vec<f32>, String> {
        let columns: Vec<String> = columns.iter().map(|column| (*column).into()).collect();
        let split = parse_csv_rows(text.as_bytes(), Path::new("new.csv"), &columns);
        split.map_err(|error| error.to_string()).map(|split| match split.features() {
            Features::Real(values) => values.clone(),
            _ => panic!("rows of tables are real numbers"),
        })
    }

    #[test]
    fn columns_are_found_by_name() {
        let size_and_colour = ["size", "colour=a=b", "colour=red"];
        let want = vec![7.5, 0.0, 1.0, 9.0, 1.0, 0.0];
        for text in [
            "size,colour\n7.5,red\n9,a=b\n",
            "label;colour;size\nx;red;7.5\ny;a=b;9\n",
            "\u{feff}colour\tsize\tother\nred\t7.5\t\na=b\t 9 \tz\n",
        ] {
            assert_eq!(rows(text, &size_and_colour), Ok(want.clone()), "{text}");
        }
        // without a header columns are called by their numbers
        assert_eq!(
            rows("red,1\nblue,2\n", &["1", "0=blue", "0=red"]),
            Ok(vec![1.0, 0.0, 1.0, 2.0, 1.0, 0.0])
        );
    }

    #[test]
    fn a_column_of_the_file_is_one_of_the_network() {
        for columns in [&["x", "x=1"][..], &["x=1", "x"], &["x", "x"], &["x=1", "x=1"]] {
            let message = rows("x,y\n1,2\n", columns).unwrap_err();
            assert!(message.contains("has no column \"x"), "{columns:?}: {message}");
        }
        assert_eq!(rows("x,x=1\n3,4\n", &["x", "x=1"]), Ok(vec![3.0, 4.0]));
        assert!(rows("x,x\n3,4\n", &["x"]).unwrap_err().contains("two columns have this name"));
    }

    #[test]
    fn what_cannot_be_found_is_named() {
        for (text, want) in [
            ("", "is empty"),
            ("size,colour\n", "has no rows below its header"),
            ("size,kind\n1,2\n", "has no column \"colour=red\", which the network was trained on; there are"),
            ("size,colour\n1,red\nx,red\n", "line 3, column \"size\": \"x\" is no finite number"),
            ("size,colour\ninf,red\n", "\"inf\" is no finite number"),
            ("size,colour\n1,green\n", "\"green\" is none of the texts that the network was trained on: red"),
            ("size,colour\n1,red\n1\n", "line 3: 1 fields, where the lines above have 2"),
        ] {
            let message = rows(text, &["size", "colour=red"]).unwrap_err();
            assert!(message.starts_with("new.csv") && message.contains(want), "{text:?}: {message}");
        }
    }
}
