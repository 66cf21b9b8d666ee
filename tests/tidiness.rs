//! Invariants of ARCHITECTURE.md that the text of the sources can show.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder with an ending.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut open = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Lines that are not comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn graph_and_kernel_name_no_backend() {
    for (folder, banned) in [
        ("crates/graph/src", &["wgpu", "kiln_device"][..]),
        ("crates/kernel/src", &["wgpu", "ndarray", "kiln_reference", "kiln_device", "kiln_graph"]),
        ("crates/data/src", &["wgpu", "kiln_device", "kiln_graph"]),
        ("crates/nn/src", &["wgpu"]),
    ] {
        for path in files(folder, "rs") {
            for word in banned {
                assert!(!code(&path).contains(word), "{} names {word}", path.display());
            }
        }
    }
}

/// Whether a text has a word that is no part of another.
fn has_word(text: &str, word: &str) -> bool {
    let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.any(|found| found == word)
}

#[test]
fn unsafe_stays_in_two_modules() {
    // trusted shaders and compiled pipelines from a file, and the matrix product's pointers
    let allowed = [("crates/device/src/trusted.rs", 2), ("crates/reference/src/gemm.rs", 1)];
    let allowed = allowed.map(|(path, times)| (root().join(path), times));
    // a test's allocator, which no program has
    let counting = root().join("tests/allocations.rs");
    // this file names it
    let this = root().join(file!());
    let all = ["crates", "tests", "examples", "benches", "fuzz/readers", "fuzz/fuzz_targets"];
    for path in all.iter().flat_map(|folder| files(folder, "rs")) {
        if allowed.iter().any(|(other, _)| *other == path) || path == this || path == counting {
            continue;
        }
        let text = code(&path).replace("#![forbid(unsafe_code)]", "");
        assert!(!has_word(&text, "unsafe") && !has_word(&text, "unsafe_code"), "{}", path.display());
    }
    for (path, times) in allowed {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.matches("unsafe {").count(),
            times,
            "{}: the exception has grown, or is gone",
            path.display()
        );
        assert_eq!(text.matches("// SAFETY: ").count(), times, "{}: not all is argued", path.display());
    }
    // the others forbid what even an `allow` in a module of theirs could not bring back
    for name in ["cli", "data", "graph", "kernel", "kiln", "nn", "plot"] {
        let path = root().join("crates").join(name).join("src/lib.rs");
        assert!(code(&path).contains("#![forbid(unsafe_code)]"), "{name} does not forbid it");
    }
}

#[test]
fn only_the_program_prints() {
    for path in files("crates", "rs") {
        let name = path.display().to_string();
        if name.contains("crates/cli/") || path.components().any(|c| c.as_os_str() == "tests") {
            continue;
        }
        let text = code(&path);
        // a file's tests may say what they skip
        let library = text.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(!library.contains("println!") && !library.contains("eprintln!"), "{name} prints");
    }
}

#[test]
fn shaders_say_what_they_compute() {
    let shaders = files("shaders", "wgsl");
    assert!(shaders.len() > 20);
    for path in shaders {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//"), "{} does not open with its formula", path.display());
        // sums of real numbers would depend on the order of arrival; marks in whole numbers do not
        let atomics = text.matches("atomic<").count();
        assert_eq!(atomics, text.matches("atomic<u32>").count(), "{} has atomics of numbers", path.display());
        assert!(!text.contains("atomicAdd"), "{} adds in the order of arrival", path.display());
    }
}

#[test]
fn builtin_recipes_are_the_files_of_the_examples() {
    let mut names: Vec<_> = files("examples/recipes", "toml")
        .iter()
        .map(|p| p.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let mut builtin: Vec<_> = kiln::nn::Recipe::names().iter().map(|n| n.to_string()).collect();
    names.sort();
    builtin.sort();
    assert_eq!(names, builtin);
}

/// Numbered without a gap, and each says how it is run.
#[test]
fn examples_say_how_they_are_run() {
    let examples: Vec<PathBuf> = files("examples", "rs")
        .into_iter()
        .filter(|p| p.parent() == Some(&root().join("examples")))
        .collect();
    assert!(examples.len() >= 14);
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for (i, path) in examples.iter().enumerate() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with(&format!("{:02}_", i + 1)), "{name} is out of order");
        let text = fs::read_to_string(path).unwrap();
        let opening: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let run = format!("`cargo run --release --example {name}`");
        assert!(opening.len() > 1 && opening.iter().any(|line| line.contains(&run)), "{name} lacks {run}");
        assert_eq!(text.matches("--example ").count(), 1, "{name} names another example");
        assert!(readme.contains(&format!("examples/{name}.rs")), "README lacks {name}");
    }
}

#[test]
fn the_pages_name_files_that_exist() {
    for page in ["ARCHITECTURE.md", "README.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for word in text.split('`').skip(1).step_by(2).chain(links) {
            let is_path =
                word.contains('/') && word.contains('.') && !word.contains(' ') && !word.contains("DIR");
            if is_path && !word.contains(':') {
                let short = root().join("crates").join(word);
                assert!(
                    root().join(word).exists() || short.exists(),
                    "{page} names {word}, which does not exist"
                );
            }
        }
    }
}
