//! Tables of comma-separated values.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use csv::{ErrorKind, Position, ReaderBuilder, StringRecord, Trim};

use crate::{
    DataError, Dataset, Features, Split, Targets,
    array::MAX_CLASSES,
    csv_text::{check_length, check_text, cut, in_words, line_at, listed, open, open_quote, quoted},
};

/// Most different texts in a column of features: each becomes a column of its own.
const MAX_CATEGORIES: usize = 1_000;

/// Most numbers of all rows together, after texts have become numbers: 8 GiB.
pub(crate) const MAX_NUMBERS: usize = 1 << 31;

/// Most bytes of the columns that texts become, 0 or 1 in each row: 1 GiB.
pub(crate) const MAX_ONE_HOT: usize = 1 << 30;

/// Different texts from which on a column is taken for names or dates, where they are at least half as many as the rows.
const MANY_TEXTS: usize = 20;

/// What the label column of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Names of classes, whether they are texts or numbers.
    Classification,
    /// Real numbers.
    Regression,
}

/// A file of comma-separated values (RFC 4180) with a row for each item: numbers and texts to learn from, and a label.
/// pandas' `read_csv` and scikit-learn's `OneHotEncoder`.
///
/// A column of numbers is taken as it is; one of texts becomes as many columns as there are different texts, 1 where the
/// row has that text and 0 elsewhere (at most 1,000). Labels that are texts are classes, sorted by name; labels that are
/// numbers are numbers, unless [`Csv::task`] says otherwise. Empty fields, numbers that are not finite, and texts among
/// numbers are errors that name line and column. Spaces around fields do not count. Fields that are read, and names of
/// columns, have at most 1,000 bytes; the columns of 0 and 1 together take at most 1 GiB.
///
/// ```
/// use kiln_data::{Csv, Features};
/// let text = "size,colour,fruit\n7.5,red,apple\n9,green,pear\n8,green,apple\n";
/// let table = Csv::new("fruit.csv", "fruit").parse(text.as_bytes())?;
/// assert_eq!(table.columns, ["size", "colour=green", "colour=red"]);
/// assert_eq!(table.classes, ["apple", "pear"]);
/// assert_eq!(table.split.features(), &Features::Real(vec![7.5, 0., 1., 9., 1., 0., 8., 1., 0.]));
/// # Ok::<(), kiln_data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Csv {
    path: PathBuf,
    label: String,
    header: bool,
    delimiter: u8,
    ignored: Vec<String>,
    task: Option<Task>,
    classes: Option<Vec<String>>,
}

/// The rows of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Rows, and a label for each.
    pub split: Split,
    /// Names of the classes; empty in regression.
    pub classes: Vec<String>,
    /// What each number of a row is: `size`, `colour=red`.
    pub columns: Vec<String>,
    texts: Texts,
}

impl Table {
    /// Columns of texts that are hardly ever the same.
    fn remarks(&self) -> Vec<String> {
        let (rows, mut first, mut remarks) = (self.split.len(), 0, Vec::new());
        for texts in &self.texts {
            if let Some(texts) = texts.as_ref().filter(|texts| texts.len() >= MANY_TEXTS.max(rows / 2)) {
                let name = self.columns[first].strip_suffix(&format!("={}", texts[0]));
                remarks.push(format!(
                    "column {} holds {} different texts in {rows} rows, which become as many columns of 0 and 1; ignore = [...] in \
                     [data] leaves it out if it only names rows",
                    quoted(name.unwrap_or_default()),
                    texts.len(),
                ));
            }
            first += texts.as_ref().map_or(1, Vec::len);
        }
        remarks
    }
}

/// The different texts of columns, by the columns' numbers, sorted.
type Texts = Vec<Option<Vec<String>>>;

impl Csv {
    /// The file `path`, whose first line names the columns. `label` is the name of the column to be learned, or its number,
    /// counted from 0.
    pub fn new(path: impl Into<PathBuf>, label: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            label: label.into(),
            header: true,
            delimiter: b',',
            ignored: Vec::new(),
            task: None,
            classes: None,
        }
    }

    /// A file whose first line is a row already; its columns are called by their numbers, counted from 0.
    pub fn without_header(mut self) -> Self {
        self.header = false;
        self
    }

    /// Another byte between fields than a comma: `b';'`, `b'\t'`. One that stands inside numbers or ends lines, a quote, or
    /// one that is not ASCII is refused when the table is read.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// Leaves columns out, by name or number; the label's is refused when the table is read.
    pub fn ignore(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.ignored.extend(columns.into_iter().map(Into::into));
        self
    }

    /// What the labels are, whatever they look like.
    pub fn task(mut self, task: Task) -> Self {
        self.task = Some(task);
        self
    }

    /// The classes, in this order; other labels are an error.
    pub fn classes(mut self, classes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        (self.classes, self.task) =
            (Some(classes.into_iter().map(Into::into).collect()), Some(Task::Classification));
        self
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::NotAFile`], or [`DataError::Table`] with what is wrong in which line and column.
    pub fn read(&self) -> Result<Table, DataError> {
        self.take(&open(&self.path)?, None)
    }

    /// Reads a table from memory; the path names it in errors.
    ///
    /// # Errors
    /// As [`Csv::read`].
    pub fn parse(&self, text: &[u8]) -> Result<Table, DataError> {
        self.take(text, None)
    }

    /// Reads another file of the same columns, with the classes and texts of a table: to be tested on.
    ///
    /// # Errors
    /// As [`Csv::read`], and where the columns are others or a text is none of the table's.
    pub fn read_like(&self, path: impl Into<PathBuf>, table: &Table) -> Result<Table, DataError> {
        let path = path.into();
        let like = Self {
            classes: (!table.classes.is_empty()).then(|| table.classes.clone()),
            task: Some(if table.classes.is_empty() { Task::Regression } else { Task::Classification }),
            path,
            ..self.clone()
        };
        let other = like.take(&open(&like.path)?, Some(&table.texts))?;
        if other.columns != table.columns {
            return Err(like.about(
                None,
                None,
                format!(
                    "has other columns than {}: {} instead of {}",
                    self.path.display(),
                    listed(&other.columns),
                    listed(&table.columns)
                ),
            ));
        }
        Ok(other)
    }

    /// Reads the file, and deals out a part of its rows to be tested on, of each class the same.
    ///
    /// # Errors
    /// As [`Csv::read`], and where all rows are of one class, `test_split` is not between 0 and 1 or one side would be empty:
    /// each class keeps a row to train on.
    pub fn dataset(&self, test_split: f64, seed: u64) -> Result<Dataset, DataError> {
        if !(test_split > 0.0 && test_split < 1.0) {
            let message = format!("test_split must be between 0 and 1, is {test_split}");
            return Err(self.about(None, None, message));
        }
        let table = self.read_to_learn()?;
        let (train, test) = table.split.split_stratified(1.0 - test_split, seed).map_err(|_| {
            let keeps = match table.classes.len() {
                0 => String::new(),
                n => format!(" (classes: {n}; each keeps a row to train on)"),
            };
            let rows = table.split.len();
            let message = format!(
                "test_split = {test_split} leaves no row to train or to test on; rows: {rows}{keeps}"
            );
            self.about(None, None, message)
        })?;
        let remarks = table.remarks();
        let dataset = Dataset::new(self.name(), train, test, table.classes)?;
        Ok(Dataset { columns: table.columns, remarks, ..dataset })
    }

    /// Reads the file to learn from and another to be tested on.
    ///
    /// # Errors
    /// As [`Csv::read_like`], and where all rows to learn from are of one class.
    pub fn dataset_with(&self, test: impl Into<PathBuf>) -> Result<Dataset, DataError> {
        let table = self.read_to_learn()?;
        let test = self.read_like(test, &table)?.split;
        let remarks = table.remarks();
        let dataset = Dataset::new(self.name(), table.split, test, table.classes)?;
        Ok(Dataset { columns: table.columns, remarks, ..dataset })
    }

    /// Reads the file, whose classes are to be told apart.
    fn read_to_learn(&self) -> Result<Table, DataError> {
        let table = self.read()?;
        match &table.classes[..] {
            [class] => {
                let message = format!(
                    "every row is of the class {}: a network needs at least two to tell apart",
                    quoted(class)
                );
                Err(self.about(None, Some(&self.label), message))
            }
            _ => Ok(table),
        }
    }

    fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn about(&self, line: Option<u64>, column: Option<&str>, message: impl Into<String>) -> DataError {
        let (path, column) = (self.path.clone(), column.map(cut));
        DataError::Table { path, line, column, message: message.into() }
    }

    /// What the parser says, as this module says it.
    fn unsound(&self, error: csv::Error, data: &[u8]) -> DataError {
        let line = error.position().map(|position| line_at(position, data));
        match error.into_kind() {
            ErrorKind::Io(source) => DataError::Io { path: self.path.clone(), source },
            kind => self.about(line, None, in_words(&kind)),
        }
    }

    fn take(&self, data: &[u8], texts: Option<&Texts>) -> Result<Table, DataError> {
        self.check(data)?;
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .delimiter(self.delimiter)
            .trim(Trim::All)
            .from_reader(data);
        let mut record = StringRecord::new();
        if !reader.read_record(&mut record).map_err(|e| self.unsound(e, data))? {
            return Err(self.about(None, None, "is empty"));
        }
        let names = self.names(&record)?;
        // looked up, not searched for: there may be as many names to ignore as columns
        let places: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
        let label = self.column(&names, &places, &self.label)?;
        let ignored = self
            .ignored
            .iter()
            .map(|name| self.column(&names, &places, name))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(name) =
            self.ignored.iter().zip(&ignored).find(|(_, i)| **i == label).map(|(name, _)| name)
        {
            let message = format!("ignore names {}, which is the label's column", quoted(name));
            return Err(self.about(None, None, message));
        }
        let left_out: HashSet<usize> = ignored.into_iter().chain([label]).collect();
        let features: Vec<usize> = (0..names.len()).filter(|i| !left_out.contains(i)).collect();
        if features.is_empty() {
            return Err(self.about(None, None, "has no column but the label's: is the separator right?"));
        }
        let mut columns: Vec<Column> = features.iter().map(|_| Column::Unknown).collect();
        let mut labels = match (&self.task, texts.is_some()) {
            (Some(Task::Classification), _) => Column::Texts(Distinct::default()),
            _ => Column::Unknown,
        };
        let mut rows = 0usize;
        let mut begins = record.position().map_or_else(Position::new, Clone::clone);
        let mut is_row =
            !self.header || reader.read_record(&mut record).map_err(|e| self.unsound(e, data))?;
        while is_row {
            if let Some(position) = record.position() {
                begins.clone_from(position);
            }
            let line = Some(line_at(&begins, data));
            let field = |i: usize| record.get(i).unwrap_or_default().trim_start_matches('\u{feff}');
            for &i in features.iter().chain([&label]) {
                check_length(field(i), "field").map_err(|m| self.about(line, Some(&names[i]), m))?;
            }
            for (column, &i) in columns.iter_mut().zip(&features) {
                let most = MAX_CATEGORIES;
                column.push(field(i), most, line).map_err(|m| self.about(line, Some(&names[i]), m))?;
            }
            let about = |message: String| self.about(line, Some(&names[label]), message);
            labels.push(field(label), MAX_CLASSES, line).map_err(about)?;
            if self.task == Some(Task::Regression) && matches!(labels, Column::Texts(_)) {
                return Err(about(format!("{} is no number", quoted(field(label)))));
            }
            rows += 1;
            is_row = reader.read_record(&mut record).map_err(|e| self.unsound(e, data))?;
        }
        open_quote(data, &begins, self.delimiter)
            .map_err(|(line, message)| self.about(Some(line), None, message))?;
        if rows == 0 {
            return Err(self.about(None, None, "has no rows below its header"));
        }

        let mut known: Texts = Vec::with_capacity(columns.len());
        for (n, column) in columns.iter_mut().enumerate() {
            let given = texts.and_then(|texts| texts.get(n)).and_then(Option::as_ref);
            known.push(match column {
                Column::Texts(distinct) => {
                    let name = &names[features[n]];
                    Some(distinct.sorted(given).map_err(|(line, text, known)| {
                        let message =
                            format!("{} is none of the texts to choose from: {known}", quoted(&text));
                        self.about(line, Some(name), message)
                    })?)
                }
                Column::Numbers { .. } | Column::Unknown => None,
            });
        }
        let (targets, classes) = self.targets(labels, &names[label])?;
        let mut titles = Vec::new();
        for (&i, texts) in features.iter().zip(&known) {
            match texts {
                None => titles.push(names[i].clone()),
                Some(texts) => titles.extend(texts.iter().map(|text| format!("{}={text}", names[i]))),
            }
        }
        let named: Vec<&str> = features.iter().map(|&i| names[i].as_str()).collect();
        let split = Split::new(self.rows(&columns, &known, rows, &named)?, [titles.len()], targets)?;
        Ok(Table { split, classes, columns: titles, texts: known })
    }

    /// Refuses what would only lead to errors that say something else.
    fn check(&self, data: &[u8]) -> Result<(), DataError> {
        let d = self.delimiter;
        if !d.is_ascii() || d.is_ascii_digit() || b"\r\n\0\".-+".contains(&d) {
            let message = format!(
                "fields cannot be separated by {:?}: take a character of ASCII that is no digit, quote, sign, point or end of \
                 line, as \";\" or \"\\t\"",
                char::from(d).to_string()
            );
            return Err(self.about(None, None, message));
        }
        check_text(data).map_err(|message| self.about(None, None, message))
    }

    /// What the columns are called.
    pub(crate) fn names(&self, first: &StringRecord) -> Result<Vec<String>, DataError> {
        if !self.header {
            return Ok((0..first.len()).map(|i| i.to_string()).collect());
        }
        let mut seen = HashMap::new();
        let mut names = Vec::with_capacity(first.len());
        for (i, name) in first.iter().enumerate() {
            let name = name.trim_start_matches('\u{feff}').trim();
            check_length(name, "name of a column").map_err(|m| self.about(Some(1), None, m))?;
            let name = if name.is_empty() { i.to_string() } else { name.to_string() };
            if seen.insert(name.clone(), i).is_some() {
                return Err(self.about(Some(1), Some(&name), "two columns have this name"));
            }
            names.push(name);
        }
        Ok(names)
    }

    /// The number of a column, by name or number.
    fn column(
        &self,
        names: &[String],
        places: &HashMap<&str, usize>,
        wanted: &str,
    ) -> Result<usize, DataError> {
        let by_name = places.get(wanted).copied();
        let by_number = || wanted.parse::<usize>().ok().filter(|&i| i < names.len());
        by_name.or_else(by_number).ok_or_else(|| {
            let hint = match names {
                // one column that looks like several
                [all] => match [';', '\t', '|'].into_iter().find(|&mark| all.contains(mark)) {
                    Some(mark) => format!("; is the separator {mark:?}? (delimiter)"),
                    None => String::new(),
                },
                _ => String::new(),
            };
            let message = format!("has no column {}; there are {}{hint}", quoted(wanted), listed(names));
            self.about(None, None, message)
        })
    }

    fn targets(&self, labels: Column, name: &str) -> Result<(Targets, Vec<String>), DataError> {
        match labels {
            Column::Texts(mut distinct) => {
                let classes = distinct.sorted(self.classes.as_ref()).map_err(|(line, text, known)| {
                    self.about(line, Some(name), format!("{} is none of the classes: {known}", quoted(&text)))
                })?;
                Ok((Targets::Classes { labels: distinct.rows, classes: classes.len() }, classes))
            }
            Column::Numbers { values, .. } => Ok((Targets::Real { values, shape: [1].into() }, Vec::new())),
            Column::Unknown => Err(self.about(None, Some(name), "has no values")),
        }
    }

    /// All numbers, row by row.
    fn rows(
        &self,
        columns: &[Column],
        texts: &Texts,
        rows: usize,
        names: &[&str],
    ) -> Result<Features, DataError> {
        let categories = |texts: &Option<Vec<String>>| texts.as_ref().map_or(0, Vec::len);
        let one_hot: usize = texts.iter().map(categories).sum();
        if rows.saturating_mul(one_hot).saturating_mul(size_of::<f32>()) > MAX_ONE_HOT {
            let mut most: Vec<(usize, &str)> =
                texts.iter().map(categories).zip(names.iter().copied()).collect();
            most.retain(|(categories, _)| *categories > 0);
            most.sort_by_key(|(categories, _)| std::cmp::Reverse(*categories));
            let each: Vec<String> =
                most.iter().take(3).map(|(n, name)| format!("{} has {n}", quoted(name))).collect();
            let more = if most.len() > 3 { ", ..." } else { "" };
            let message = format!(
                "its columns of texts ({}{more} different ones) would become {one_hot} columns of 0 and 1, in {rows} rows over \
                 {MAX_ONE_HOT} bytes; leave some out with ignore, or make numbers of them",
                each.join(", ")
            );
            return Err(self.about(None, None, message));
        }
        let width: usize = texts.iter().map(|texts| texts.as_ref().map_or(1, Vec::len)).sum();
        let too_many =
            || self.about(None, None, format!("has {rows} rows of {width} numbers, which are too many"));
        let numbers = rows.checked_mul(width).filter(|&n| n <= MAX_NUMBERS).ok_or_else(too_many)?;
        let mut values: Vec<f32> = Vec::new();
        values.try_reserve_exact(numbers).map_err(|_| too_many())?;
        values.resize(numbers, 0.0);
        let mut first = 0;
        for (column, texts) in columns.iter().zip(texts) {
            match column {
                Column::Numbers { values: column, .. } => {
                    for (row, &value) in values.chunks_exact_mut(width).zip(column) {
                        row[first] = value;
                    }
                }
                Column::Texts(distinct) => {
                    for (row, &text) in values.chunks_exact_mut(width).zip(&distinct.rows) {
                        row[first + text as usize] = 1.0;
                    }
                }
                Column::Unknown => {}
            }
            first += texts.as_ref().map_or(1, Vec::len);
        }
        Ok(Features::Real(values))
    }
}

/// A column, as its first row shows it.
enum Column {
    Unknown,
    Numbers { values: Vec<f32>, first: Option<u64> },
    Texts(Distinct),
}

impl Column {
    /// Takes the field of the next row.
    fn push(&mut self, field: &str, most: usize, line: Option<u64>) -> Result<(), String> {
        if field.is_empty() {
            return Err("the field is empty; fill it, or leave the row or the column out".into());
        }
        let number = field.parse::<f32>().ok();
        if let Column::Unknown = self {
            *self = match number {
                Some(_) => Column::Numbers { values: Vec::new(), first: line },
                None => Column::Texts(Distinct { is_strict: true, ..Distinct::default() }),
            };
        }
        let at = |line: Option<u64>| line.map_or("above".into(), |line| format!("in line {line}"));
        match (self, number) {
            (Column::Numbers { values, .. }, Some(number)) if number.is_finite() => values.push(number),
            (Column::Numbers { .. }, Some(_)) => {
                return Err(format!("{} is not a finite number", quoted(field)));
            }
            (Column::Numbers { first, .. }, None) => {
                return Err(format!("{} is no number, but there is one {}", quoted(field), at(*first)));
            }
            (Column::Texts(distinct), Some(_)) if distinct.is_strict => {
                let first = distinct.lines.first().copied().flatten();
                return Err(format!("{} is a number, but there is a text {}", quoted(field), at(first)));
            }
            (Column::Texts(distinct), _) => distinct.push(field, most, line)?,
            (Column::Unknown, _) => unreachable!("it was made known above"),
        }
        Ok(())
    }
}

/// Different texts, and which of them each row has.
#[derive(Default)]
struct Distinct {
    /// Whether there is a text that is a number.
    is_strict: bool,
    numbers: HashMap<String, u32>,
    texts: Vec<String>,
    /// Where each was first.
    lines: Vec<Option<u64>>,
    rows: Vec<u32>,
}

impl Distinct {
    fn push(&mut self, text: &str, most: usize, line: Option<u64>) -> Result<(), String> {
        let known = self.numbers.get(text).copied();
        let number = match known {
            Some(number) => number,
            None if self.texts.len() == most => {
                return Err(format!(
                    "more than {most} different texts; leave the column out, or make numbers of them"
                ));
            }
            None => {
                let number = self.texts.len() as u32;
                self.numbers.insert(text.into(), number);
                self.texts.push(text.into());
                self.lines.push(line);
                number
            }
        };
        self.rows.push(number);
        Ok(())
    }

    /// Numbers the texts in their order, which is that of `given` if there is one. Or the first that is none of those, with
    /// its line and a list of them.
    fn sorted(&mut self, given: Option<&Vec<String>>) -> Result<Vec<String>, (Option<u64>, String, String)> {
        let order = match given {
            Some(given) => given.clone(),
            None => {
                let mut order = self.texts.clone();
                // 2 before 10, where all are numbers
                let number = |text: &String| text.parse::<f64>().ok().filter(|number| number.is_finite());
                match order.iter().map(number).collect::<Option<Vec<f64>>>() {
                    Some(_) => order.sort_by(|a, b| {
                        let (x, y) = (number(a).unwrap_or(0.0), number(b).unwrap_or(0.0));
                        x.total_cmp(&y).then_with(|| a.cmp(b))
                    }),
                    None => order.sort(),
                }
                order
            }
        };
        let places: HashMap<&str, u32> = order.iter().map(String::as_str).zip(0..).collect();
        let mut new = Vec::with_capacity(self.texts.len());
        for (text, line) in self.texts.iter().zip(&self.lines) {
            let Some(&place) = places.get(text.as_str()) else {
                return Err((*line, text.clone(), listed(&order)));
            };
            new.push(place);
        }
        self.rows.iter_mut().for_each(|row| *row = new[*row as usize]);
        Ok(order)
    }
}

#[cfg(test)]
#[path = "csv_table_tests.rs"]
mod tests;
