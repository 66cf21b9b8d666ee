//! Folders of images: a folder for each class.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use kiln_kernel::Shape;
use rayon::prelude::*;

use crate::{
    DataError, Dataset, Features, ImageForm, RowKind, RowMut, Rows, Split, Targets,
    picture::image_size,
    read_image,
    splits::{deal_classes, permutation},
};

/// Rows are held in memory up to so many bytes unless it is said otherwise: 4 GiB.
const MEMORY: u64 = 4 << 30;

/// Unreadable images that an error names.
const NAMED: usize = 3;

/// Files that a remark names.
const REMARKED: usize = 5;

/// What the folders of rows to learn from, to test on and to validate on may be called, in large letters, too.
const TRAIN: [&str; 2] = ["train", "training"];
const TEST: [&str; 2] = ["test", "testing"];
const VALIDATION: [&str; 3] = ["validation", "val", "valid"];

/// What becomes of images that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// They are an error, which names the first and says how many there are.
    #[default]
    Refuse,
    /// They are left out, and named in [`Dataset::remarks`].
    Skip,
}

/// A folder with a folder of PNG or JPEG files for each class: `DIR/train/CLASS/*.png` and `DIR/test/CLASS/*.png`, or
/// `DIR/CLASS/*.png` with a part to test on. Keras' `image_dataset_from_directory`, torchvision's `ImageFolder`.
///
/// Without `test` the folder `validation` or `val` is tested on; beside it, it is not read, and a remark says so. `training`, and
/// any of them in large letters, mean the same.
///
/// Classes are called as their folders are and sorted by name. Files are told by their endings `.png`, `.jpg` and `.jpeg`,
/// in folders below that of the class, too; hidden files are left out, other files are named in [`Dataset::remarks`].
/// Symbolic links are followed within the folder, but for those to folders that they lie in; one that leads out of it is
/// refused, unless [`ImageFolder::follow_links`] says otherwise. Images are brought to one size and one kind by
/// the rules of [`read_image`], by several threads. The rows come in an order of chance, which is the same each time.
///
/// ```
/// use kiln_data::ImageFolder;
/// # let dir = std::env::temp_dir().join(format!("kiln-doc-folder-{}", std::process::id()));
/// # for class in ["apple", "pear"] {
/// #     std::fs::create_dir_all(dir.join(class))?;
/// #     for name in ["1.png", "2.png"] { image::RgbImage::new(9, 8).save(dir.join(class).join(name))?; }
/// # }
/// let data = ImageFolder::new(&dir).test_split(0.5).read()?;
/// assert_eq!(data.classes, ["apple", "pear"]);
/// assert_eq!(data.train.item_shape().dims(), [3, 8, 9]);
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageFolder {
    path: PathBuf,
    size: Option<[usize; 2]>,
    grey: bool,
    unreadable: Unreadable,
    test_split: Option<f64>,
    seed: u64,
    memory: u64,
    follow_links: bool,
}

impl ImageFolder {
    /// The folder `path`: images in colours, of the size that they all have, unreadable ones refused.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            size: None,
            grey: false,
            unreadable: Unreadable::Refuse,
            test_split: None,
            seed: 1,
            memory: MEMORY,
            follow_links: false,
        }
    }

    /// Resizes all images to this height and width.
    pub fn size(mut self, [height, width]: [usize; 2]) -> Self {
        self.size = Some([height, width]);
        self
    }

    /// Images in grey, of one channel.
    pub fn grey(mut self) -> Self {
        self.grey = true;
        self
    }

    /// What becomes of images that cannot be read.
    pub fn unreadable(mut self, unreadable: Unreadable) -> Self {
        self.unreadable = unreadable;
        self
    }

    /// The part of the images of each class to test on, of a folder without `test`. Has no effect on one with it.
    pub fn test_split(mut self, part: f64) -> Self {
        self.test_split = Some(part);
        self
    }

    /// What the order of the rows, and which of them are tested on, is drawn from; 1 if it is not said.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Bytes of images to hold in memory at most, 4 GiB if it is not said. More are read from their files when they are
    /// needed; where unreadable ones are to be skipped, all are then read once to find them.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Follows symbolic links out of the folder, too: of a folder that was made here, not of one from elsewhere.
    pub fn follow_links(mut self) -> Self {
        self.follow_links = true;
        self
    }

    /// Finds the images, and reads them if memory holds them.
    ///
    /// # Errors
    /// [`DataError::Folder`] where the folder is not laid out so, a link leads out of it, there is one class only, a class has no images or a name
    /// that is not UTF-8, the images have several sizes and none was said, or they are larger than
    /// [`ImageForm::MAX_BYTES`]; [`DataError::Unreadable`]; [`DataError::Io`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        if self.path.as_os_str().is_empty() {
            let message = "path is empty; name the folder to read".into();
            return Err(DataError::Shape { origin: "folder of images".into(), message });
        }
        let channels = if self.grey { 1 } else { 3 };
        let form = |[height, width]: [usize; 2]| ImageForm { channels, height, width, invert: false };
        let bytes = |size| form(size).bytes().map_err(|message| self.fail(&self.path, message));
        self.size.map(bytes).transpose()?;
        let mut scan = Scan::default();
        if !self.follow_links {
            // where there is no such folder it is said below
            scan.within = fs::canonicalize(&self.path).ok();
        }
        let parts = self.parts(&mut scan)?;
        let classes: Vec<String> = parts[0].iter().map(|class| class.name.clone()).collect();
        let mut unreadable = Vec::new();
        let mut files: Vec<Vec<Image>> = Vec::new();
        for part in &parts {
            let images = part.iter().zip(0..).flat_map(|(class, label)| {
                class.files.iter().map(move |path| Image { path: path.clone(), label, size: [0; 2] })
            });
            files.push(self.sized(images.collect(), &mut unreadable));
        }
        let all = parts.iter().flatten().map(|class| class.files.len()).sum();
        self.check_unreadable(&unreadable, all)?;
        let size = self.common_size(&files)?;
        let (row, form) = (bytes(size)? as u64, form(size));

        let in_memory = (files.iter().map(Vec::len).sum::<usize>() as u64).saturating_mul(row) <= self.memory;
        // those that turn out to be damaged would change what is dealt to whom: they are looked for first
        if !in_memory && self.unreadable == Unreadable::Skip {
            for part in &mut files {
                let found: Vec<Option<DataError>> =
                    part.par_iter().map(|image| read_image(&image.path, &form).err()).collect();
                keep(part, found, &mut unreadable);
            }
        }
        let dealt = self.dealt(files, classes.len())?;
        let mut splits = Vec::new();
        for part in dealt {
            splits.push(match in_memory {
                true => self.decoded(part, &form, &mut unreadable)?,
                false => (part, None),
            });
        }
        self.check_unreadable(&unreadable, all)?;
        let splits: Vec<Split> = splits
            .into_iter()
            .zip(["train", "test"])
            .map(|((images, pixels), part)| self.split(images, pixels, form, &classes, part))
            .collect::<Result<_, _>>()?;
        let Ok([train, test]) = <[Split; 2]>::try_from(splits) else { unreachable!("there are two parts") };
        let name = self.path.file_name().unwrap_or(OsStr::new("folder")).to_string_lossy().into_owned();
        let mut data = Dataset::new(name, train, test, classes)?;
        data.remarks.extend(remark(
            &scan.others,
            "left out",
            "file that is no .png, .jpg or .jpeg in the folder of a class",
            "files that are no .png, .jpg or .jpeg in the folder of a class",
        ));
        let unreadable: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        data.remarks.extend(remark(
            &unreadable,
            "skipped",
            "image that cannot be read",
            "images that cannot be read",
        ));
        data.remarks.extend(scan.unread.iter().map(|folder| {
            format!(
                "the folder \"{}\" is not read: rows to validate on are held out of those to train on (validation_split)",
                last_name(folder)
            )
        }));
        data.remarks.extend(remark(
            &scan.twins,
            "read more than once",
            "folder of a class that is another's",
            "folders of classes that are others'",
        ));
        Ok(data)
    }

    fn fail(&self, path: &Path, message: impl Into<String>) -> DataError {
        DataError::Folder { path: path.into(), message: message.into() }
    }

    /// The classes of training and of testing; of training only where a part is to be tested on.
    fn parts(&self, scan: &mut Scan) -> Result<Vec<Vec<Class>>, DataError> {
        const LAYOUT: &str = "expected folders train/CLASS and test/CLASS of .png or .jpg files, or folders CLASS and \
                              test_split, the part to test on; --data DIR names the folder";
        if !self.path.is_dir() {
            return Err(self.fail(&self.path, format!("there is no such folder; {LAYOUT}")));
        }
        let folders = scan.folders(&self.path)?;
        let is_called =
            |folder: &Path, name: &str| folder.file_name().is_some_and(|n| n.eq_ignore_ascii_case(name));
        let named = |names: &[&str]| {
            names.iter().find_map(|name| folders.iter().find(|folder| is_called(folder, name)))
        };
        let roots: Vec<&Path> = match (named(&TRAIN), named(&TEST), named(&VALIDATION)) {
            (Some(train), Some(test), unread) => {
                scan.unread = unread.cloned();
                vec![train, test]
            }
            // rows that choose nothing, as those of a folder test are
            (Some(train), None, Some(validation)) => vec![train, validation],
            (Some(train), None, None) => vec![train],
            (None, Some(test), _) => {
                let message = format!("has a folder \"{}\", but no folder \"train\"", last_name(test));
                return Err(self.fail(&self.path, message));
            }
            (None, None, _) => vec![&self.path],
        };
        let holds = |folder: &Path, name: &str| folder.join(name).is_dir();
        if let [root] = roots[..]
            && root == self.path
            && let Some(inner) = folders.iter().find(|f| holds(f, "train") && holds(f, "test"))
        {
            let message =
                format!("its folder \"{}\" holds train and test itself: name that folder", last_name(inner));
            return Err(self.fail(&self.path, message));
        }
        match self.test_split {
            _ if roots.len() == 2 => {}
            Some(part) if part > 0.0 && part < 1.0 => {}
            Some(part) => {
                let message = format!("test_split must be between 0 and 1, is {part}");
                return Err(self.fail(&self.path, message));
            }
            None => {
                let message =
                    "has no folder test: add one, or say which part of the images to test on with test_split";
                return Err(self.fail(&self.path, message));
            }
        }
        let mut parts = Vec::new();
        for root in roots {
            let classes = scan.classes(root)?;
            if classes.is_empty() {
                return Err(self.fail(root, format!("holds no folders of classes; {LAYOUT}")));
            }
            if let Some(class) = classes.iter().find(|class| class.files.is_empty()) {
                let message = format!(
                    "the class \"{}\" has no .png, .jpg or .jpeg file (--data DIR names the folder that is read)",
                    class.name
                );
                return Err(self.fail(&class.path, message));
            }
            if let [class] = &classes[..] {
                let message = format!(
                    "holds one class only, \"{}\": a network needs at least two to tell apart; {LAYOUT}",
                    class.name
                );
                return Err(self.fail(root, message));
            }
            parts.push(classes);
        }
        if let [train, test] = &parts[..] {
            let odd = |of: &[Class], not_of: &[Class]| {
                let known: HashSet<&str> = not_of.iter().map(|class| class.name.as_str()).collect();
                let odd = of.iter().map(|class| class.name.as_str()).filter(|name| !known.contains(name));
                let odd: Vec<String> = odd.map(|name| format!("\"{name}\"")).collect();
                some(&odd, NAMED)
            };
            let (only_train, only_test) = (odd(train, test), odd(test, train));
            let mut message = "train and test must have the same classes".to_string();
            for (odd, part) in [(&only_train, "train"), (&only_test, "test")] {
                if !odd.is_empty() {
                    message += &format!("; only {part} has {odd}");
                }
            }
            if !(only_train.is_empty() && only_test.is_empty()) {
                return Err(self.fail(&self.path, message));
            }
        }
        Ok(parts)
    }

    /// The images whose headers can be read, with their sizes.
    fn sized(&self, mut images: Vec<Image>, unreadable: &mut Vec<DataError>) -> Vec<Image> {
        let sizes: Vec<Result<[usize; 2], DataError>> =
            images.par_iter().map(|image| image_size(&image.path)).collect();
        let mut found = Vec::with_capacity(images.len());
        for (image, size) in images.iter_mut().zip(sizes) {
            found.push(match size {
                Ok(size) => {
                    image.size = size;
                    None
                }
                Err(error) => Some(error),
            });
        }
        keep(&mut images, found, unreadable);
        images
    }

    fn check_unreadable(&self, unreadable: &[DataError], all: usize) -> Result<(), DataError> {
        if unreadable.is_empty() || self.unreadable == Unreadable::Skip {
            return Ok(());
        }
        let first = unreadable.iter().take(NAMED).map(ToString::to_string).collect();
        Err(DataError::Unreadable { count: unreadable.len(), all, first })
    }

    /// The size that was asked for, else that of all images.
    fn common_size(&self, files: &[Vec<Image>]) -> Result<[usize; 2], DataError> {
        if let Some(size) = self.size {
            return Ok(size);
        }
        let mut images = files.iter().flatten();
        let Some(first) = images.next() else {
            return Err(self.fail(&self.path, "none of its images can be read"));
        };
        if let Some(other) = images.find(|image| image.size != first.size) {
            let ([height, width], [h, w]) = (first.size, other.size);
            let message = format!(
                "its images have several sizes: {} is {height} x {width} pixels (height x width), {} is {h} x {w}; set a size \
                 that all are brought to, as size = [{height}, {width}] in the [data] of a recipe",
                first.path.display(),
                other.path.display()
            );
            return Err(self.fail(&self.path, message));
        }
        Ok(first.size)
    }

    /// Training and test images, each in an order of chance.
    fn dealt(&self, mut files: Vec<Vec<Image>>, classes: usize) -> Result<Vec<Vec<Image>>, DataError> {
        let pick =
            |images: &[Image], rows: &[u32]| rows.iter().map(|&row| images[row as usize].clone()).collect();
        if let [all] = &mut files[..] {
            let labels: Vec<u32> = all.iter().map(|image| image.label).collect();
            let part = self.test_split.unwrap_or_default();
            let (train, test) = deal_classes(&labels, classes, 1.0 - part, self.seed).map_err(|_| {
                let message = format!(
                    "a test_split of {part} leaves no image to train or to test on, of {}; each class keeps one to train on",
                    all.len()
                );
                self.fail(&self.path, message)
            })?;
            return Ok(vec![pick(all, &train), pick(all, &test)]);
        }
        Ok(files.iter().map(|images| pick(images, &permutation(images.len(), self.seed))).collect())
    }

    /// The images with their pixels, without those that cannot be read.
    fn decoded(
        &self,
        mut images: Vec<Image>,
        form: &ImageForm,
        unreadable: &mut Vec<DataError>,
    ) -> Result<(Vec<Image>, Option<Vec<u8>>), DataError> {
        let row = form.channels * form.height * form.width;
        let mut pixels = Vec::new();
        pixels.try_reserve_exact(row * images.len()).map_err(|_| {
            let message = format!("no memory for {} images of {row} bytes; set a smaller size", images.len());
            self.fail(&self.path, message)
        })?;
        pixels.resize(row * images.len(), 0);
        let read = |(image, to): (&Image, &mut [u8])| match read_image(&image.path, form) {
            Ok(bytes) => {
                to.copy_from_slice(&bytes);
                None
            }
            Err(error) => Some(error),
        };
        let found: Vec<Option<DataError>> =
            images.par_iter().zip(pixels.par_chunks_exact_mut(row)).map(read).collect();
        let mut kept = 0;
        for (i, _) in found.iter().enumerate().filter(|(_, error)| error.is_none()) {
            pixels.copy_within(i * row..(i + 1) * row, kept * row);
            kept += 1;
        }
        pixels.truncate(kept * row);
        keep(&mut images, found, unreadable);
        Ok((images, Some(pixels)))
    }

    fn split(
        &self,
        images: Vec<Image>,
        pixels: Option<Vec<u8>>,
        form: ImageForm,
        classes: &[String],
        part: &str,
    ) -> Result<Split, DataError> {
        let labels: Vec<u32> = images.iter().map(|image| image.label).collect();
        let present: HashSet<u32> = labels.iter().copied().collect();
        // what is dealt to be tested on may lack a class of few images
        let lacking = (0..classes.len() as u32).find(|label| !present.contains(label));
        if images.is_empty() || (part == "train" && lacking.is_some()) {
            let class = lacking
                .map_or(String::new(), |label| format!(" of the class \"{}\"", classes[label as usize]));
            return Err(self.fail(&self.path, format!("no {part} image{class} can be read")));
        }
        let targets = Targets::Classes { labels, classes: classes.len() };
        match pixels {
            Some(pixels) => {
                let shape = Shape::image(form.channels, form.height, form.width);
                Split::new(Features::Bytes(pixels), shape, targets)
            }
            None => {
                let files = images.into_iter().map(|image| image.path).collect();
                Split::from_rows(ImageFiles { root: self.path.clone(), files, form }, targets)
            }
        }
    }
}

impl Dataset {
    /// The images of a folder, all of one size, in colours: see [`ImageFolder`], which has more to choose.
    ///
    /// # Errors
    /// As [`ImageFolder::read`].
    pub fn image_folder(path: impl Into<PathBuf>) -> Result<Self, DataError> {
        ImageFolder::new(path).read()
    }
}

/// An image of a folder.
#[derive(Clone, Debug)]
struct Image {
    path: PathBuf,
    label: u32,
    /// Height and width.
    size: [usize; 2],
}

/// Drops the images that something was found with.
fn keep(images: &mut Vec<Image>, found: Vec<Option<DataError>>, unreadable: &mut Vec<DataError>) {
    let mut is_sound = found.iter().map(Option::is_none).collect::<Vec<_>>().into_iter();
    images.retain(|_| is_sound.next().unwrap_or(true));
    unreadable.extend(found.into_iter().flatten());
}

/// The first few of a list.
fn some(list: &[String], most: usize) -> String {
    let more = if list.len() > most { format!(" and {} more", list.len() - most) } else { String::new() };
    list[..list.len().min(most)].join(", ") + &more
}

fn remark(list: &[String], done: &str, one: &str, many: &str) -> Option<String> {
    let what = match list.len() {
        0 => return None,
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    };
    Some(format!("{done} {what}: {}", some(list, REMARKED)))
}

/// The images of one class.
#[derive(Debug)]
struct Class {
    name: String,
    path: PathBuf,
    files: Vec<PathBuf>,
}

/// A walk through folders, and what it has found beside images.
#[derive(Debug, Default)]
struct Scan {
    /// The real path of the folder that no link may lead out of.
    within: Option<PathBuf>,
    others: Vec<String>,
    /// Folders of classes by where they really are.
    real: HashMap<PathBuf, PathBuf>,
    /// Those that are the same as another by a link.
    twins: Vec<String>,
    /// A folder of rows to validate on, beside one to test on.
    unread: Option<PathBuf>,
}

fn last_name(folder: &Path) -> Cow<'_, str> {
    folder.file_name().unwrap_or_default().to_string_lossy()
}

impl Scan {
    /// Entries of a folder that are not hidden, sorted.
    fn entries(&self, folder: &Path) -> Result<Vec<PathBuf>, DataError> {
        let io = |source| DataError::Io { path: folder.into(), source };
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if !path.file_name().is_none_or(is_hidden) {
                self.check_link(&path)?;
                entries.push(path);
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// Refuses a link to a folder or an image outside.
    fn check_link(&self, path: &Path) -> Result<(), DataError> {
        let Some(within) = &self.within else { return Ok(()) };
        if !path.is_symlink() || !(path.is_dir() || is_image_name(path)) {
            return Ok(());
        }
        // one to nowhere is told where it is read
        match fs::canonicalize(path) {
            Ok(to) if !to.starts_with(within) => Err(DataError::Folder {
                path: path.into(),
                message: "is a link that leads out of the folder of the data; put what it leads to in its place, or have \
                          links followed (follow_links = true)"
                    .into(),
            }),
            _ => Ok(()),
        }
    }

    /// The folders in a folder, but for links to one that it lies in.
    fn folders(&mut self, folder: &Path) -> Result<Vec<PathBuf>, DataError> {
        let mut folders = Vec::new();
        for path in self.entries(folder)? {
            match path.is_dir() {
                true if leads_up(&path) => self.others.push(format!("{} (a link upward)", path.display())),
                true => folders.push(path),
                false => {}
            }
        }
        Ok(folders)
    }

    fn classes(&mut self, root: &Path) -> Result<Vec<Class>, DataError> {
        let mut classes = Vec::new();
        for path in self.folders(root)? {
            let Some(name) = path.file_name().and_then(OsStr::to_str).map(String::from) else {
                let message =
                    "a class is called as its folder is, and this name is not UTF-8; rename it".into();
                return Err(DataError::Folder { path, message });
            };
            let real =
                fs::canonicalize(&path).map_err(|source| DataError::Io { path: path.clone(), source })?;
            match self.real.get(&real) {
                Some(first) => self.twins.push(format!("{} is {}", path.display(), first.display())),
                None => _ = self.real.insert(real, path.clone()),
            }
            let mut files = Vec::new();
            self.images(&path, &mut files)?;
            classes.push(Class { name, path, files });
        }
        for path in self.entries(root)?.into_iter().filter(|path| !path.is_dir()) {
            self.others.push(path.display().to_string());
        }
        Ok(classes)
    }

    /// The image files below a folder, each folder once however many links lead there.
    fn images(&mut self, folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
        let mut seen = HashSet::new();
        let mut open = vec![folder.to_path_buf()];
        while let Some(folder) = open.pop() {
            let real =
                fs::canonicalize(&folder).map_err(|source| DataError::Io { path: folder.clone(), source })?;
            if !seen.insert(real) {
                continue;
            }
            for path in self.entries(&folder)? {
                match path.is_dir() {
                    true if leads_up(&path) => {
                        self.others.push(format!("{} (a link upward)", path.display()))
                    }
                    true => open.push(path),
                    false if is_image_name(&path) => files.push(path),
                    false => self.others.push(path.display().to_string()),
                }
            }
        }
        files.sort();
        Ok(())
    }
}

/// Files that systems leave in folders.
fn is_hidden(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') || ["thumbs.db", "desktop.ini", "__macosx"].contains(&name.to_lowercase().as_str())
}

fn is_image_name(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ["png", "jpg", "jpeg"].contains(&ending.as_str()))
}

/// Whether a path is a link to a folder that it lies in.
fn leads_up(path: &Path) -> bool {
    if !path.is_symlink() {
        return false;
    }
    let (Ok(to), Some(Ok(from))) = (fs::canonicalize(path), path.parent().map(parent_of)) else {
        return false;
    };
    from.starts_with(to)
}

/// The real path of a folder, which is the current one if its name is empty.
fn parent_of(folder: &Path) -> std::io::Result<PathBuf> {
    fs::canonicalize(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

/// Image files that are decoded when they are needed.
#[derive(Debug)]
struct ImageFiles {
    root: PathBuf,
    files: Vec<PathBuf>,
    form: ImageForm,
}

impl Rows for ImageFiles {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> Shape {
        Shape::image(self.form.channels, self.form.height, self.form.width)
    }

    fn kind(&self) -> RowKind {
        RowKind::Bytes
    }

    fn read(&self, row: usize, to: RowMut<'_>) -> Result<(), DataError> {
        let bytes = read_image(&self.files[row], &self.form)?;
        if let RowMut::Bytes(to) = to {
            to.copy_from_slice(&bytes);
        }
        Ok(())
    }

    /// Names and lengths of the files, and the form that they are brought to.
    fn identity(&self) -> Option<String> {
        let mut identity = format!("{:?}\n", self.form);
        for file in &self.files {
            let name = file.strip_prefix(&self.root).unwrap_or(file);
            let bytes = fs::metadata(file).map_or(0, |about| about.len());
            identity += &format!("{} {bytes}\n", name.display());
        }
        Some(identity)
    }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
