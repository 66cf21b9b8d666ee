//! Small sound files for every reader, made by what usually writes them.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
    sync::OnceLock,
};

use flate2::{Compression, write::GzEncoder};
use kiln::{
    device::Device,
    nn::{Dense, Loss, ModelFile, Optimizer, Recipe, Sequential, Trainer},
};

use super::{program, readers::model as readers};

/// Names and contents.
pub type Corpus = Vec<(String, Vec<u8>)>;

/// The corpus of a reader.
pub fn corpus(reader: &str) -> Corpus {
    let named = |(name, data): (&str, Vec<u8>)| (name.to_string(), data);
    match reader {
        "idx" => idx(),
        "npy" => npy(),
        "npz" => [("stored", npz(false)), ("deflated", npz(true))].map(named).into(),
        "csv" => csv(),
        "image" => images(),
        "archive" => archives(),
        "cifar" => vec![("two-rows".into(), [&[3], &[7; 3072][..], &[9], &[1; 3072]].concat())],
        "recipe" => recipes(),
        "model" => models(),
        "checkpoint" => checkpoints(),
        "bundle" => bundles(),
        "cache" => caches(),
        "run_json" => vec![("run.json".into(), run().0.clone())],
        "report" => vec![("xor".into(), [&run().0[..], &[0], &run().1].concat())],
        "compare" => compared(),
        _ => Vec::new(),
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn idx() -> Corpus {
    let mut all = Vec::new();
    for (code, size) in [(8u8, 1u8), (9, 1), (11, 2), (12, 4), (13, 4), (14, 8)] {
        let mut plain = vec![0, 0, code, 2, 0, 0, 0, 2, 0, 0, 0, 3];
        plain.extend(0..6 * size);
        all.push((format!("type-{code:02x}.gz"), gzip(&plain)));
        all.push((format!("type-{code:02x}"), plain));
    }
    all
}

/// An array as NumPy writes it.
pub fn npy_of(descr: &str, fortran: bool, version: u8, shape: &str, elements: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let mut data = b"\x93NUMPY".to_vec();
    data.extend([version, 0]);
    match version {
        1 => data.extend((header.len() as u16).to_le_bytes()),
        _ => data.extend((header.len() as u32).to_le_bytes()),
    }
    data.extend(header.bytes());
    data.extend(elements);
    data
}

fn npy() -> Corpus {
    let kinds = [
        ("|u1", 1),
        ("|b1", 1),
        ("<i2", 2),
        (">i4", 4),
        ("<u8", 8),
        ("<f2", 2),
        (">f4", 4),
        ("<f8", 8),
        ("|O", 8),
    ];
    let mut all = Vec::new();
    for (descr, size) in kinds {
        for (fortran, version) in [(false, 1), (true, 2)] {
            let data = npy_of(descr, fortran, version, "(2, 3)", &vec![0; 6 * size]);
            all.push((format!("{}-{version}", &descr[1..]), data));
        }
    }
    let labels: Vec<u8> = [0i64, 2, 1].iter().flat_map(|label| label.to_le_bytes()).collect();
    all.push(("labels".into(), npy_of("<i8", false, 1, "(3,)", &labels)));
    all
}

fn npz(deflated: bool) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let method = if deflated { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    let labels: Vec<u8> = [0i64, 1].iter().flat_map(|label| label.to_le_bytes()).collect();
    for part in ["train", "test"] {
        for (name, data) in [
            ("x", npy_of("|u1", false, 1, "(2, 2, 2)", &[1, 2, 3, 4, 5, 6, 7, 8])),
            ("y", npy_of("<i8", false, 1, "(2,)", &labels)),
        ] {
            archive.start_file(format!("{name}_{part}.npy"), options).unwrap();
            archive.write_all(&data).unwrap();
        }
    }
    archive.finish().unwrap().into_inner()
}

fn csv() -> Corpus {
    let tables: [(u8, &str); 5] = [
        (0, "x,colour,y\n1,red,0.5\n-2e3,green,7\n"),
        (4, "x,y\n1,a\n2,\"b, c\"\n3,a\n"),
        (8, "x,y\r\n1,2\r\n\r\n3,4\r\n"),
        (3, "a,1,2\nb,3,4\n"),
        (15, "7;1\n8;2\n"),
    ];
    let named =
        |(settings, text): (u8, &str)| (format!("table-{settings}"), [&[settings], text.as_bytes()].concat());
    tables.map(named).into()
}

fn images() -> Corpus {
    let mut all = Vec::new();
    let picture = image::RgbaImage::from_fn(7, 5, |x, y| image::Rgba([x as u8 * 30, y as u8 * 40, 90, 200]));
    let picture = image::DynamicImage::from(picture);
    for (name, picture, format) in [
        ("rgba.png", picture.clone(), image::ImageFormat::Png),
        ("rgb.png", picture.to_rgb8().into(), image::ImageFormat::Png),
        ("grey.png", picture.to_luma8().into(), image::ImageFormat::Png),
        ("grey16.png", picture.to_luma16().into(), image::ImageFormat::Png),
        ("rgb.jpg", picture.to_rgb8().into(), image::ImageFormat::Jpeg),
        ("grey.jpg", picture.to_luma8().into(), image::ImageFormat::Jpeg),
    ] {
        let mut data = Cursor::new(Vec::new());
        picture.write_to(&mut data, format).unwrap();
        all.push((name.to_string(), data.into_inner()));
    }
    // fuzzing found it: one colour at more places than the brightness, of which the decoder panics
    all.push(("oversampled.jpg".into(), include_bytes!("found/oversampled.jpg").into()));
    all
}

/// A tar archive, compressed, of names, types and contents.
pub fn archive_of(members: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    gzip(&tar_of(members))
}

/// A tar archive as it is.
fn tar_of(members: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for &(name, kind, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // as it is: the builder refuses names that lead elsewhere, which are the ones to try
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if kind.is_symlink() || kind.is_hard_link() {
            header.as_old_mut().linkname[..11].copy_from_slice(b"/etc/passwd");
        }
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn archives() -> Corpus {
    use tar::EntryType as T;
    [
        ("right", archive_of(&[("set/", T::Directory, b""), ("set/a.bin", T::Regular, b"hello")])),
        ("plain-name", archive_of(&[("a.bin", T::Regular, b"hello")])),
        ("long-name", archive_of(&[("x", T::GNULongName, b"set/a.bin\0"), ("set/b", T::Regular, b"hello")])),
        (
            "plain",
            tar_of(&[
                ("set/", T::Directory, b""),
                ("x", T::Regular, b"x"),
                ("set/a.bin", T::Regular, b"hello"),
            ]),
        ),
        ("link", archive_of(&[("set/a.bin", T::Symlink, b"")])),
    ]
    .map(|(name, data)| (name.to_string(), data))
    .into()
}

/// A recipe with every table.
const KITCHEN_SINK: &str = r#"
name = "sink"
description = "all there is"
data = { name = "digits", train = 100, test = 20 }
epochs = 2
batch_size = 4
validation_split = 0.2
metrics = ["accuracy", { type = "top_k", k = 3 }]
loss = { type = "cross_entropy", label_smoothing = 0.1 }
optimizer = { type = "adamw", learning_rate = 0.001, weight_decay = 0.02, beta1 = 0.9, beta2 = 0.99, eps = 1e-8, clip_norm = 1.0 }
schedule = { type = "warmup", steps = 20, then = { type = "cosine" } }
early_stopping = { patience = 3, min_delta = 0.01 }
preprocess = { mean = [0.5], std = [0.25] }
augment = { rotation = 20, zoom = 0.2, crop = 2, cutout = 6, mixup = 0.3 }

[[layers]]
type = "conv2d"
name = "first"
filters = 4
kernel = [3, 3]
stride = 2
padding = [1, 1, 1, 1]
groups = 1
activation = "relu"
weight_l2 = 0.001

[[layers]]
type = "batch_norm"

[[layers]]
type = "max_pool2d"
size = 2
stride = 1
padding = 0

[[layers]]
type = "zero_pad2d"
padding = 1

[[layers]]
type = "crop2d"
cropping = [1, 0, 0, 1]

[[layers]]
type = "upsample2d"
scale = 2

[[layers]]
type = "slice"
start = 1
end = 3

[[layers]]
type = "reshape"
shape = [2, -1]

[[layers]]
type = "flatten"

[[layers]]
type = "dropout"
rate = 0.25

[[layers]]
type = "dense"
units = 10
"#;

fn recipes() -> Corpus {
    let mut all: Corpus = Recipe::names()
        .into_iter()
        .map(|name| (name.to_string(), Recipe::builtin_text(name).unwrap().as_bytes().to_vec()))
        .collect();
    all.push(("sink".into(), KITCHEN_SINK.as_bytes().to_vec()));
    all
}

fn models() -> Corpus {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let dense = Sequential::new([3]).add(Dense::new(2));
    let trainer =
        Trainer::new(&Device::cpu(), dense, Optimizer::default(), Loss::named("cross_entropy").unwrap());
    trainer.unwrap().with_classes(vec!["a".into(), "b".into()]).save(&path).unwrap();
    let (dense, conv) = (fs::read(&path).unwrap(), readers::sound_model());
    for file in [&dense, &conv] {
        assert!(ModelFile::from_bytes(file, &path).unwrap().trainer(&Device::cpu()).is_ok());
    }
    let description = readers::description_of(&conv, readers::MODEL_KEY).into_bytes();
    assert!(readers::model(&description));
    [("dense", dense), ("conv", conv), ("description", description)]
        .map(|(name, data)| (name.to_string(), data))
        .into()
}

fn checkpoints() -> Corpus {
    let sound = readers::sound_checkpoint();
    let description = readers::description_of(&sound, "kiln-checkpoint");
    vec![
        ("file".into(), [&[0], &sound[..]].concat()),
        ("description".into(), [&[1], description.as_bytes()].concat()),
    ]
}

fn bundles() -> Corpus {
    let sound = readers::sound_bundles();
    let named = ["product", "convolution", "parameter"].iter().zip(&sound);
    let mut all: Corpus = named.map(|(name, file)| (name.to_string(), [&[0], &file[..]].concat())).collect();
    for (kind, file) in (1u8..3).zip(&sound) {
        let description = readers::description_of(file, readers::BUNDLE_KEY);
        all.push((format!("description-{kind}"), [&[kind], description.as_bytes()].concat()));
    }
    all
}

/// Tuned tiles and compiled pipelines: files, and what they hold.
fn caches() -> Corpus {
    use kiln::device::hostile;
    let folder = tempfile::tempdir().unwrap();
    let mut tuning = hostile::tuning();
    let choices = [("matmul 1x2x3 #ab", "tiled 16x16x16 of 2x2"), ("conv2d 4 #cd", "direct")];
    tuning.choices = choices.map(|(kernel, variant)| (kernel.to_string(), variant.to_string())).into();
    let file = fs::read(tuning.save(folder.path()).unwrap()).unwrap();
    let choices = serde_json::to_vec(&tuning.choices).unwrap();
    let pipelines = hostile::pipeline_file("fuzz", b"pipelines");
    [
        ("tuning", 0, file),
        ("choices", 1, choices),
        ("file", 2, pipelines),
        ("pipelines", 3, b"pipelines".to_vec()),
    ]
    .map(|(name, kind, data)| (name.to_string(), [&[kind], &data[..]].concat()))
    .into()
}

/// A run beside itself, and beside one that went on otherwise.
fn compared() -> Corpus {
    let (run, metrics) = run();
    let other = String::from_utf8(metrics.clone()).unwrap().replacen("0.", "1.", 1);
    vec![
        ("same".into(), [&run[..], &[0], metrics].concat()),
        ("other".into(), [&run[..], &[0], metrics, &[0], other.as_bytes()].concat()),
    ]
}

/// `run.json` and `metrics.jsonl` of a run that was cut short by the program itself.
pub fn run() -> &'static (Vec<u8>, Vec<u8>) {
    static RUN: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let train = ["train", "xor", "--device", "cpu", "--epochs", "3", "--quiet", "--out", "run"];
        program::succeeds(folder.path(), &train);
        let read = |path: &Path| fs::read(path).unwrap();
        let mut run: serde_json::Value = serde_json::from_slice(&read(&out.join("run.json"))).unwrap();
        // one that is over cannot be resumed
        run.as_object_mut().unwrap().remove("result");
        let run = serde_json::to_vec_pretty(&run).unwrap();
        (run, read(&out.join("metrics.jsonl")))
    })
}
