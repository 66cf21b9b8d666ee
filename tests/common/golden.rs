//! The golden vectors: what PyTorch says. See README.md beside them.

use std::{cell::RefCell, collections::HashMap, path::PathBuf, rc::Rc};

use kiln_graph::Array;
use kiln_kernel::Host;
use ndarray::IxDyn;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One case of the manifest.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub op: String,
    pub attrs: Value,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub upstream: Option<String>,
    pub grads: Vec<String>,
    file: String,
}

impl Case {
    /// A number among the settings.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.attrs[key].as_f64()
    }

    /// A pair of whole numbers among the settings.
    pub fn pair(&self, key: &str) -> (usize, usize) {
        let at = |i: usize| self.attrs[key][i].as_u64().unwrap() as usize;
        (at(0), at(1))
    }

    /// A list of whole numbers among the settings.
    pub fn list(&self, key: &str) -> Vec<usize> {
        self.attrs[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
    }

    /// A list of numbers among the settings.
    pub fn numbers(&self, key: &str) -> Vec<f64> {
        self.attrs[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }
}

/// A tensor of a golden file.
#[derive(Clone, Debug)]
pub struct Golden {
    pub value: Array,
    pub integer: bool,
}

impl Golden {
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// As a device is given it.
    pub fn host(&self) -> Host {
        match self.integer {
            true => Host::U32(self.value.iter().map(|&v| v as u32).collect()),
            false => Host::F32(self.value.iter().map(|&v| v as f32).collect()),
        }
    }
}

/// The folder of golden vectors.
pub struct Vectors {
    folder: PathBuf,
    pub cases: Vec<Case>,
    files: RefCell<HashMap<String, Rc<Vec<u8>>>>,
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_string()).collect()
}

/// The golden vectors under `KILN_GOLDEN`; without the variable the test says that it was skipped.
pub fn open() -> Option<Vectors> {
    let Ok(folder) = std::env::var("KILN_GOLDEN") else {
        println!("skipped: KILN_GOLDEN does not name the folder of golden vectors");
        return None;
    };
    let folder = PathBuf::from(folder);
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).expect("manifest.json");
    let manifest: Value = serde_json::from_str(&manifest).expect("manifest.json");
    let cases = manifest["cases"].as_array().unwrap().iter().map(|c| Case {
        name: c["case"].as_str().unwrap().into(),
        op: c["op"].as_str().unwrap().into(),
        attrs: c["attrs"].clone(),
        inputs: strings(&c["inputs"]),
        outputs: strings(&c["outputs"]),
        upstream: c["upstream"].as_str().map(Into::into),
        grads: strings(&c["grads"]),
        file: c["file"].as_str().unwrap().into(),
    });
    Some(Vectors { cases: cases.collect(), folder, files: RefCell::default() })
}

impl Vectors {
    fn file(&self, name: &str) -> Rc<Vec<u8>> {
        let mut files = self.files.borrow_mut();
        let load = || Rc::new(std::fs::read(self.folder.join(name)).expect("a golden file"));
        files.entry(name.into()).or_insert_with(load).clone()
    }

    /// A tensor of a case.
    pub fn tensor(&self, case: &Case, name: &str) -> Golden {
        self.named(&case.file, &format!("{}/{name}", case.name))
    }

    /// A tensor of a file under its full name.
    pub fn named(&self, file: &str, name: &str) -> Golden {
        let bytes = self.file(file);
        let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let view = tensors.tensor(name).unwrap_or_else(|e| panic!("{file}: {name}: {e}"));
        let words = view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        let (integer, value): (bool, Vec<f64>) = match view.dtype() {
            Dtype::F32 => (false, words.map(|b| f64::from(f32::from_le_bytes(b))).collect()),
            Dtype::I32 => (true, words.map(|b| f64::from(i32::from_le_bytes(b))).collect()),
            other => panic!("{file}: {name}: {other:?}"),
        };
        Golden { value: Array::from_shape_vec(IxDyn(view.shape()), value).unwrap(), integer }
    }

    /// The names of a file's tensors.
    pub fn names(&self, file: &str) -> Vec<String> {
        let bytes = self.file(file);
        let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        tensors.names().into_iter().map(Into::into).collect()
    }
}

/// The largest difference in units of what is allowed, which must stay below 1.
///
/// In `f64`, 1e-5 + 1e-5 |b|: the files are rounded to `f32`. In `f32`, 2e-5 (scale + |b|), with the largest
/// |b| of the tensor as scale: the terms that a sum of a tensor's size is made of are no larger, and `f32` loses
/// some 6e-8 of them a time.
pub fn compare(what: &str, got: &[f64], want: &[f64], double: bool) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.0f64, |m, w| m.max(w.abs()));
    let allowed = |w: f64| if double { 1e-5 + 1e-5 * w.abs() } else { 2e-5 * (scale + w.abs()) + 1e-9 };
    let mut worst = 0.0f64;
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let units = (g - w).abs() / allowed(w);
        assert!(units <= 1.0, "{what}[{i}] is {g}, PyTorch says {w}: {units:.2} times what is allowed");
        worst = worst.max(units);
    }
    worst
}

pub fn flat(array: &Array) -> Vec<f64> {
    array.iter().copied().collect()
}

/// Rows of the hyper-parameter table: learning rate and Adam's bias corrections.
pub fn hyper_table(steps: usize, lr: f64, beta1: f64, beta2: f64) -> Vec<f32> {
    let row = |t: i32| [lr as f32, (1.0 - beta1.powi(t)) as f32, (1.0 - beta2.powi(t)) as f32, 0.0];
    (1..=steps as i32).flat_map(row).collect()
}
