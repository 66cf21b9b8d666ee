//! The table in README of what Kiln has: made from the code, so that it cannot go stale.

use std::path::Path;

use kiln::{
    device::Device,
    kernel::{Binary, Unary},
    nn::{Activation, Initializer, Layer, Loss, Optimizer, Recipe, Schedule, metrics::Metric},
};

const BEGIN: &str = "<!-- catalogue: written by tests/catalogue.rs, with KILN_BLESS=1 -->\n";
const END: &str = "<!-- end of catalogue -->\n";

/// `` `huber` ``, or with the other names that are understood: `` `dense` (linear) ``.
fn entry(name: &str, others: &[&str]) -> String {
    let others: Vec<&str> = others.iter().copied().filter(|other| *other != name).collect();
    if others.is_empty() { format!("`{name}`") } else { format!("`{name}` ({})", others.join(", ")) }
}

fn row(kind: &str, entries: impl IntoIterator<Item = String>) -> String {
    format!("| {kind} | {} |\n", entries.into_iter().collect::<Vec<_>>().join(", "))
}

/// `GlobalAvgPool2d` as `global_avg_pool2d`.
fn snake(variant: &str) -> String {
    let mut name = String::new();
    for (i, c) in variant.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// What `kiln_graph` records, less what only backward passes and the planner do.
fn operations() -> Vec<String> {
    let functions = Unary::ALL.iter().map(|f| f.name()).chain(Binary::ALL.iter().map(|f| f.name()));
    let others = kiln::graph::ops::VARIANTS
        .iter()
        .filter(|v| !v.ends_with("Backward") && !v.contains("BackwardInput"));
    let others =
        others.filter(|v| !["Unary", "Binary", "Conv2dBackwardWeight"].contains(v)).map(|v| snake(v));
    others.chain(functions.map(String::from)).map(|name| entry(&name, &[])).collect()
}

fn catalogue() -> String {
    let named = |list: &[(&str, &[&str])]| -> Vec<String> {
        list.iter().map(|(name, others)| entry(name, others)).collect()
    };
    let losses = Loss::NAMES.iter().map(|loss| {
        let others: Vec<&str> = loss.aliases.iter().chain(loss.keras).copied().chain(loss.pytorch).collect();
        entry(loss.name, &others)
    });
    let plain = |names: &[&str]| -> Vec<String> { names.iter().map(|name| entry(name, &[])).collect() };
    let activations = Activation::ALL.iter().map(|f| entry(&f.to_string(), &[]));
    let mut table = String::from("| what | names in recipes (and others that are understood) |\n|---|---|\n");
    table += &row("layers", named(Layer::NAMES));
    table += &row("activations", activations);
    table += &row("initializers", named(&Initializer::NAMES));
    table += &row("losses", losses);
    table += &row("optimizers", plain(&Optimizer::NAMES));
    table += &row("schedules", plain(&Schedule::NAMES));
    table += &row("metrics", named(&Metric::NAMES));
    table += &row("graph operations", operations());
    table
}

#[test]
fn readme_lists_what_there_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, end) =
        (text.find(BEGIN).expect("a begin mark") + BEGIN.len(), text.find(END).expect("an end mark"));
    let want = catalogue();
    if std::env::var("KILN_BLESS").is_ok_and(|v| v == "1") {
        let blessed = format!("{}{want}{}", &text[..start], &text[end..]);
        std::fs::write(&path, blessed).unwrap();
        return;
    }
    assert!(
        text[start..end] == want,
        "README's catalogue is not what the code has; run KILN_BLESS=1 cargo test --test catalogue, and look at it"
    );
}

/// The recipe that the recipes' page explains is one, and so are its fragments.
#[test]
fn the_recipes_page_shows_what_works() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes/README.md");
    let text = std::fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> =
        text.split("```toml\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    let [whole, residual, outputs] = blocks[..] else { panic!("three blocks of TOML") };
    let recipe = Recipe::parse(whole, "the page's").unwrap();
    recipe.trainer(&Device::cpu(), &[], 1).unwrap();
    // the fragments instead of the layers
    let start = &whole[..whole.find("[[layers]]").unwrap()];
    let joined = Recipe::parse(&format!("{start}{residual}"), "residual").unwrap();
    assert_eq!(joined.model().unwrap().output_shape().unwrap().dims(), [16, 28, 28]);
    let heads = ["head", "early_head"].map(|name| {
        format!("[[layers]]\ntype = \"dense\"\nname = \"{name}\"\nunits = 10\ninputs = [\"flat\"]\n")
    });
    let flat = "[[layers]]\ntype = \"flatten\"\nname = \"flat\"\n";
    let several = Recipe::parse(&format!("{start}{flat}{}{outputs}", heads.concat()), "several").unwrap();
    assert_eq!(several.model().unwrap().output_shapes().unwrap().len(), 2);
}
