//! Names of losses, and how they are written in files.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeMap};

use super::{CrossEntropyOptions, Loss};
use crate::named::{Named, unknown};

/// What a loss is called, here and elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossNames {
    /// The name that Kiln writes.
    pub name: &'static str,
    /// Other names that are understood.
    pub aliases: &'static [&'static str],
    /// The names in Keras, understood too.
    pub keras: &'static [&'static str],
    /// The name in PyTorch, understood too.
    pub pytorch: Option<&'static str>,
}

const fn names(
    name: &'static str,
    aliases: &'static [&'static str],
    keras: &'static [&'static str],
    pytorch: Option<&'static str>,
) -> LossNames {
    LossNames { name, aliases, keras, pytorch }
}

impl Loss {
    /// Every loss by the names that are understood, small and large letters alike.
    ///
    #[doc = include_str!("names.md")]
    pub const NAMES: [LossNames; 16] = [
        names(
            "cross_entropy",
            &["softmax_cross_entropy"],
            &["sparse_categorical_crossentropy", "categorical_crossentropy"],
            Some("CrossEntropyLoss"),
        ),
        names("nll_loss", &["nll", "negative_log_likelihood"], &[], Some("NLLLoss")),
        names("binary_cross_entropy", &["bce"], &["binary_crossentropy"], Some("BCELoss")),
        names("binary_cross_entropy_with_logits", &["bce_with_logits"], &[], Some("BCEWithLogitsLoss")),
        names("mean_squared_error", &["mse"], &["mean_squared_error"], Some("MSELoss")),
        names("mean_absolute_error", &["mae", "l1"], &["mean_absolute_error"], Some("L1Loss")),
        names("mean_absolute_percentage_error", &["mape"], &["mean_absolute_percentage_error"], None),
        names("mean_squared_logarithmic_error", &["msle"], &["mean_squared_logarithmic_error"], None),
        names("huber", &[], &["huber"], Some("HuberLoss")),
        names("log_cosh", &["logcosh"], &["log_cosh"], None),
        names("hinge", &[], &["hinge"], None),
        names("squared_hinge", &[], &["squared_hinge"], None),
        names("categorical_hinge", &[], &["categorical_hinge"], None),
        names("kl_divergence", &["kld", "kullback_leibler_divergence"], &["kl_divergence"], None),
        names("poisson", &[], &["poisson"], None),
        names("cosine_similarity", &["cosine"], &["cosine_similarity"], None),
    ];

    /// The name that stands for it in recipes: the first of [`Loss::NAMES`].
    pub fn name(&self) -> &'static str {
        match self {
            Loss::CrossEntropy | Loss::CrossEntropyWith(_) => "cross_entropy",
            Loss::NllLoss => "nll_loss",
            Loss::BinaryCrossEntropy => "binary_cross_entropy",
            Loss::BinaryCrossEntropyWithLogits => "binary_cross_entropy_with_logits",
            Loss::MeanSquaredError => "mean_squared_error",
            Loss::MeanAbsoluteError => "mean_absolute_error",
            Loss::MeanAbsolutePercentageError => "mean_absolute_percentage_error",
            Loss::MeanSquaredLogarithmicError => "mean_squared_logarithmic_error",
            Loss::Huber { .. } => "huber",
            Loss::LogCosh => "log_cosh",
            Loss::Hinge => "hinge",
            Loss::SquaredHinge => "squared_hinge",
            Loss::CategoricalHinge => "categorical_hinge",
            Loss::KlDivergence => "kl_divergence",
            Loss::Poisson => "poisson",
            Loss::CosineSimilarity => "cosine_similarity",
        }
    }

    /// The loss of a name in [`Loss::NAMES`], with its usual settings.
    ///
    /// # Errors
    /// If nothing is called so; the message has the nearest names.
    pub fn named(name: &str) -> Result<Self, String> {
        let known = Self::NAMES.iter().find(|n| n.all().any(|known| known.eq_ignore_ascii_case(name)));
        let Some(known) = known else {
            let all: Vec<&str> = Self::NAMES.iter().flat_map(LossNames::all).collect();
            return Err(unknown("loss", name, &all, &Self::NAMES.map(|n| n.name)));
        };
        Ok(match known.name {
            "cross_entropy" => Loss::CrossEntropy,
            "nll_loss" => Loss::NllLoss,
            "binary_cross_entropy" => Loss::BinaryCrossEntropy,
            "binary_cross_entropy_with_logits" => Loss::BinaryCrossEntropyWithLogits,
            "mean_squared_error" => Loss::MeanSquaredError,
            "mean_absolute_error" => Loss::MeanAbsoluteError,
            "mean_absolute_percentage_error" => Loss::MeanAbsolutePercentageError,
            "mean_squared_logarithmic_error" => Loss::MeanSquaredLogarithmicError,
            "huber" => Loss::Huber { delta: 1.0 },
            "log_cosh" => Loss::LogCosh,
            "hinge" => Loss::Hinge,
            "squared_hinge" => Loss::SquaredHinge,
            "categorical_hinge" => Loss::CategoricalHinge,
            "kl_divergence" => Loss::KlDivergence,
            "poisson" => Loss::Poisson,
            _ => Loss::CosineSimilarity,
        })
    }
}

impl LossNames {
    /// All names.
    pub fn all(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name)
            .chain(self.aliases.iter().copied())
            .chain(self.keras.iter().copied())
            .chain(self.pytorch)
    }
}

/// A name, or a table where a setting is not the usual one.
impl Serialize for Loss {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Loss::Huber { delta } if *delta != 1.0 => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("type", self.name())?;
                map.serialize_entry("delta", delta)?;
                map.end()
            }
            Loss::CrossEntropyWith(options) if *options != CrossEntropyOptions::default() => {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("type", self.name())?;
                if options.label_smoothing != 0.0 {
                    map.serialize_entry("label_smoothing", &options.label_smoothing)?;
                }
                if !options.class_weights.is_empty() {
                    map.serialize_entry("class_weights", &options.class_weights)?;
                }
                map.end()
            }
            _ => serializer.serialize_str(self.name()),
        }
    }
}

impl<'de> Deserialize<'de> for Loss {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Loss::from_named(Named::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Loss {
    fn from_named(mut named: Named) -> Result<Self, String> {
        let mut loss = Loss::named(&named.name)?;
        let mut known: &[&str] = &[];
        if let Loss::Huber { delta } = &mut loss {
            known = &["delta"];
            if let Some(value) = named.number("delta")? {
                *delta = value as f32;
            }
        }
        if loss == Loss::CrossEntropy {
            known = &["label_smoothing", "class_weights"];
            let weights = named.numbers("class_weights")?.unwrap_or_default();
            let options = CrossEntropyOptions {
                label_smoothing: named.number("label_smoothing")?.unwrap_or(0.0) as f32,
                class_weights: weights.into_iter().map(|w| w as f32).collect(),
            };
            if options != CrossEntropyOptions::default() {
                loss = Loss::CrossEntropyWith(options);
            }
        }
        named.finish(loss.name(), known)?;
        loss.check().map_err(|e| e.to_string())?;
        Ok(loss)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_understood_and_lead_to_one_loss() {
        let mut seen = HashSet::new();
        for names in Loss::NAMES {
            for name in names.all() {
                let loss = Loss::named(name).unwrap();
                assert_eq!(loss.name(), names.name, "{name}");
                assert_eq!(Loss::named(&name.to_uppercase()).unwrap(), loss);
            }
            let unique: HashSet<String> = names.all().map(str::to_lowercase).collect();
            for name in unique {
                assert!(seen.insert(name.clone()), "{name} names two losses");
            }
            assert_eq!(Loss::named(names.name).unwrap().name(), names.name);
        }
        for (wrong, want) in [("hubr", "did you mean huber?"), ("zzzzzzzzzz", "there are cross_entropy, ")] {
            let message = Loss::named(wrong).unwrap_err();
            assert!(message.contains(want), "{message}");
        }
    }

    /// The table of the documentation is that of the code.
    #[test]
    fn the_documentation_has_every_name() {
        let mut table = String::from("| loss | also | Keras | PyTorch |\n|---|---|---|---|\n");
        let words = |names: &[&str]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        for n in Loss::NAMES {
            let pytorch: Vec<&str> = n.pytorch.into_iter().collect();
            let (also, keras, pytorch) = (words(n.aliases), words(n.keras), words(&pytorch));
            table += &format!("| `{}` | {also} | {keras} | {pytorch} |\n", n.name);
        }
        assert_eq!(include_str!("names.md"), table);
    }

    #[test]
    fn files_hold_names_or_tables() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct File {
            loss: Loss,
        }
        let weighted = CrossEntropyOptions { label_smoothing: 0.25, class_weights: vec![1.0, 2.5] };
        for (text, loss) in [
            ("loss = \"mse\"", Loss::MeanSquaredError),
            ("[loss]\ntype = \"huber\"\n", Loss::Huber { delta: 1.0 }),
            ("[loss]\ntype = \"HuberLoss\"\ndelta = 2\n", Loss::Huber { delta: 2.0 }),
            ("[loss]\ntype = \"cross_entropy\"\nlabel_smoothing = 0\n", Loss::CrossEntropy),
            (
                "[loss]\ntype = \"cross_entropy\"\nlabel_smoothing = 0.25\nclass_weights = [1, 2.5]\n",
                Loss::CrossEntropyWith(weighted),
            ),
        ] {
            let file: File = toml::from_str(text).unwrap();
            assert_eq!(file.loss, loss);
            let again: File = toml::from_str(&toml::to_string(&file).unwrap()).unwrap();
            assert_eq!(again, file);
            let json: File = serde_json::from_str(&serde_json::to_string(&file).unwrap()).unwrap();
            assert_eq!(json, file);
        }
        for (text, want) in [
            ("loss = \"hinged\"", "did you mean hinge"),
            ("loss = 3", "expected a name, or a table"),
            ("[loss]\ndelta = 1.0", "missing field `type`"),
            ("[loss]\ntype = \"huber\"\ndetla = 1.0", "unknown field `detla`, huber takes delta"),
            ("[loss]\ntype = \"hinge\"\ndelta = 1.0", "unknown field `delta`, hinge has no settings"),
            ("[loss]\ntype = \"huber\"\ndelta = \"a\"", "`delta` must be a number"),
            ("[loss]\ntype = \"huber\"\ndelta = 0", "delta must be a number above 0, is 0"),
            ("[loss]\ntype = \"cross_entropy\"\nlabel_smoothing = 1", "must be in [0, 1), is 1"),
            ("[loss]\ntype = \"cross_entropy\"\nclass_weights = [1, -1]", "at least 0, one is -1"),
            ("[loss]\ntype = \"cross_entropy\"\nclass_weights = [0.0]", "are all 0"),
        ] {
            let message = toml::from_str::<File>(text).unwrap_err().to_string();
            assert!(message.contains(want), "{text}: {message}");
        }
    }
}
