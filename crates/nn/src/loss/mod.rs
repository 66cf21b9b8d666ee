//! What training makes small: names and settings here, formulas in `record`, what a loss takes in `targets`.

mod names;
pub(crate) mod record;
mod targets;

use crate::NnError;

pub use names::LossNames;
pub use targets::TargetKind;

/// What training makes small.
///
/// p is the network's output, t the target, C the number of classes, a mean over the elements of a row and then over
/// the rows unless something else is said. Class labels count as rows of zeros with a one at the label where a loss
/// takes targets of the output's shape; with two classes and one output as 0 and 1.
///
/// In recipes and model files a loss is a name of [`Loss::NAMES`], or a table with settings:
///
/// ```
/// use kiln_nn::Loss;
/// #[derive(serde::Deserialize)]
/// struct File {
///     loss: Loss,
/// }
/// let file: File = toml::from_str("loss = { type = \"huber\", delta = 0.5 }")?;
/// assert_eq!(file.loss, Loss::Huber { delta: 0.5 });
/// let file: File = toml::from_str("loss = \"sparse_categorical_crossentropy\"")?;
/// assert_eq!(file.loss, Loss::CrossEntropy);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Loss {
    /// `-log softmax(p)` at the label, of class labels; `-Σ_c t_c log softmax(p)_c`, of probabilities. The network's
    /// output are logits; a softmax at its end is part of the loss. Keras' `sparse_categorical_crossentropy` and
    /// `categorical_crossentropy` with `from_logits=True`, PyTorch's `CrossEntropyLoss`.
    CrossEntropy,
    /// [`Loss::CrossEntropy`] with settings.
    CrossEntropyWith(CrossEntropyOptions),
    /// `-p` at the label: p are logarithms of probabilities, as log-softmax gives them, all finite. PyTorch's
    /// `NLLLoss`.
    NllLoss,
    /// `-t log p - (1 - t) log(1 - p)` of probabilities, logarithms at least -100 (below a probability of 1e-37 they
    /// are -100). PyTorch's `BCELoss`; Keras' `binary_crossentropy` holds p to 1e-7 and 1 - 1e-7 instead.
    BinaryCrossEntropy,
    /// [`Loss::BinaryCrossEntropy`] of sigmoid(p), as `softplus(p) - p t`, which no p overflows. PyTorch's
    /// `BCEWithLogitsLoss`.
    BinaryCrossEntropyWithLogits,
    /// `(p - t)²`. PyTorch's `MSELoss`.
    MeanSquaredError,
    /// `|p - t|`. PyTorch's `L1Loss`.
    MeanAbsoluteError,
    /// `100 |t - p| / max(|t|, 1e-7)`, as Keras.
    MeanAbsolutePercentageError,
    /// `(log(1 + max(p, 1e-7)) - log(1 + max(t, 1e-7)))²`, as Keras.
    MeanSquaredLogarithmicError,
    /// `(p - t)² / 2` up to a difference of delta, `delta (|p - t| - delta / 2)` beyond (Huber, 1964). PyTorch's
    /// `HuberLoss`.
    Huber {
        /// Where the square ends and the line begins; 1 unless it is given.
        delta: f32,
    },
    /// `log cosh(p - t)`, as `a + softplus(-2 a) - log 2` with `a = |p - t|`, which nothing overflows. Keras.
    LogCosh,
    /// `max(1 - t p, 0)` with targets -1 and 1, which class labels become. Keras.
    Hinge,
    /// The square of [`Loss::Hinge`]. Keras.
    SquaredHinge,
    /// `max(max_c (1 - t_c) p_c - Σ_c t_c p_c + 1, 0)`. Keras.
    CategoricalHinge,
    /// `Σ_c t_c log(t_c / p_c)` of probabilities, both at least 1e-7. Keras, which also has both at most 1; PyTorch's
    /// `KLDivLoss` takes logarithms.
    KlDivergence,
    /// `p - t log(p + 1e-7)` of a rate. Keras.
    Poisson,
    /// `-Σ_c p_c t_c / (|p| |t|)`, the squared lengths at least 1e-12. Keras, with Keras' sign.
    ///
    /// Here, in [`Loss::CategoricalHinge`] and in [`Loss::KlDivergence`] c counts along an output's last axis; where it has
    /// others, the loss of a row is the mean over them.
    CosineSimilarity,
}

/// Settings of [`Loss::CrossEntropyWith`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CrossEntropyOptions {
    /// s in [0, 1): targets become `(1 - s) t + s / C`.
    pub label_smoothing: f32,
    /// A factor of each class' term, at least 0; empty for none. Of class labels the mean is `Σ loss / Σ weight`
    /// with each row's weight that of its label, of probabilities `Σ loss / rows`: PyTorch's `weight`. An evaluation sums
    /// over all rows, a step over those of its batch; an epoch's training loss is the mean of its batches' by their rows.
    pub class_weights: Vec<f32>,
}

impl Loss {
    /// What settings are taken from where there are none.
    pub(crate) fn cross_entropy_options(&self) -> Option<CrossEntropyOptions> {
        match self {
            Loss::CrossEntropy => Some(CrossEntropyOptions::default()),
            Loss::CrossEntropyWith(options) => Some(options.clone()),
            _ => None,
        }
    }

    /// Whether a softmax at the end of the network is part of the loss, so that the loss takes what goes into it.
    pub fn includes_softmax(&self) -> bool {
        matches!(self, Loss::CrossEntropy | Loss::CrossEntropyWith(_))
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// If one is out of its range, with the setting and its value.
    pub fn check(&self) -> Result<(), NnError> {
        match self.wrong_setting() {
            Some(message) => Err(NnError::Settings(format!("loss {}: {message}", self.name()))),
            None => Ok(()),
        }
    }

    fn wrong_setting(&self) -> Option<String> {
        match self {
            Loss::Huber { delta } if !(delta.is_finite() && *delta > 0.0) => {
                Some(format!("delta must be a number above 0, is {delta}"))
            }
            Loss::CrossEntropyWith(options) => {
                let smoothing = options.label_smoothing;
                let weights = &options.class_weights;
                if !(0.0..1.0).contains(&smoothing) {
                    return Some(format!("label_smoothing must be in [0, 1), is {smoothing}"));
                }
                if let Some(weight) = weights.iter().find(|w| !(w.is_finite() && **w >= 0.0)) {
                    return Some(format!("class_weights must be numbers of at least 0, one is {weight}"));
                }
                if !weights.is_empty() && weights.iter().all(|&w| w == 0.0) {
                    return Some("class_weights are all 0, so that nothing is left to train on".into());
                }
                None
            }
            _ => None,
        }
    }
}
