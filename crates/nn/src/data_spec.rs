//! Which data a recipe trains on: the `[data]` table of its file.

use std::path::PathBuf;

use kiln_data::{Csv, DataDir, Dataset, Gate, ImageFolder, ImageForm, RowKind, Task, Unreadable};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{NnError, Recipe, TargetKind};

/// Which data a recipe trains on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// One of [`Recipe::DATASETS`].
    pub name: String,
    /// Training rows of a set that Kiln makes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<usize>,
    /// Test rows of a set that Kiln makes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<usize>,
    /// What the network is to answer for a row.
    #[serde(default, skip_serializing_if = "Target::is_given")]
    pub target: Target,
    /// Of `folder`: the folder of images; of `table`: the file of comma-separated values. Left out: what [`Recipe::dataset`]
    /// is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Of `folder`: the height and width that images are brought to. Left out: those that they all have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    /// Of `folder`: whether images are made grey.
    #[serde(default, skip_serializing_if = "is_false")]
    pub grey: bool,
    /// Of `folder`: whether links out of the folder are followed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follow_links: bool,
    /// Of `folder`: what becomes of images that cannot be read.
    #[serde(default, skip_serializing_if = "OnUnreadable::is_refuse")]
    pub unreadable: OnUnreadable,
    /// Of `folder` without test images, and of `table` without `test_path`: the part of the rows to test on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_split: Option<f64>,
    /// Of `table`: the file of rows to test on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_path: Option<PathBuf>,
    /// Of `table`: the column to be learned, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "column")]
    pub label: Option<String>,
    /// Of `table`: columns to leave out, by name or number.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "columns")]
    pub ignore: Vec<String>,
    /// Of `table`: whether the first line names the columns; it does if this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// Of `table`: what stands between fields; a comma if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Of `table`: what the labels are, whatever they look like. Left out: classes if they are texts, else numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TableTask>,
}

/// A column as files name it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a column's name or number")]
enum ColumnName {
    Number(u64),
    Text(String),
}

impl From<ColumnName> for String {
    fn from(name: ColumnName) -> Self {
        match name {
            ColumnName::Number(number) => number.to_string(),
            ColumnName::Text(text) => text,
        }
    }
}

fn column<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Some(ColumnName::deserialize(from)?.into()))
}

fn columns<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<ColumnName>::deserialize(from)?.into_iter().map(String::from).collect())
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// What the labels of a table are; see [`Task`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableTask {
    /// Names of classes.
    Classification,
    /// Real numbers.
    Regression,
}

/// What becomes of images that cannot be read; see [`Unreadable`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnreadable {
    /// They are an error.
    #[default]
    Refuse,
    /// They are left out, and named.
    Skip,
}

impl OnUnreadable {
    fn is_refuse(&self) -> bool {
        *self == Self::Refuse
    }
}

/// What a network is to answer for a row of a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// What the data set says: a class, or numbers.
    #[default]
    Given,
    /// The row itself, prepared as the network sees it: an autoencoder. See [`kiln_data::Targets::Input`].
    Input,
}

impl Target {
    fn is_given(&self) -> bool {
        *self == Self::Given
    }
}

/// What a data set's rows and targets are like: all that a network must know of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataForm {
    /// The shape of a row.
    pub item: Vec<usize>,
    /// What its numbers are.
    pub kind: RowKind,
    /// What the targets are.
    pub targets: TargetKind,
}

impl DataForm {
    /// That of the rows to learn from.
    pub fn of(data: &Dataset) -> Self {
        Self {
            item: data.train.item_shape().dims().to_vec(),
            kind: data.train.kind(),
            targets: TargetKind::of(&data.train),
        }
    }

    /// How many classes there are; 0 where the targets are none.
    pub fn classes(&self) -> usize {
        match &self.targets {
            TargetKind::Classes(classes) => *classes,
            TargetKind::Real(_) | TargetKind::Input(_) => 0,
        }
    }
}

/// Most digits that a recipe may have drawn: a byte for each of 784 pixels.
const MAX_DIGITS: usize = 1_000_000;

/// The seed of the data that Kiln makes itself, and of what is dealt out to be tested on: the same rows whatever seed
/// trains on them.
const DATA_SEED: u64 = 1;

/// What images and classes are taken for before a folder of them was read: those of the text on fruit.
const ASSUMED_SIZE: [usize; 2] = [100, 100];
const ASSUMED_CLASSES: usize = 10;
/// What a row of a table is taken for.
const ASSUMED_COLUMNS: usize = 4;

impl DataSpec {
    /// Data by name, without settings.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Whether only reading them shows what the rows are like.
    pub fn is_open(&self) -> bool {
        matches!(self.name.as_str(), "folder" | "table")
    }

    /// These data wherever they lie, to be told to others: without paths, and without leave to follow links. None where they
    /// cannot be told from one file or folder.
    pub(crate) fn apart(&self) -> Option<Self> {
        let apart = Self { path: None, follow_links: false, ..self.clone() };
        self.test_path.is_none().then_some(apart)
    }

    /// What is wrong, and the key that it stands at.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let name = &self.name;
        if !Recipe::DATASETS.contains(&name.as_str()) {
            return Err((
                "[data]",
                format!("there is no data set \"{name}\"; there are {}", Recipe::DATASETS.join(", ")),
            ));
        }
        for (what, rows) in [("train", self.train), ("test", self.test)] {
            match rows {
                Some(_) if name != "digits" => {
                    return Err((
                        what,
                        format!("data set \"{name}\" has rows of its own; {what} is for digits only"),
                    ));
                }
                None | Some(1..=MAX_DIGITS) => {}
                Some(rows) => {
                    return Err((what, format!("{what} must be from 1 to {MAX_DIGITS}, is {rows}")));
                }
            }
        }
        let (is_folder, is_table) = (name == "folder", name == "table");
        for (key, is_given, sets, fits) in [
            ("path", self.path.is_some(), "folder and table", self.is_open()),
            ("size", self.size.is_some(), "folder", is_folder),
            ("grey", self.grey, "folder", is_folder),
            ("follow_links", self.follow_links, "folder", is_folder),
            ("unreadable", self.unreadable != OnUnreadable::Refuse, "folder", is_folder),
            ("test_split", self.test_split.is_some(), "folder and table", self.is_open()),
            ("test_path", self.test_path.is_some(), "table", is_table),
            ("label", self.label.is_some(), "table", is_table),
            ("ignore", !self.ignore.is_empty(), "table", is_table),
            ("header", self.header.is_some(), "table", is_table),
            ("delimiter", self.delimiter.is_some(), "table", is_table),
            ("task", self.task.is_some(), "table", is_table),
        ] {
            if is_given && !fits {
                return Err((key, format!("data set \"{name}\" takes no {key}; it is for {sets}")));
            }
        }
        if is_table && self.label.is_none() {
            return Err(("[data]", "a table needs label, the name of the column to be learned".into()));
        }
        if is_table && self.test_path.is_some() == self.test_split.is_some() {
            let message = "a table needs either test_split, the part of its rows to test on, or test_path, a file of them";
            return Err(("[data]", message.into()));
        }
        if self.delimiter.is_some_and(|delimiter| !delimiter.is_ascii()) {
            return Err(("delimiter", "delimiter is one character of ASCII, as \";\" or \"\\t\"".into()));
        }
        if let Some(size) = self.size
            && size.contains(&0)
        {
            return Err(("size", format!("size is height and width of at least 1, is {size:?}")));
        }
        if let Some([height, width]) = self.size {
            let form = ImageForm { channels: if self.grey { 1 } else { 3 }, height, width, invert: false };
            form.bytes().map_err(|message| ("size", message))?;
        }
        if let Some(part) = self.test_split
            && !(part > 0.0 && part < 1.0)
        {
            return Err(("test_split", format!("test_split must be between 0 and 1, is {part}")));
        }
        Ok(())
    }

    /// The data, read from `dir` or made. For `folder` and `table`, `dir` is the folder or file itself.
    pub(crate) fn dataset(&self, dir: &DataDir) -> Result<Dataset, NnError> {
        let (train, test) = (self.train.unwrap_or(12_000), self.test.unwrap_or(2_000));
        let data = match self.name.as_str() {
            "mnist" => Dataset::mnist(dir.clone())?,
            "fashion-mnist" => Dataset::fashion_mnist(dir.clone())?,
            "cifar10" => Dataset::cifar10(dir.clone())?,
            "linear" => Dataset::linear(DATA_SEED)?,
            "xor" => Dataset::gate(Gate::Xor)?,
            "and" => Dataset::gate(Gate::And)?,
            "or" => Dataset::gate(Gate::Or)?,
            "nor" => Dataset::gate(Gate::Nor)?,
            "body-size" => Dataset::body_size()?,
            "folder" => self.folder(dir).read()?,
            "table" => {
                let table = self.table(dir);
                match (&self.test_path, self.test_split) {
                    (Some(test), _) => table.dataset_with(test)?,
                    (None, part) => table.dataset(part.unwrap_or(0.2), DATA_SEED)?,
                }
            }
            _ => Dataset::digits(DATA_SEED, train, test)?,
        };
        Ok(match self.target {
            Target::Given => data,
            Target::Input => data.with_input_as_target(),
        })
    }

    fn folder(&self, dir: &DataDir) -> ImageFolder {
        let mut folder = ImageFolder::new(self.path.as_deref().unwrap_or(dir.path())).seed(DATA_SEED);
        folder = folder.unreadable(match self.unreadable {
            OnUnreadable::Refuse => Unreadable::Refuse,
            OnUnreadable::Skip => Unreadable::Skip,
        });
        if let Some(size) = self.size {
            folder = folder.size(size);
        }
        if self.grey {
            folder = folder.grey();
        }
        if self.follow_links {
            folder = folder.follow_links();
        }
        if let Some(part) = self.test_split {
            folder = folder.test_split(part);
        }
        folder
    }

    fn table(&self, dir: &DataDir) -> Csv {
        let path = self.path.as_deref().unwrap_or(dir.path());
        let mut table = Csv::new(path, self.label.clone().unwrap_or_default()).ignore(self.ignore.clone());
        if self.header == Some(false) {
            table = table.without_header();
        }
        if let Some(delimiter) = self.delimiter.and_then(|delimiter| u8::try_from(delimiter).ok()) {
            table = table.delimiter(delimiter);
        }
        if let Some(task) = self.task {
            table = table.task(match task {
                TableTask::Classification => Task::Classification,
                TableTask::Regression => Task::Regression,
            });
        }
        table
    }

    /// What rows and targets are like, as far as it is known without reading any; images of a folder are taken for 100x100,
    /// rows of a table for four numbers, of ten classes.
    pub(crate) fn assumed_form(&self) -> DataForm {
        let (item, kind, targets) = match self.name.as_str() {
            "cifar10" => (vec![3, 32, 32], RowKind::Bytes, TargetKind::Classes(10)),
            "linear" => (vec![1], RowKind::Real, TargetKind::Real([1].into())),
            "xor" | "and" | "or" | "nor" => (vec![2], RowKind::Real, TargetKind::Real([1].into())),
            "body-size" => (vec![2], RowKind::Real, TargetKind::Classes(2)),
            "folder" => {
                let [height, width] = self.size.unwrap_or(ASSUMED_SIZE);
                let channels = if self.grey { 1 } else { 3 };
                (vec![channels, height, width], RowKind::Bytes, TargetKind::Classes(ASSUMED_CLASSES))
            }
            "table" if self.task == Some(TableTask::Regression) => {
                (vec![ASSUMED_COLUMNS], RowKind::Real, TargetKind::Real([1].into()))
            }
            "table" => (vec![ASSUMED_COLUMNS], RowKind::Real, TargetKind::Classes(ASSUMED_CLASSES)),
            _ => (vec![1, 28, 28], RowKind::Bytes, TargetKind::Classes(10)),
        };
        match self.target {
            Target::Given => DataForm { item, kind, targets },
            Target::Input => DataForm { targets: TargetKind::Input(item.clone().into()), item, kind },
        }
    }
}
