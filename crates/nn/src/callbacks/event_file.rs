//! The event files that TensorBoard reads: TFRecords, each an `Event` protocol buffer.
//!
//! Source: `event.proto`, `summary.proto` and `tensor.proto` of TensorBoard 2.21 for the fields' numbers; "TFRecord and
//! `tf.train.Example`" of TensorFlow's guide for the records; `tensorboard.plugins.scalar.summary_v2.scalar_pb` for what
//! a scalar looks like.

use crc::{CRC_32_ISCSI, Crc};

/// The Castagnoli polynomial's.
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The record that each file begins with.
pub(super) fn version(wall_time: f64) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, wall_time).bytes(3, b"brain.Event:2");
    // source_metadata { writer }
    event.message(10, |source| {
        source.bytes(1, b"kiln");
    });
    record(&event.0)
}

/// A record of figures at a step, by their tags.
pub(super) fn scalars<'a>(
    wall_time: f64,
    step: u64,
    values: impl IntoIterator<Item = (&'a str, f64)>,
) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, wall_time).varint(2, step);
    event.message(5, |summary| {
        for (tag, value) in values {
            summary.message(1, |entry| scalar(entry, tag, value as f32));
        }
    });
    record(&event.0)
}

/// A tensor without dimensions that its metadata give to the scalars' plugin: what TensorBoard turns the older
/// `simple_value` into when it reads it.
fn scalar(entry: &mut Message, tag: &str, value: f32) {
    const DT_FLOAT: u64 = 1;
    entry.bytes(1, tag.as_bytes());
    entry.message(8, |tensor| {
        // dtype, tensor_shape, float_val
        tensor.varint(1, DT_FLOAT).bytes(2, &[]).bytes(5, &value.to_le_bytes());
    });
    entry.message(9, |metadata| {
        metadata.message(1, |plugin| {
            plugin.bytes(1, b"scalars");
        });
    });
}

/// Length, its checksum, data, their checksum; all little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let parts = [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()];
    parts.concat()
}

/// A checksum that may lie beside what it is of, and be summed again.
fn masked_crc(data: &[u8]) -> u32 {
    CRC32C.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol buffer in the making: fields by their numbers, in ascending order.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    const VARINT: u64 = 0;
    const FIXED64: u64 = 1;
    const BYTES: u64 = 2;

    fn varint(&mut self, field: u64, value: u64) -> &mut Self {
        self.number(field << 3 | Self::VARINT);
        self.number(value);
        self
    }

    fn double(&mut self, field: u64, value: f64) -> &mut Self {
        self.number(field << 3 | Self::FIXED64);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u64, value: &[u8]) -> &mut Self {
        self.number(field << 3 | Self::BYTES);
        self.number(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0)
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What the `EventFileWriter` of TensorBoard 2.21 wrote when it was given these two scalars by `scalar_pb`.
    const GOLDEN: [&str; 2] = [
        "34000000000000005e33175c0900002040fc54d94110012a270a250a0a65706f63685f6c6f7373420a080112002a040000803e4a0b0a090a077363616c617273\
         6657b55a",
        "3500000000000000d6c55de60900004040fc54d94110ac022a270a250a0a62617463685f6c6f7373420a080112002a048d5d13404a0b0a090a077363616c6172\
         73b634dbb0",
    ];

    /// Bit by bit, as the polynomial has it.
    fn slow_masked_crc(data: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in data {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        let crc = !crc;
        crc.rotate_right(15).wrapping_add(0xa282_ead8)
    }

    /// The data of each record of a file, whose checksums are tested.
    pub(crate) fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(word(8), slow_masked_crc(&bytes[..8]), "the length's checksum");
            let data = &bytes[12..12 + length];
            assert_eq!(word(12 + length), slow_masked_crc(data), "the data's checksum");
            records.push(data.to_vec());
            bytes = &bytes[16 + length..];
        }
        records
    }

    #[test]
    fn scalars_are_what_tensorboard_writes_itself() {
        let written = [
            scalars(1_700_000_000.5, 1, [("epoch_loss", 0.25)]),
            scalars(1_700_000_001.0, 300, [("batch_loss", 2.302_584_9)]),
        ];
        for (written, golden) in written.iter().zip(GOLDEN) {
            let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden);
            assert_eq!(records(written).len(), 1);
        }
    }

    #[test]
    fn a_file_begins_with_its_version() {
        let data = records(&version(0.0)).remove(0);
        assert_eq!(data, b"\x09\0\0\0\0\0\0\0\0\x1a\x0dbrain.Event:2\x52\x06\x0a\x04kiln");
    }

    #[test]
    fn several_figures_share_a_record() {
        let record = scalars(1.0, 1 << 40, [("a", f64::NAN), ("b", f64::INFINITY)]);
        let data = records(&record).remove(0);
        assert_eq!(&data[9..16], b"\x10\x80\x80\x80\x80\x80\x20", "a step beyond 32 bits");
        assert!(data.windows(4).any(|bytes| bytes == f32::INFINITY.to_le_bytes()));
    }
}
