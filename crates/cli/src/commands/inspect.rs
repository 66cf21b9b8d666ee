//! `kiln inspect filters|activations|heatmap|maximize MODEL`

use std::{
    fs,
    path::{Path, PathBuf},
};

use kiln_data::{Features, ImageForm, Split, Targets, read_image};
use kiln_device::DeviceOptions;
use kiln_nn::{NnError, Trainer, inspect};
use kiln_plot::{Cell, Grid, Picture, Range, Tone};
use ndarray::{ArrayD, Axis};
use serde::Serialize;

use super::{
    model::Model,
    predict::{class_named, no_class},
};
use crate::{
    Failure,
    arguments::{InspectActivations, InspectFilters, InspectHeatmap, InspectMaximize, Inspected, OneItem},
    device,
    output::{Align, Spinner, Table, Ui, count},
    pictures::{file_beside, file_name, is_image, row_picture, strip, write},
};

/// Most filters that are drawn of a convolution that reads one picture.
const MOST_FILTERS: usize = 256;

/// Most filters, and most channels of each, that are drawn of one that reads many.
const MOST_DEEP_FILTERS: usize = 32;
const MOST_CHANNELS: usize = 32;

/// Most maps that are drawn of a layer among others, and of one that is asked for alone.
const MOST_MAPS: usize = 64;
const MOST_MAPS_ALONE: usize = 256;

/// Most numbers of a layer without maps that are drawn.
const MOST_NUMBERS: usize = 4096;

/// Most filters that are excited where none are named.
const MOST_MAXIMIZED: usize = 64;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    files: Vec<String>,
    layers: Vec<Drawn>,
}

/// What `kiln inspect heatmap --json` prints.
#[derive(Debug, Serialize)]
struct Heat {
    model: String,
    file: String,
    layer: String,
    class: String,
    /// The class's logit.
    score: f32,
    /// How much each place of the layer's maps speaks for the class, row by row.
    heat: Vec<Vec<f32>>,
}

/// A layer in a picture.
#[derive(Debug, Serialize)]
struct Drawn {
    layer: String,
    /// Of what was drawn: weights, a result, or the pictures that excite.
    shape: Vec<usize>,
    /// Pictures of it that were drawn; what is left out is at the end.
    shown: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<Excited>,
}

/// A filter, and what it answered to noise and to the picture that was made for it.
#[derive(Debug, Serialize)]
struct Excited {
    filter: usize,
    before: f32,
    after: f32,
}

impl Report {
    fn new(model: &Path, files: &[PathBuf], layers: Vec<Drawn>) -> Self {
        let shown = |path: &Path| path.display().to_string();
        Self { model: shown(model), files: files.iter().map(|f| shown(f)).collect(), layers }
    }
}

impl Inspected {
    fn open(&self, ui: &Ui) -> Result<(Model, Trainer), Failure> {
        let model = Model::open(&self.model, self.recipe.as_deref(), ui)?;
        let trainer = model.trainer(&device::open(&self.device.device, DeviceOptions::default(), ui)?)?;
        Ok((model, trainer))
    }
}

/// What is wrong, and with which file.
fn of_file(path: &Path) -> impl Fn(NnError) -> Failure {
    move |error| Failure::Message(format!("{}: {error}", path.display()))
}

pub(crate) fn filters(args: &InspectFilters, ui: &Ui) -> Result<(), Failure> {
    let (_, trainer) = args.of.open(ui)?;
    let found = inspect::filters(&trainer, args.layer.as_deref());
    let (layer, weights) = found.map_err(of_file(&args.of.model))?;
    let path = args.out.clone().unwrap_or_else(|| file_beside(&args.of.model, &format!("filters-{layer}")));
    let (shown, what, grid) = draw_filters(&trainer, &layer, &weights)?;
    write(&grid, &path, &[])?;
    let shape = weights.shape().to_vec();
    ui.result(&format!("{what} {shape:?}, drawn in {}", path.display()))?;
    ui.json(&Report::new(&args.of.model, &[path], vec![Drawn { layer, shape, shown, filters: Vec::new() }]))
}

/// The filters of a convolution: how many are drawn, what they are, and the drawing.
pub(super) fn draw_filters(
    trainer: &Trainer,
    layer: &str,
    weights: &ArrayD<f32>,
) -> Result<(usize, String, Grid), Failure> {
    let &[filters, channels, height, width] = weights.shape() else {
        return Err(Failure::Message(format!("filters of shape {:?} cannot be drawn", weights.shape())));
    };
    // each filter as far as it goes: the signs and the parts of one are to be compared, not the sizes of several
    let of = |i: usize| {
        let filter = weights.index_axis(Axis(0), i);
        let most = filter.iter().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
        filter.iter().map(|v| v / most).collect::<Vec<f32>>()
    };
    let part = |shown: usize, all: usize, what: &str| match shown < all {
        true => format!("the first {shown} of {}", plural(all, what)),
        false => plural(all, what),
    };
    // the first layer of a network for colours: its filters are in colours too
    let colours = channels == 3
        && matches!(trainer.model().input_shape().dims(), [3, _, _])
        && inspect::layers_with_filters(trainer.model()).first().is_some_and(|first| first == layer);
    let mut cells = Vec::new();
    if channels == 1 || colours {
        let shown = filters.min(MOST_FILTERS);
        for i in 0..shown {
            let picture = match colours {
                true => Picture::bytes([3, height, width], around_grey(&of(i)))?,
                false => Picture::real([1, height, width], of(i))?,
            };
            cells.push(Cell::new(picture).toned(i.to_string(), Tone::Muted));
        }
        let what = format!("{} of {layer}", part(shown, filters, "filter"));
        let signs = if colours { "grey is 0" } else { "red above 0, blue below" };
        let grid = Grid::new(format!("{what}: {signs}")).sides(48).columns(columns(shown));
        return Ok((shown, what, grid.range(Range::Symmetric).row("", cells)));
    }
    let (down, across) = (filters.min(MOST_DEEP_FILTERS), channels.min(MOST_CHANNELS));
    for i in 0..down {
        for plane in of(i).chunks(height * width).take(across) {
            cells.push(Cell::new(Picture::real([1, height, width], plane)?));
        }
    }
    let (rows, read) = (part(down, filters, "filter"), part(across, channels, "channel"));
    let what = format!("{rows} of {layer} with {read} each");
    let grid = Grid::new(what.clone()).sides(24).columns(across).range(Range::Symmetric);
    let heading = "rows are filters, columns what they read; red above 0, blue below";
    Ok((down, what, grid.row(heading, cells)))
}

/// `1 filter`, `32 filters`
fn plural(n: usize, what: &str) -> String {
    format!("{} {what}{}", count(n as u64), if n == 1 { "" } else { "s" })
}

/// Numbers from -1 to 1 as bytes, 0 in the middle.
fn around_grey(values: &[f32]) -> Vec<u8> {
    values.iter().map(|v| (127.5 + 127.5 * v).round() as u8).collect()
}

/// Columns that make a grid about twice as wide as it is high.
fn columns(cells: usize) -> usize {
    match cells {
        0..=8 => cells.max(1),
        9..=32 => 8,
        _ => 16,
    }
}

pub(crate) fn activations(args: &InspectActivations, ui: &Ui) -> Result<(), Failure> {
    let (model, trainer) = args.of.open(ui)?;
    let (item, what) = args.item.read(&model, &trainer, &args.of, ui)?;
    let mut layers =
        inspect::activations(&trainer, item.features().clone()).map_err(of_file(&args.of.model))?;
    let kinds: Vec<&str> = trainer.model().layers().iter().map(|node| node.layer.type_name()).collect();
    let mut kinds: Vec<String> = kinds.into_iter().map(String::from).collect();
    if let Some(wanted) = &args.layer {
        let at = inspect::position(trainer.model(), wanted).map_err(of_file(&args.of.model))?;
        (layers, kinds) = (vec![layers.swap_remove(at)], vec![kinds.swap_remove(at)]);
    }
    let most = if args.layer.is_some() { MOST_MAPS_ALONE } else { MOST_MAPS };

    let mut drawn = Vec::new();
    let mut groups: Vec<(String, Vec<Cell>)> = Vec::new();
    for ((layer, values), kind) in layers.iter().zip(&kinds) {
        let (cells, of_what) = draw_result(values, most)?;
        groups.push((format!("{layer} ({kind}): {of_what}"), cells));
        let (shape, shown) = (values.shape().to_vec(), groups.last().map_or(0, |g| g.1.len()));
        drawn.push(Drawn { layer: layer.clone(), shape, shown, filters: Vec::new() });
    }
    let new_grid = |layer: &str| {
        let title = format!("{layer} of {what}; each map from black, its least, to white");
        Grid::new(title).columns(16)
    };
    let out = args.out.clone().unwrap_or_else(|| {
        let layer = args.layer.as_ref().map(|layer| format!("-{layer}")).unwrap_or_default();
        file_beside(&args.of.model, &format!("activations{layer}"))
    });
    let mut files = Vec::new();
    if out.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
        let title = args.layer.clone().unwrap_or_else(|| "what the layers make".into());
        let mut grid = new_grid(&title);
        if args.layer.is_none() && is_image(item.item_shape()) {
            grid = grid.row("input", [Cell::new(row_picture(&item, 0)?)]);
        }
        for (heading, cells) in groups {
            grid = grid.row(heading, cells);
        }
        write(&grid, &out, args.item.image.as_slice())?;
        files.push(out);
    } else {
        fs::create_dir_all(&out).map_err(|e| Failure::Message(format!("{}: {e}", out.display())))?;
        for ((layer, _), (heading, cells)) in layers.iter().zip(groups) {
            let path = out.join(format!("{}.png", file_name(layer)));
            write(&new_grid(layer).row(heading, cells), &path, args.item.image.as_slice())?;
            files.push(path);
        }
    }
    show_layers(&drawn, &kinds, &files, ui)?;
    ui.json(&Report::new(&args.of.model, &files, drawn))
}

impl OneItem {
    /// The item as the network takes it, and what it is called.
    fn read(
        &self,
        model: &Model,
        trainer: &Trainer,
        of: &Inspected,
        ui: &Ui,
    ) -> Result<(Split, String), Failure> {
        let Some(image) = &self.image else { return self.test_row(model, ui) };
        let [channels, height, width] = image_shape(trainer, of)?;
        let pixels = read_image(image, &ImageForm { channels, height, width, invert: self.invert })?;
        let nothing = Targets::Classes { labels: vec![0], classes: 1 };
        let item = Split::new(Features::Bytes(pixels), [channels, height, width], nothing)?;
        Ok((item, image.file_name().unwrap_or_default().to_string_lossy().into_owned()))
    }

    fn test_row(&self, model: &Model, ui: &Ui) -> Result<(Split, String), Failure> {
        let data = model.dataset(&self.data, ui)?;
        let item = data.test.select(&[self.index])?;
        let what = match item.targets() {
            Targets::Classes { labels, .. } => {
                format!("test row {}, {}", self.index, data.classes[labels[0] as usize])
            }
            Targets::Real { .. } | Targets::Input => format!("test row {}", self.index),
        };
        Ok((item, what))
    }
}

/// Channels, height and width of the images that the network takes.
fn image_shape(trainer: &Trainer, of: &Inspected) -> Result<[usize; 3], Failure> {
    let input = trainer.model().input_shape();
    match *input.dims() {
        [channels @ (1 | 3), height, width] => Ok([channels, height, width]),
        _ => Err(Failure::Message(format!(
            "{}: the network takes items of shape {input}, not images [1 or 3, height, width]",
            of.model.display()
        ))),
    }
}

/// The maps of a layer's result, or its numbers as one strip, and what they are; what is too many is left out.
pub(super) fn draw_result(values: &ArrayD<f32>, most: usize) -> Result<(Vec<Cell>, String), Failure> {
    let all: Vec<f32> = values.iter().copied().collect();
    let (maps, height, width) = match *values.shape() {
        [] | [_] => {
            let shown = all.len().min(MOST_NUMBERS);
            let cut = if shown < all.len() { format!(", the first {shown} shown") } else { String::new() };
            let what = format!("{}{cut}", plural(all.len(), "number"));
            return Ok((vec![Cell::new(strip(&all[..shown])?)], what));
        }
        [height, width] => (1, height, width),
        [.., height, width] => (all.len() / (height * width).max(1), height, width),
    };
    let shown = maps.min(most);
    let cut = if shown < maps { format!(", the first {shown} shown") } else { String::new() };
    let cells = all
        .chunks(height * width)
        .take(shown)
        .map(|map| Ok(Cell::new(Picture::real([1, height, width], map)?)))
        .collect::<Result<Vec<Cell>, Failure>>()?;
    Ok((cells, format!("{} of {height} x {width}{cut}", plural(maps, "map"))))
}

fn show_layers(layers: &[Drawn], kinds: &[String], files: &[PathBuf], ui: &Ui) -> Result<(), Failure> {
    let mut table = Table::new([
        ("layer", Align::Left),
        ("type", Align::Left),
        ("result", Align::Left),
        ("drawn", Align::Right),
    ]);
    for (layer, kind) in layers.iter().zip(kinds) {
        let drawn = match layer.shape.len() {
            0 | 1 => "one strip".into(),
            _ => count(layer.shown as u64),
        };
        table.row([layer.layer.clone(), kind.clone(), format!("{:?}", layer.shape), drawn]);
    }
    ui.result(&table.render())?;
    let place = match files {
        [file] => file.display().to_string(),
        files => {
            let folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new("."));
            format!("{}, a file for each layer", folder.display())
        }
    };
    ui.result(&format!("\ndrawn in {place}"))
}

pub(crate) fn heatmap(args: &InspectHeatmap, ui: &Ui) -> Result<(), Failure> {
    let (model, trainer) = args.of.open(ui)?;
    let [_, height, width] = image_shape(&trainer, &args.of)?;
    let (item, what) = args.item.read(&model, &trainer, &args.of, ui)?;
    let classes = trainer.classes();
    let outputs = trainer.model().output_shape().map_err(NnError::from)?.elements().max(2);
    let class = args.class.as_deref().map(|text| {
        let number = || text.trim().parse().ok();
        class_named(text, classes).or_else(number).ok_or_else(|| no_class("--class", text, classes, outputs))
    });
    let class = class.transpose()?;
    let found = inspect::grad_cam(&trainer, item.features().clone(), args.layer.as_deref(), class);
    let found = found.map_err(of_file(&args.of.model))?;
    let Some(heat) = found.over(height, width) else {
        return Err(Failure::Message(format!(
            "{}: layer \"{}\" gives no maps of rows and columns",
            args.of.model.display(),
            found.layer
        )));
    };
    let class = classes.get(found.class).cloned().unwrap_or_else(|| found.class.to_string());
    let path = args.out.clone().unwrap_or_else(|| file_beside(&args.of.model, &format!("heatmap-{class}")));
    let seen = row_picture(&item, 0)?;
    let cells = [
        Cell::new(seen.heated(&heat.into_raw_vec_and_offset().0)?)
            .caption(format!("{class}: {:.2}", found.score)),
        Cell::new(seen).toned(what, Tone::Muted),
    ];
    let title = format!("where {} sees \"{class}\"", found.layer);
    write(
        &Grid::new(title).sides(224).columns(2).row("from red to yellow, the hottest place", cells),
        &path,
        args.item.image.as_slice(),
    )?;

    let shape = found.heat.shape();
    let place = match found.heat.iter().any(|&h| h > 0.0) {
        true => format!("where {} {shape:?} sees \"{class}\"", found.layer),
        false => format!("no place of {} {shape:?} speaks for \"{class}\"", found.layer),
    };
    ui.result(&format!("{place}, whose score is {:.3}; drawn in {}", found.score, path.display()))?;
    ui.json(&Heat {
        model: args.of.model.display().to_string(),
        file: path.display().to_string(),
        layer: found.layer.clone(),
        class,
        score: found.score,
        heat: found.heat.outer_iter().map(|row| row.iter().copied().collect()).collect(),
    })
}

pub(crate) fn maximize(args: &InspectMaximize, ui: &Ui) -> Result<(), Failure> {
    let (_, trainer) = args.of.open(ui)?;
    image_shape(&trainer, &args.of)?;
    let fail = of_file(&args.of.model);
    let (layer, all) = inspect::maximizable(&trainer, args.layer.as_deref()).map_err(&fail)?;
    let filters = match &args.filters {
        Some(filters) => filters.0.clone(),
        None => (0..all.min(MOST_MAXIMIZED)).collect(),
    };
    let settings = inspect::Maximize { steps: args.steps, seed: args.seed, ..inspect::Maximize::default() };
    let found = {
        let _spinner = Spinner::new(ui, "climbing");
        inspect::maximize(&trainer, Some(&layer), &filters, &settings).map_err(&fail)?
    };
    let path = args.out.clone().unwrap_or_else(|| file_beside(&args.of.model, &format!("maximize-{layer}")));
    write(&draw_maximized(&trainer, &found)?, &path, &[])?;

    let silent = found.after.iter().filter(|&&after| after == 0.0).count();
    let silent = match silent {
        0 => String::new(),
        n => format!("; {n} of them stay silent"),
    };
    ui.result(&format!(
        "{} of {layer}: mean answer {:.3} to noise, {:.3} after {} steps{silent}; drawn in {}",
        match filters.len() {
            some if some < all => format!("{} of {}", count(some as u64), plural(all, "filter")),
            _ => plural(filters.len(), "filter"),
        },
        mean(&found.before),
        mean(&found.after),
        count(args.steps.into()),
        path.display()
    ))?;
    let excited = found.filters.iter().zip(found.before.iter().zip(&found.after));
    let drawn = Drawn {
        layer,
        shape: found.pictures.shape().to_vec(),
        shown: filters.len(),
        filters: excited.map(|(&filter, (&before, &after))| Excited { filter, before, after }).collect(),
    };
    ui.json(&Report::new(&args.of.model, &[path], vec![drawn]))
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len().max(1) as f32
}

/// A picture for each filter with its number, or the class's name, and its answer.
fn draw_maximized(trainer: &Trainer, found: &inspect::Maximized) -> Result<Grid, Failure> {
    let last = trainer.model().named_layers().last().is_some_and(|(name, _)| *name == found.layer);
    let classes = trainer.classes();
    let name = |filter: usize| match classes.get(filter).filter(|_| last) {
        Some(class) => class.clone(),
        None => filter.to_string(),
    };
    let mut cells = Vec::new();
    for ((picture, &filter), &after) in found.pictures.outer_iter().zip(&found.filters).zip(&found.after) {
        let &[channels, height, width] = picture.shape() else { continue };
        let pixels: Vec<u8> = picture.iter().map(|p| (p * 255.0).round() as u8).collect();
        // the mean of a map above 0 is 0 where nothing has woken it
        let answer = if after == 0.0 { "silent".into() } else { format!("{after:.2}") };
        let cell = Cell::new(Picture::bytes([channels, height, width], pixels)?).caption(name(filter));
        cells.push(cell.toned(answer, Tone::Muted));
    }
    let title = format!("what most excites {}; below each, the answer to it", found.layer);
    Ok(Grid::new(title).sides(84).columns(columns(cells.len()).min(8)).row("", cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_is_zero() {
        assert_eq!(around_grey(&[-1.0, 0.0, 0.5, 1.0]), [0, 128, 191, 255]);
    }

    #[test]
    fn grids_are_wider_than_high() {
        for (cells, want) in [(0, 1), (1, 1), (8, 8), (9, 8), (32, 8), (33, 16)] {
            assert_eq!(columns(cells), want);
        }
        assert_eq!(
            (plural(1, "filter"), plural(1200, "filter")),
            ("1 filter".into(), "1,200 filters".into())
        );
    }
}
