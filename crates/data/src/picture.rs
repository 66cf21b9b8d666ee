//! Single image files.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind, Read},
    path::Path,
    sync::{Condvar, Mutex, PoisonError},
};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Rgba, imageops::FilterType,
    metadata::Orientation,
};
use kiln_kernel::panics;

use crate::DataError;

/// Longest side of an image that is read.
pub(crate) const MAX_SIDE: u32 = 16_384;

/// Largest image file that is read.
const MAX_FILE: u64 = 256 << 20;

/// Largest decoded image, in bytes: 85 megapixels in RGB.
const MAX_DECODED: u64 = 256 << 20;

/// Most pixels that a byte of a JPEG can stand for: 64 in a block of one bit, in two components that are sampled at a quarter.
const PIXELS_PER_JPEG_BYTE: u64 = 1024;

/// Most pixels that a byte of a PNG can stand for: eight a byte, 1032 bytes for one that is deflated.
const PIXELS_PER_PNG_BYTE: u64 = 8 * 1032;

/// What a network expects of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageForm {
    /// 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Exchange black and white: for dark strokes on light paper, where the network learned light strokes on
    /// black as MNIST has them.
    pub invert: bool,
}

impl ImageForm {
    /// Most bytes of one image in the form that it is brought to, channels x height x width: 64 MiB.
    pub const MAX_BYTES: usize = 64 << 20;

    /// Bytes of an image of this form.
    ///
    /// ```
    /// use kiln_data::ImageForm;
    /// let form = ImageForm { channels: 3, height: 32, width: 32, invert: false };
    /// assert_eq!(form.bytes(), Ok(3072));
    /// assert!(ImageForm { height: 16_384, width: 16_384, ..form }.bytes().is_err());
    /// ```
    ///
    /// # Errors
    /// A side that is not from 1 to 16,384 pixels, channels other than 1 or 3, or more than [`ImageForm::MAX_BYTES`], in
    /// words.
    pub fn bytes(&self) -> Result<usize, String> {
        let Self { channels, height, width, .. } = *self;
        if ![height, width].iter().all(|side| (1..=MAX_SIDE as usize).contains(side)) {
            return Err(format!("a size is from 1 to {MAX_SIDE} pixels a side, is [{height}, {width}]"));
        }
        if channels != 1 && channels != 3 {
            return Err(format!("the network expects {channels} channels, but images have 1 or 3"));
        }
        // no overflow: the factors were bounded above
        let bytes = channels as u64 * height as u64 * width as u64;
        if bytes > Self::MAX_BYTES as u64 {
            return Err(format!(
                "images of {height} x {width} pixels (height x width) in {channels} channel{} are {bytes} bytes each, more \
                 than the {} that are held; set a smaller size",
                if channels == 1 { "" } else { "s" },
                Self::MAX_BYTES
            ));
        }
        Ok(bytes as usize)
    }
}

/// Reads a PNG or JPEG file (told by the content) and brings it into the form that a network expects:
/// bytes [channels, height, width].
///
/// Turned upright as its Exif data says; transparent pixels take the background, black or, where `invert`
/// is set, white; grey is 0.2126 red + 0.7152 green + 0.0722 blue; resized by a triangle filter that
/// averages over all source pixels, the aspect ratio not kept.
///
/// Files over 256 MiB, sides over 16,384 pixels, images over 256 MiB when decoded and such as declare more pixels than a file of
/// their bytes can hold are refused before their pixels are touched, and so are JPEGs without an end and forms over
/// [`ImageForm::MAX_BYTES`]. Threads that read images at once share 1 GiB: where it is full, they wait.
///
/// Some damaged JPEGs make their decoder panic. That is an error here, but the process's panic hook is called all the same:
/// one that is to be silent then asks [`kiln_kernel::panics::is_contained`].
///
/// # Errors
/// [`DataError::Io`], [`DataError::NotAFile`], or [`DataError::Image`] with what is wrong.
pub fn read_image(path: &Path, form: &ImageForm) -> Result<Vec<u8>, DataError> {
    let fail = |message: String| DataError::Image { path: path.into(), message };
    form.bytes().map_err(fail)?;
    let (width, height) = (form.width as u32, form.height as u32);
    // the room is held until all copies but the one that is returned are gone
    let (image, _room) = contained(path, || decode(path, form))?;
    let background = if form.invert { 255 } else { 0 };
    let image = over_background(image, background);
    let mut bytes = if form.channels == 1 {
        let grey = image.into_luma8();
        if grey.dimensions() == (width, height) {
            grey.into_raw()
        } else {
            image::imageops::resize(&grey, width, height, FilterType::Triangle).into_raw()
        }
    } else {
        let mut rgb = image.into_rgb8();
        if rgb.dimensions() != (width, height) {
            rgb = image::imageops::resize(&rgb, width, height, FilterType::Triangle);
        }
        // Interleaved to planes.
        let mut planes = Vec::new();
        let len = rgb.as_raw().len();
        planes.try_reserve_exact(len).map_err(|_| fail(format!("no memory for {len} bytes")))?;
        (0..3).for_each(|c| planes.extend(rgb.pixels().map(|pixel| pixel[c])));
        planes
    };
    if form.invert {
        bytes.iter_mut().for_each(|byte| *byte = 255 - *byte);
    }
    Ok(bytes)
}

/// Height and width of an image file, upright. Reads no pixels.
pub(crate) fn image_size(path: &Path) -> Result<[usize; 2], DataError> {
    contained(path, || {
        let file_bytes = check_file(path)?;
        let _room = ROOM.take(file_bytes);
        let mut decoder = open(path, file_bytes)?;
        let orientation = decoder.orientation().map_err(|e| unsound(path, e))?;
        Ok(upright(decoder.dimensions(), orientation))
    })
}

/// What `read` gives; a panic of the image decoder in it is an error of the file.
fn contained<T>(path: &Path, read: impl FnOnce() -> Result<T, DataError>) -> Result<T, DataError> {
    panics::contain(read).unwrap_or_else(|said| {
        let message = format!(
            "damaged, or of a rare kind: its decoder gave up ({said}); save the image anew with another program"
        );
        Err(DataError::Image { path: path.into(), message })
    })
}

/// Height and width once an image is turned.
fn upright((width, height): (u32, u32), orientation: Orientation) -> [usize; 2] {
    let (width, height) = (width as usize, height as usize);
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => [width, height],
        _ => [height, width],
    }
}

/// The image, upright, and the memory that it and what becomes of it may take.
fn decode(path: &Path, form: &ImageForm) -> Result<(DynamicImage, Taken<'static>), DataError> {
    let file_bytes = check_file(path)?;
    let room = ROOM.take(file_bytes + USUAL);
    if !is_whole(path).map_err(|source| DataError::Io { path: path.into(), source })? {
        return Err(DataError::Image {
            path: path.into(),
            message: "truncated: a JPEG without an end".into(),
        });
    }
    let mut decoder = open(path, file_bytes)?;
    let orientation = decoder.orientation().map_err(|e| unsound(path, e))?;
    let [height, width] = upright(decoder.dimensions(), orientation);
    // a resize goes by an image of the old width and the new height, in four `f32` a pixel
    let between = match [height, width] == [form.height, form.width] {
        true => 0,
        false => width as u64 * form.height as u64 * 16,
    };
    if between > MAX_TOGETHER {
        let message = format!(
            "to bring it from {height} x {width} to {} x {} pixels (height x width) takes {between} bytes, more than the \
             {MAX_TOGETHER} there are; set a smaller size, or shrink the image",
            form.height, form.width
        );
        return Err(DataError::Image { path: path.into(), message });
    }
    let target = (form.channels * form.height * form.width) as u64;
    let needed = decoder.total_bytes().saturating_mul(COPIES) + between + 2 * target;
    // the room is of the larger size then: the image is opened again with nothing else held, so that no two wait for each
    // other
    let room = if needed > USUAL {
        drop(decoder);
        drop(room);
        let room = ROOM.take(file_bytes + needed);
        decoder = open(path, file_bytes)?;
        room
    } else {
        room
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| unsound(path, e))?;
    image.apply_orientation(orientation);
    Ok((image, room))
}

/// The bytes of a file that may be opened.
fn check_file(path: &Path) -> Result<u64, DataError> {
    let meta = std::fs::metadata(path).map_err(|source| DataError::Io { path: path.into(), source })?;
    if !meta.is_file() {
        return Err(DataError::NotAFile { path: path.into() });
    }
    if meta.len() > MAX_FILE {
        let message = format!("{} bytes; images over {MAX_FILE} bytes are not read", meta.len());
        return Err(DataError::Image { path: path.into(), message });
    }
    Ok(meta.len())
}

/// A decoder that has read the header, and whose image is within the limits.
fn open(path: &Path, file_bytes: u64) -> Result<Box<dyn ImageDecoder>, DataError> {
    let io = |source| DataError::Io { path: path.into(), source };
    let file = BufReader::new(File::open(path).map_err(io)?);
    let mut reader = ImageReader::new(file).with_guessed_format().map_err(io)?;
    let densest = match reader.format() {
        None => {
            let message = "not an image that can be read; PNG and JPEG can".into();
            return Err(DataError::Image { path: path.into(), message });
        }
        Some(ImageFormat::Jpeg) => PIXELS_PER_JPEG_BYTE,
        Some(_) => PIXELS_PER_PNG_BYTE,
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits.clone());
    let decoder = reader.into_decoder().map_err(|e| unsound(path, e))?;
    limits.reserve(decoder.total_bytes()).map_err(|e| unsound(path, e))?;
    let (width, height) = decoder.dimensions();
    // no overflow: files and sides are bounded
    let most = file_bytes * densest;
    if u64::from(width) * u64::from(height) > most {
        let message = format!(
            "truncated: its header declares {height} x {width} pixels (height x width), but no {file_bytes} bytes hold more \
             than {most}"
        );
        return Err(DataError::Image { path: path.into(), message });
    }
    Ok(Box::new(decoder))
}

/// False of a JPEG that ends before its end marker, whose missing part the decoder would paint grey.
fn is_whole(path: &Path) -> io::Result<bool> {
    match reaches_end(&mut BufReader::new(File::open(path)?)) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        other => other,
    }
}

/// Walks the segments of a JPEG up to the end marker (ITU T.81, section B.1): what is none, or is damaged, is for the decoder to
/// refuse.
fn reaches_end(file: &mut BufReader<File>) -> io::Result<bool> {
    let byte = |file: &mut dyn BufRead| -> io::Result<u8> {
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    let mut start = Vec::new();
    file.take(2).read_to_end(&mut start)?;
    if start != [0xff, 0xd8] {
        return Ok(true);
    }
    loop {
        // up to a marker: between segments it comes at once, behind a scan's header its data come first
        if file.skip_until(0xff)? == 0 {
            return Ok(false);
        }
        let mut marker = byte(file)?;
        while marker == 0xff {
            marker = byte(file)?;
        }
        match marker {
            0xd9 => return Ok(true),
            // a stuffed byte of the data, or a marker without a segment
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            _ => {
                let len = u16::from_be_bytes([byte(file)?, byte(file)?]);
                file.seek_relative(i64::from(len).saturating_sub(2).max(0))?;
            }
        }
    }
}

fn unsound(path: &Path, error: ImageError) -> DataError {
    let fail = |message: String| DataError::Image { path: path.into(), message };
    match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => fail("truncated".into()),
        ImageError::IoError(source) => DataError::Io { path: path.into(), source },
        ImageError::Limits(_) => {
            fail(format!("too large: over {MAX_SIDE} pixels a side or {MAX_DECODED} bytes when decoded"))
        }
        ImageError::Unsupported(_) => fail("not an image that can be read; PNG and JPEG can".into()),
        other => fail(one_line(&other.to_string())),
    }
}

/// Memory that images are decoded in by all threads together, but for one that needs more by itself.
const MAX_TOGETHER: u64 = 1 << 30;

/// Copies of the pixels that there are at once: decoded, converted, resized.
const COPIES: u64 = 3;

/// What is taken before the size of an image is known.
const USUAL: u64 = 16 << 20;

static ROOM: Room = Room { taken: Mutex::new(0), freed: Condvar::new() };

/// Memory that threads share: who needs more than is left waits. Nobody who has taken some takes more.
struct Room {
    taken: Mutex<u64>,
    freed: Condvar,
}

/// A part of it, until it is dropped.
struct Taken<'a>(&'a Room, u64);

impl Room {
    fn take(&self, bytes: u64) -> Taken<'_> {
        // the number is right whoever panicked
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |taken: &mut u64| *taken > 0 && *taken + bytes > MAX_TOGETHER;
        *self.freed.wait_while(taken, is_full).unwrap_or_else(PoisonError::into_inner) += bytes;
        Taken(self, bytes)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.1;
        self.0.freed.notify_all();
    }
}

/// Lays transparent pixels over a grey level.
fn over_background(image: DynamicImage, background: u8) -> DynamicImage {
    if !image.color().has_alpha() {
        return image;
    }
    let mut rgba = image.into_rgba8();
    for Rgba([r, g, b, a]) in rgba.pixels_mut() {
        let alpha = u32::from(*a);
        for channel in [r, g, b] {
            let mixed = u32::from(*channel) * alpha + u32::from(background) * (255 - alpha);
            *channel = ((mixed + 127) / 255) as u8;
        }
        *a = 255;
    }
    DynamicImage::ImageRgba8(rgba)
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage, RgbaImage};

    use super::*;

    fn form(channels: usize, height: usize, width: usize) -> ImageForm {
        ImageForm { channels, height, width, invert: false }
    }

    #[test]
    fn pixels_come_through() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wrongly-named.txt");
        let grey = GrayImage::from_fn(5, 3, |x, y| Luma([(x * 40 + y * 10) as u8]));
        grey.save_with_format(&file, ImageFormat::Png).unwrap();
        assert_eq!(read_image(&file, &form(1, 3, 5)).unwrap(), grey.clone().into_raw());
        let inverted = read_image(&file, &ImageForm { invert: true, ..form(1, 3, 5) }).unwrap();
        assert_eq!(inverted, grey.as_raw().iter().map(|p| 255 - p).collect::<Vec<_>>());
        // Grey to three planes.
        assert_eq!(read_image(&file, &form(3, 3, 5)).unwrap(), grey.as_raw().repeat(3));

        let rgb = RgbImage::from_fn(4, 2, |x, y| Rgb([x as u8, y as u8, 200]));
        rgb.save_with_format(&file, ImageFormat::Png).unwrap();
        let planes = read_image(&file, &form(3, 2, 4)).unwrap();
        assert_eq!(
            planes,
            [vec![0, 1, 2, 3, 0, 1, 2, 3], vec![0, 0, 0, 0, 1, 1, 1, 1], vec![200; 8]].concat()
        );

        // A transparent image is its background, whatever lies under it.
        RgbaImage::from_pixel(3, 3, Rgba([90, 90, 90, 0])).save_with_format(&file, ImageFormat::Png).unwrap();
        assert_eq!(read_image(&file, &form(1, 3, 3)).unwrap(), [0; 9]);
        assert_eq!(read_image(&file, &ImageForm { invert: true, ..form(1, 3, 3) }).unwrap(), [0; 9]);

        let flat = GrayImage::from_pixel(200, 100, Luma([77]));
        flat.save_with_format(&file, ImageFormat::Jpeg).unwrap();
        let small = read_image(&file, &form(1, 28, 28)).unwrap();
        assert!(small.len() == 784 && small.iter().all(|p| p.abs_diff(77) <= 1));
    }

    #[test]
    fn unsound_images_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.png");
        RgbImage::new(30, 30).save(&file).unwrap();
        let sound = std::fs::read(&file).unwrap();
        let mut wide = sound.clone();
        wide[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
        let mut large = sound.clone();
        large[16..24].copy_from_slice(&[0, 0, 0x3f, 0, 0, 0, 0x3f, 0]);
        // The header's checksum must be right for the sizes to be believed.
        for png in [&mut wide, &mut large] {
            let crc = crc32(&png[12..29]);
            png[29..33].copy_from_slice(&crc.to_be_bytes());
        }
        GrayImage::from_fn(30, 30, |x, y| Luma([((x * 7) ^ (y * 5)) as u8]))
            .save_with_format(&file, ImageFormat::Jpeg)
            .unwrap();
        let mut declared = std::fs::read(&file).unwrap();
        for cut in [2, 3, 50, 200] {
            std::fs::write(&file, &declared[..declared.len() - cut]).unwrap();
            let message = read_image(&file, &form(1, 28, 28)).unwrap_err().to_string();
            assert!(message.contains("truncated"), "{cut} bytes less: {message}");
        }
        // what stands behind the end is none of the image
        std::fs::write(&file, [&declared[..], b"made by a camera"].concat()).unwrap();
        assert!(read_image(&file, &form(1, 28, 28)).is_ok());
        let frame = declared.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
        declared[frame + 5..frame + 9].copy_from_slice(&[0x20, 0, 0x30, 0]);
        let cases: [(&str, Vec<u8>, &str); 8] = [
            ("empty", vec![], "not an image"),
            ("text", b"a digit, honestly".to_vec(), "not an image"),
            ("gif", b"GIF89a\x01\x00\x01\x00".to_vec(), "not an image"),
            ("cut", sound[..40].to_vec(), ""),
            ("damaged", [&sound[..20], &[0xff; 60]].concat(), ""),
            ("too wide", wide, "too large"),
            ("too many pixels", large, "too large"),
            ("more than its bytes hold", declared, "declares 8192 x 12288 pixels"),
        ];
        for (name, data, want) in cases {
            std::fs::write(&file, data).unwrap();
            let message = read_image(&file, &form(1, 28, 28)).expect_err(name).to_string();
            assert!(message.contains("image.png") && message.contains(want), "{name}: {message}");
            assert!(!message.contains('\n'), "{name}: {message}");
        }
        std::fs::write(&file, sound).unwrap();
        for form in [form(2, 28, 28), form(1, 0, 28), form(1, 28, usize::MAX)] {
            assert!(matches!(read_image(&file, &form), Err(DataError::Image { .. })), "{form:?}");
        }
        assert!(matches!(read_image(dir.path(), &form(1, 2, 2)), Err(DataError::NotAFile { .. })));
    }

    #[test]
    fn what_the_decoder_panics_of_is_refused() {
        let read = || panic!("of this");
        let message = contained::<()>(Path::new("image.jpg"), read).unwrap_err().to_string();
        assert!(message.contains("image.jpg") && message.contains("gave up (of this)"), "{message}");
    }

    #[test]
    fn forms_too_large_are_refused_before_anything_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.png");
        let refused = |form: &ImageForm| read_image(&file, form).unwrap_err().to_string();
        // the file is not there: its absence would be told first
        for (form, want) in [
            (
                form(1, 16_384, 16_384),
                "in 1 channel are 268435456 bytes each, more than the 67108864 that are held",
            ),
            (form(3, 4_730, 4_730), "in 3 channels are 67118700 bytes"),
            (form(1, 1, 16_385), "from 1 to 16384 pixels a side"),
        ] {
            let message = refused(&form);
            assert!(message.contains(want), "{message:?} lacks {want:?}");
        }
        // a form that is small, by way of an image that is not: 16,000 x 16,000 pixels of four f32
        GrayImage::new(16_000, 2).save(&file).unwrap();
        let message = refused(&form(1, 16_000, 1));
        assert!(message.contains("from 2 x 16000 to 16000 x 1 pixels"), "{message}");
    }

    #[test]
    fn images_of_one_colour_are_read_at_their_densest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        for (format, side) in [(ImageFormat::Jpeg, 4_000), (ImageFormat::Png, 9_000)] {
            GrayImage::new(side, side).save_with_format(&file, format).unwrap();
            let bytes = read_image(&file, &form(1, 4, 4)).unwrap();
            assert_eq!(bytes, [0; 16], "{format:?} of {} bytes", file.metadata().unwrap().len());
        }
    }

    #[test]
    fn room_is_held_until_the_image_is_brought_to_its_form() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.png");
        GrayImage::new(9, 9).save(&file).unwrap();
        let (image, room) = decode(&file, &form(3, 2_000, 2_000)).unwrap();
        // both copies of the form's 12 MB, which the image of 81 bytes does not show
        assert!(image.as_bytes().len() == 81 && room.1 > 24_000_000, "{}", room.1);
    }

    fn crc32(data: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        crc.sum()
    }
}
