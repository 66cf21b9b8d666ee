//! Names of metrics, and how they are written in files.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeMap};

use super::{Average, Metric};
use crate::named::{Named, unknown};

impl Average {
    /// `auto`, `binary`, `macro`, `micro` or `weighted`.
    pub fn name(&self) -> &'static str {
        match self {
            Average::Auto => "auto",
            Average::Binary => "binary",
            Average::Macro => "macro",
            Average::Micro => "micro",
            Average::Weighted => "weighted",
        }
    }

    fn named(name: &str) -> Result<Self, String> {
        let all = [Average::Auto, Average::Binary, Average::Macro, Average::Micro, Average::Weighted];
        let found = all.into_iter().find(|a| a.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| unknown("average", name, &all.map(|a| a.name()), &all.map(|a| a.name())))
    }
}

impl Metric {
    /// Every metric: the name that Kiln writes, then other names that are understood, in small letters or large.
    pub const NAMES: [(&'static str, &'static [&'static str]); 10] = [
        ("accuracy", &["acc", "categorical_accuracy", "sparse_categorical_accuracy"]),
        (
            "top_k_accuracy",
            &[
                "top_k",
                "top_k_categorical_accuracy",
                "sparse_top_k_categorical_accuracy",
                "top_k_accuracy_score",
            ],
        ),
        ("binary_accuracy", &["BinaryAccuracy"]),
        ("precision", &["precision_score"]),
        ("recall", &["recall_score"]),
        ("f1", &["f1_score"]),
        ("roc_auc", &["auc", "roc_auc_score"]),
        ("mean_absolute_error", &["mae"]),
        ("mean_squared_error", &["mse"]),
        ("r2", &["r2_score"]),
    ];

    /// The first of its names, with settings in it: `top_5_accuracy`, `micro_f1`; of the usual ones, `f1`.
    pub fn name(&self) -> String {
        match self {
            Metric::TopKAccuracy { k } => format!("top_{k}_accuracy"),
            Metric::Precision { average } | Metric::Recall { average } | Metric::F1 { average }
                if *average != Average::default() =>
            {
                format!("{}_{}", average.name(), self.kind())
            }
            _ => self.kind().into(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::TopKAccuracy { .. } => "top_k_accuracy",
            Metric::BinaryAccuracy { .. } => "binary_accuracy",
            Metric::Precision { .. } => "precision",
            Metric::Recall { .. } => "recall",
            Metric::F1 { .. } => "f1",
            Metric::RocAuc => "roc_auc",
            Metric::MeanAbsoluteError => "mean_absolute_error",
            Metric::MeanSquaredError => "mean_squared_error",
            Metric::R2 => "r2",
        }
    }

    /// The metric of a name in [`Metric::NAMES`] with its usual settings, or of a name with settings in it.
    ///
    /// # Errors
    /// If nothing is called so; the message has the nearest names.
    pub fn named(name: &str) -> Result<Self, String> {
        let lower = name.to_lowercase();
        if let Some(k) = lower.strip_prefix("top_").and_then(|rest| rest.strip_suffix("_accuracy"))
            && let Ok(k) = k.parse()
        {
            return if k > 0 {
                Ok(Metric::TopKAccuracy { k })
            } else {
                Err(format!("`{name}`: at least the largest output must count"))
            };
        }
        if let Some((average, rest)) = lower.split_once('_')
            && let (Ok(average), Ok(metric)) = (Average::named(average), Self::usual(rest))
            && let Some(metric) = metric.averaged(average)
        {
            return Ok(metric);
        }
        Self::usual(&lower)
    }

    fn usual(name: &str) -> Result<Self, String> {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        let known = Self::NAMES.iter().find(|(main, others)| is(main) || others.iter().any(|o| is(o)));
        let Some((known, _)) = known else {
            let all: Vec<&str> =
                Self::NAMES.iter().flat_map(|(n, others)| [&[*n], *others].concat()).collect();
            return Err(unknown("metric", name, &all, &Self::NAMES.map(|n| n.0)));
        };
        let average = Average::default();
        Ok(match *known {
            "accuracy" => Metric::Accuracy,
            "top_k_accuracy" => Metric::TopKAccuracy { k: 5 },
            "binary_accuracy" => Metric::BinaryAccuracy { threshold: 0.5 },
            "precision" => Metric::Precision { average },
            "recall" => Metric::Recall { average },
            "f1" => Metric::F1 { average },
            "roc_auc" => Metric::RocAuc,
            "mean_absolute_error" => Metric::MeanAbsoluteError,
            "mean_squared_error" => Metric::MeanSquaredError,
            _ => Metric::R2,
        })
    }

    /// With this average, where it has one.
    fn averaged(self, average: Average) -> Option<Self> {
        match self {
            Metric::Precision { .. } => Some(Metric::Precision { average }),
            Metric::Recall { .. } => Some(Metric::Recall { average }),
            Metric::F1 { .. } => Some(Metric::F1 { average }),
            _ => None,
        }
    }
}

/// The name; a table only for a threshold that is not the usual one.
impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Metric::BinaryAccuracy { threshold } if *threshold != 0.5 => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("type", self.kind())?;
                map.serialize_entry("threshold", threshold)?;
                map.end()
            }
            _ => serializer.serialize_str(&self.name()),
        }
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Metric::from_named(Named::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Metric {
    fn from_named(mut named: Named) -> Result<Self, String> {
        let mut metric = Metric::named(&named.name)?;
        let mut known: &[&str] = &[];
        match &mut metric {
            Metric::TopKAccuracy { k } => {
                known = &["k"];
                match named.number("k")? {
                    Some(value) if value >= 1.0 && value.fract() == 0.0 => *k = value as usize,
                    Some(value) => return Err(format!("k must be a whole number of at least 1, is {value}")),
                    None => {}
                }
            }
            Metric::BinaryAccuracy { threshold } => {
                known = &["threshold"];
                match named.number("threshold")? {
                    Some(value) if value.is_finite() => *threshold = value as f32,
                    Some(value) => return Err(format!("threshold must be finite, is {value}")),
                    None => {}
                }
            }
            Metric::Precision { average } | Metric::Recall { average } | Metric::F1 { average } => {
                known = &["average"];
                if let Some(value) = named.text("average")? {
                    *average = Average::named(&value)?;
                }
            }
            _ => {}
        }
        named.finish(metric.kind(), known)?;
        Ok(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        metric: Metric,
    }

    #[test]
    fn names_lead_to_one_metric() {
        for (main, others) in Metric::NAMES {
            let metric = Metric::named(main).unwrap();
            assert_eq!(metric.kind(), main);
            assert_eq!(Metric::named(&metric.name()), Ok(metric), "{main}");
            for other in others {
                assert_eq!(Metric::named(other), Ok(metric), "{other}");
            }
            let file = File { metric };
            let again: File = toml::from_str(&toml::to_string(&file).unwrap()).unwrap();
            assert_eq!(again, file);
        }
        for (text, metric) in [
            ("metric = \"top_7_accuracy\"", Metric::TopKAccuracy { k: 7 }),
            ("metric = { type = \"top_k_accuracy\", k = 2 }", Metric::TopKAccuracy { k: 2 }),
            ("metric = \"weighted_recall\"", Metric::Recall { average: Average::Weighted }),
            ("metric = { type = \"f1\", average = \"micro\" }", Metric::F1 { average: Average::Micro }),
            (
                "metric = { type = \"binary_accuracy\", threshold = 0.25 }",
                Metric::BinaryAccuracy { threshold: 0.25 },
            ),
        ] {
            let file: File = toml::from_str(text).unwrap();
            assert_eq!(file.metric, metric);
            let again: File = toml::from_str(&toml::to_string(&file).unwrap()).unwrap();
            assert_eq!(again, file);
        }
        for (text, want) in [
            ("metric = \"acuracy\"", "did you mean accuracy"),
            ("metric = \"top_0_accuracy\"", "at least the largest output must count"),
            ("metric = { type = \"top_k\", k = 1.5 }", "whole number of at least 1, is 1.5"),
            (
                "metric = { type = \"f1\", average = \"mikro\" }",
                "there is no average `mikro`; did you mean micro",
            ),
            ("metric = { type = \"r2\", k = 1 }", "r2 has no settings"),
        ] {
            let message = toml::from_str::<File>(text).unwrap_err().to_string();
            assert!(message.contains(want), "{text}: {message}");
        }
    }
}
