//! Data sets for Kiln: downloads, files read with care, digits drawn on the spot, small tables, and the order in which an
//! epoch visits the rows.
//!
//! A [`Dataset`] is two [`Split`]s, training and test, and the names of its classes. A split holds its
//! rows either as bytes, as image files do, or as `f32`, or reads them when they are needed ([`Rows`]), and its targets either as class indices or as
//! `f32` rows; lengths and labels are checked once, when it is made. Nothing here knows of a device.
//!
//! ```
//! use kiln_data::{Dataset, Features};
//! let data = Dataset::digits(7, 100, 20)?;
//! assert_eq!(data.train.item_shape().dims(), [1, 28, 28]);
//! assert!(matches!(data.train.features(), Features::Bytes(pixels) if pixels.len() == 100 * 784));
//! # Ok::<(), kiln_data::DataError>(())
//! ```

#![forbid(unsafe_code)]

mod array;
mod cifar;
mod csv_rows;
mod csv_table;
mod csv_text;
mod dataset;
mod digits;
mod dir;
mod error;
mod fetch;
mod folder;
mod idx;
mod lock_file;
mod mnist;
mod npy;
mod order;
mod picture;
mod rows;
mod splits;
mod tables;
mod transform;

pub use array::{Array, Elements, Number};
pub use csv_rows::{csv_rows, parse_csv_rows};
pub use csv_table::{Csv, Table, Task};
pub use dataset::{Dataset, Features, Split, Targets};
pub use dir::{DataDir, cache_folder};
pub use error::{DataError, IdxProblem, NoMirror};
#[doc(hidden)]
pub use fetch::unpack_known;
pub use fetch::{Content, Digest, Fetch, Fetched, FetchedFile, FileState, Progress, Proxies, Source, fetch};
pub use folder::{ImageFolder, Unreadable};
pub use idx::{Idx, parse_idx, parse_idx_array, read_idx, read_idx_array};
pub use lock_file::is_at;
pub use npy::{Npz, parse_npy, read_npy};
pub use order::order;
pub use picture::{ImageForm, read_image};
pub use rows::{OnDemand, RowKind, RowMut, Rows};
pub use tables::Gate;

/// The purposes that this crate draws random numbers for: the `stream` of
/// [`kiln_kernel::random::Stream`]. High numbers, so that they meet neither parameters nor layers.
mod streams {
    /// The order of an epoch's rows.
    pub(crate) const SHUFFLE: u32 = 0xDA7A_0000;
    /// Which rows go to which side of [`crate::Split::split`].
    pub(crate) const SPLIT: u32 = 0xDA7A_0001;
    /// Drawn digits for training: one step per image.
    pub(crate) const DIGITS_TRAIN: u32 = 0xDA7A_0002;
    /// Drawn digits for testing.
    pub(crate) const DIGITS_TEST: u32 = 0xDA7A_0003;
    /// Points of the `linear` table.
    pub(crate) const LINEAR: u32 = 0xDA7A_0004;
}
