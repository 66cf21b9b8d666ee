//! Licences, sources and duplicates of everything that Kiln is built of, against the lists of `deny.toml`. What cargo-deny
//! would say, from what Cargo knows without a network.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn lists() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap()
}

/// Every crate of every platform. A build downloads those of its own platform only; the others come with `cargo fetch`,
/// which scripts/test does first, or now.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let metadata = |more: &[&str]| {
        let mut command = Command::new(&cargo);
        command.current_dir(root()).args(["metadata", "--locked", "--format-version", "1", "--all-features"]);
        command.args(more).output().unwrap()
    };
    let mut output = metadata(&["--offline"]);
    if !output.status.success() {
        output = metadata(&[]);
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Whether an SPDX expression holds with what is allowed. `/` is how OR was written once.
fn holds(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let whole = any(&words, &mut at, allowed);
    whole && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut is_held = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        is_held |= all(words, at, allowed);
    }
    is_held
}

fn all(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut is_held = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        is_held &= one(words, at, allowed);
    }
    is_held
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let is_held = any(words, at, allowed);
        *at += 1;
        return is_held;
    }
    if words.get(*at) == Some(&"WITH") {
        let with = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
        return allowed.contains(with.as_str());
    }
    allowed.contains(word)
}

#[test]
fn licences_are_read_as_they_are_meant() {
    let allowed = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]);
    for (expression, want) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT/Apache-2.0", true),
        ("MIT OR GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR MIT) AND BSD-3-Clause", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("", false),
        ("MIT MIT", false),
    ] {
        assert_eq!(holds(expression, &allowed), want, "{expression}");
    }
}

#[test]
fn licences_and_sources_are_allowed_ones() {
    let lists = lists();
    let texts = |table: &str, key: &str| -> Vec<String> {
        let list = lists[table][key].as_array().unwrap();
        list.iter().map(|text| text.as_str().unwrap().to_string()).collect()
    };
    let licences = texts("licenses", "allow");
    let licences: BTreeSet<&str> = licences.iter().map(String::as_str).collect();
    let registries = texts("sources", "allow-registry");
    let mut seen = 0;
    for package in packages() {
        let name = format!("{} {}", package["name"], package["version"]);
        let expression = package["license"].as_str().unwrap_or_default();
        assert!(holds(expression, &licences), "{name}: its licence \"{expression}\" is not in deny.toml");
        if let Some(source) = package["source"].as_str() {
            seen += 1;
            let registry = source.strip_prefix("registry+").unwrap_or(source);
            assert!(registries.iter().any(|known| known == registry), "{name} comes from {source}");
        }
    }
    assert!(seen > 100, "{seen} packages are too few to be all");
}

#[test]
fn no_crate_is_there_twice_but_those_that_must() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let text = |key: &str| package[key].as_str().unwrap().to_string();
        versions.entry(text("name")).or_default().insert(text("version"));
    }
    let twice: BTreeSet<&str> =
        versions.iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name.as_str()).collect();
    let lists = lists();
    let skipped = lists["bans"]["skip"].as_array().unwrap();
    let skipped: BTreeSet<&str> = skipped.iter().map(|entry| entry["crate"].as_str().unwrap()).collect();
    let new: Vec<_> = twice.difference(&skipped).map(|name| (name, &versions[*name])).collect();
    assert!(new.is_empty(), "there twice, and not in deny.toml: {new:?}");
    let gone: Vec<_> = skipped.difference(&twice).collect();
    assert!(gone.is_empty(), "in deny.toml, and no longer there twice: {gone:?}");
}
