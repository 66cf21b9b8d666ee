//! `kiln data fetch NAME`, and the same where a data set is first used.

use std::path::PathBuf;

use kiln_data::{DataDir, DataError, Fetch, Fetched, FileState};
use kiln_nn::NnError;
use serde::Serialize;

use crate::{
    Failure,
    arguments::{DataFetch, FromData},
    interrupt,
    output::{Align, Arrivals, Table, Ui, bytes},
};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    datasets: Vec<DatasetReport>,
}

#[derive(Debug, Serialize)]
struct DatasetReport {
    dataset: String,
    folder: PathBuf,
    files: Vec<FileReport>,
}

#[derive(Debug, Serialize)]
struct FileReport {
    file: PathBuf,
    /// verified, downloaded or unpacked.
    state: &'static str,
    bytes: u64,
    from: Option<String>,
    /// Where a file that was not right was moved to.
    replaced: Option<PathBuf>,
}

pub(crate) fn run(args: &DataFetch, ui: &Ui) -> Result<(), Failure> {
    let names = match args.name.as_str() {
        "all" => Fetch::SETS.to_vec(),
        name => vec![name],
    };
    let mut settings = settings(&args.data);
    if !args.mirror.is_empty() {
        settings.mirrors.clone_from(&args.mirror);
    }
    let dir = args.data.dir();
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for name in &names {
        match fetch(&settings, name, &dir, ui) {
            Ok(fetched) => done.push(report(fetched)),
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => {
                ui.warn(&error.line());
                failed.push(*name);
            }
        }
    }
    if !failed.is_empty() {
        let what = if settings.offline { "are not there" } else { "could not be fetched" };
        return Err(Failure::Message(format!(
            "{} of {} data sets {what}: {}",
            failed.len(),
            names.len(),
            failed.join(", ")
        )));
    }
    show(&done, &dir, ui)?;
    ui.json(&Report { datasets: done })
}

/// The settings of the environment and the flags.
fn settings(data: &FromData) -> Fetch {
    let settings = Fetch::default();
    Fetch { offline: settings.offline || data.offline, ..settings }
}

/// Fetches a set, and shows how. Ctrl-C ends the program at once: what has come is kept.
fn fetch(settings: &Fetch, name: &str, dir: &DataDir, ui: &Ui) -> Result<Fetched, Failure> {
    let _at_once =
        interrupt::at_once("interrupted; what has come is kept, and the next fetch goes on from there")?;
    let mut arrivals = Arrivals::new(ui, name);
    Ok(settings.fetch_with(name, dir, &mut |progress| arrivals.tell(progress))?)
}

/// What `read` gives; where it lacks the files of a set that can be downloaded, these are fetched, unless that is not wanted.
///
/// # Errors
/// Those of `read`, and of the fetch.
pub(crate) fn on_first_use<T, E: Into<Failure>>(
    data: &FromData,
    dir: &DataDir,
    ui: &Ui,
    read: impl Fn() -> Result<T, E>,
) -> Result<T, Failure> {
    let failure = match read() {
        Ok(read) => return Ok(read),
        Err(error) => error.into(),
    };
    let name = match &failure {
        Failure::Data(DataError::Missing { name, .. })
        | Failure::Nn(NnError::Data(DataError::Missing { name, .. })) => name.clone(),
        _ => return Err(failure),
    };
    let settings = settings(data);
    if settings.offline || !Fetch::SETS.contains(&name.as_str()) {
        return Err(failure);
    }
    ui.note(&format!("data set {name} is not in {} yet (--offline leaves it so)", dir.path().display()));
    fetch(&settings, &name, dir, ui)?;
    read().map_err(Into::into)
}

fn report(fetched: Fetched) -> DatasetReport {
    let files = fetched.files.into_iter().map(|file| FileReport {
        state: match file.state {
            FileState::Downloaded => "downloaded",
            FileState::Unpacked => "unpacked",
            _ => "verified",
        },
        file: file.path,
        bytes: file.bytes,
        from: file.from,
        replaced: file.replaced,
    });
    DatasetReport { dataset: fetched.name, folder: fetched.folder, files: files.collect() }
}

fn show(done: &[DatasetReport], dir: &DataDir, ui: &Ui) -> Result<(), Failure> {
    let mut table = Table::new([
        ("file", Align::Left),
        ("state", Align::Left),
        ("size", Align::Right),
        ("from", Align::Left),
    ]);
    for file in done.iter().flat_map(|dataset| &dataset.files) {
        let short = file.file.strip_prefix(dir.path()).unwrap_or(&file.file);
        table.row([
            short.display().to_string(),
            file.state.into(),
            bytes(file.bytes),
            // the folder on the mirror
            file.from.as_deref().map_or("", |from| from.rsplit_once('/').map_or(from, |(at, _)| at)).into(),
        ]);
    }
    ui.result(&format!("in {}:\n\n{}", dir.path().display(), table.render()))
}
