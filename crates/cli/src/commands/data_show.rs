//! `kiln data show NAME`

use std::path::PathBuf;

use kiln_data::{Dataset, Features, RowKind, Split, Targets};
use kiln_device::Device;
use kiln_nn::Augment;
use kiln_plot::{Cell, Grid};
use serde::Serialize;

use super::{data_fetch::on_first_use, model::named_dataset};
use crate::{
    Failure,
    arguments::{DataShow, SplitName},
    output::{Align, Table, Ui, count},
    pictures::{is_image, row_picture, write},
};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    dataset: String,
    split: &'static str,
    rows: usize,
    /// Of a row: [channels, height, width] for images.
    shape: Vec<usize>,
    /// Bytes or real numbers.
    values: &'static str,
    classes: Vec<ClassRows>,
    /// Which rows were drawn or printed.
    shown: Vec<u32>,
    /// The picture; none for tables.
    file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct ClassRows {
    class: String,
    rows: usize,
}

pub(crate) fn run(args: &DataShow, ui: &Ui) -> Result<(), Failure> {
    let dir = args.data.dir();
    let data = on_first_use(&args.data, &dir, ui, || named_dataset(&args.name, &args.data))?;
    data.remarks.iter().for_each(|remark| ui.warn(remark));
    let (split, split_name) = match args.split {
        SplitName::Train => (&data.train, "train"),
        SplitName::Test => (&data.test, "test"),
    };
    let order = kiln_data::order(args.seed, 0, split.len(), true);
    let shown: Vec<u32> = order.into_iter().take(sample_count(args)).collect();
    let samples = split.load(&shown)?;
    let file = match is_image(split.item_shape()) {
        true => {
            let file = args.out.clone().unwrap_or_else(|| format!("{}-{split_name}.png", data.name).into());
            let grid = match &args.augment {
                None => draw(&data, split_name, &samples)?,
                Some(augment) => draw_changed(&data, split_name, &samples, (augment, args.seed))?,
            };
            write(&grid, &file, &[])?;
            Some(file)
        }
        false if args.out.is_some() || args.augment.is_some() => {
            let message = format!(
                "the rows of {} are no images but {} numbers each; they are printed without --out and --augment",
                data.name,
                split.item_shape().elements()
            );
            return Err(Failure::Message(message));
        }
        false => None,
    };
    let report = Report {
        dataset: data.name.clone(),
        split: split_name,
        rows: split.len(),
        shape: split.item_shape().dims().to_vec(),
        values: match split.kind() {
            RowKind::Bytes => "bytes",
            RowKind::Real => "real",
        },
        classes: class_rows(split, &data.classes),
        shown,
        file,
    };
    show(&report, &data, &samples, ui)?;
    ui.json(&report)
}

/// How many rows each class has.
fn class_rows(split: &Split, names: &[String]) -> Vec<ClassRows> {
    let Targets::Classes { labels, .. } = split.targets() else { return Vec::new() };
    let mut rows = vec![0; names.len()];
    labels.iter().for_each(|&label| rows[label as usize] += 1);
    names.iter().zip(rows).map(|(class, rows)| ClassRows { class: class.clone(), rows }).collect()
}

/// The samples, each with what it is.
fn draw(data: &Dataset, split_name: &str, samples: &Split) -> Result<Grid, Failure> {
    let mut cells = Vec::with_capacity(samples.len());
    for row in 0..samples.len() {
        let cell = Cell::new(row_picture(samples, row)?);
        cells.push(match samples.targets() {
            Targets::Classes { labels, .. } => cell.caption(data.classes[labels[row] as usize].clone()),
            Targets::Real { .. } | Targets::Input => cell,
        });
    }
    let columns = (1..=20).find(|n| n * n >= cells.len()).unwrap_or(20);
    let title = format!("{}, {} {split_name} rows", data.name, cells.len());
    Ok(Grid::new(title).sides(84).columns(columns).row("", cells))
}

/// Steps in which a changed sample is drawn.
const STEPS: usize = 8;

fn sample_count(args: &DataShow) -> usize {
    match (args.count, &args.augment) {
        (Some(count), _) => count as usize,
        (None, None) => 25,
        (None, Some(_)) => 8,
    }
}

/// The samples, each beside itself as training would see it at several steps.
fn draw_changed(
    data: &Dataset,
    split_name: &str,
    samples: &Split,
    (augment, seed): (&Augment, u64),
) -> Result<Grid, Failure> {
    let device = Device::cpu();
    let mut rows = Vec::with_capacity(STEPS + 1);
    rows.push(samples.clone());
    for step in 0..STEPS as u64 {
        rows.push(augment.split(&device, samples, seed, step)?);
    }
    let title = format!("{}, {} {split_name} rows, as they are and changed", data.name, samples.len());
    let mut grid = Grid::new(title).sides(84).columns(STEPS + 1);
    for row in 0..samples.len() {
        let mut cells = Vec::with_capacity(STEPS + 1);
        for changed in &rows {
            cells.push(Cell::new(row_picture(changed, row)?));
        }
        let heading = match samples.targets() {
            Targets::Classes { labels, .. } => data.classes[labels[row] as usize].clone(),
            Targets::Real { .. } | Targets::Input => String::new(),
        };
        grid = grid.row(heading, cells);
    }
    Ok(grid)
}

fn show(report: &Report, data: &Dataset, samples: &Split, ui: &Ui) -> Result<(), Failure> {
    ui.result(&format!(
        "{}: {} {} rows of {:?}, {}",
        report.dataset,
        count(report.rows as u64),
        report.split,
        report.shape,
        match report.values {
            "bytes" => "bytes",
            _ => "real numbers",
        }
    ))?;
    if !report.classes.is_empty() {
        let mut table = Table::new([("class", Align::Left), ("rows", Align::Right)]);
        for class in &report.classes {
            table.row([class.class.clone(), count(class.rows as u64)]);
        }
        ui.result(&format!("\n{}", table.render()))?;
    }
    match &report.file {
        Some(file) => ui.result(&format!("\n{} samples drawn in {}", report.shown.len(), file.display())),
        None => ui.result(&format!("\n{}", rows(report, data, samples))),
    }
}

/// The samples as a table of numbers.
fn rows(report: &Report, data: &Dataset, samples: &Split) -> String {
    let size = samples.item_shape().elements();
    let mut columns = vec![("row".to_owned(), Align::Right)];
    columns.extend((0..size).map(|i| {
        let name = data.columns.get(i).cloned().unwrap_or_else(|| format!("x{}", i + 1));
        (name, Align::Right)
    }));
    columns.push(("target".to_owned(), Align::Right));
    let columns: Vec<(&str, Align)> = columns.iter().map(|(name, align)| (name.as_str(), *align)).collect();
    let mut table = Table::with_columns(&columns);
    for (i, row) in report.shown.iter().enumerate() {
        let mut cells = vec![row.to_string()];
        match samples.features() {
            Features::Bytes(bytes) => cells.extend(bytes[i * size..][..size].iter().map(u8::to_string)),
            Features::Real(values) => cells.extend(values[i * size..][..size].iter().map(|&v| number(v))),
            Features::OnDemand(_) => unreachable!("samples are in memory"),
        }
        cells.push(match samples.targets() {
            Targets::Classes { labels, .. } => data.classes[labels[i] as usize].clone(),
            Targets::Real { values, shape } => {
                let own = &values[i * shape.elements()..][..shape.elements()];
                own.iter().map(|&v| number(v)).collect::<Vec<_>>().join(", ")
            }
            Targets::Input => "itself".into(),
        });
        table.row(cells);
    }
    table.render()
}

/// At most four digits behind the point, and none that are 0 at the end.
fn number(value: f32) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, want) in [(0.0, "0"), (1.0, "1"), (-0.12345, "-0.1235"), (1.5, "1.5"), (100.0, "100")] {
            assert_eq!(number(value), want);
        }
    }
}
