//! IDX files, plain and gzip: what is read is as long as its dimensions say, and bytes are read alike by both readers.
#![no_main]

use kiln_data::{Elements, parse_idx, parse_idx_array};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let array = parse_idx_array(data);
    if let Ok(array) = &array {
        assert_eq!(array.elements.len(), array.shape.iter().product::<usize>());
    }
    match (parse_idx(data), array) {
        (Ok(bytes), Ok(array)) => {
            assert_eq!(bytes.shape, array.shape);
            assert_eq!(Elements::Bytes(bytes.bytes), array.elements);
        }
        (Ok(_), Err(error)) => panic!("one reader takes it, the other says: {error}"),
        (Err(error), _) => assert!(!error.to_string().contains('\n')),
    }
});
