use kiln_graph::{Graph, GraphError, Tensor};
use serde::{Deserialize, Serialize};

/// What training makes small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Cross entropy of class indices on logits, the mean over the batch. A softmax at the end of the network
    /// is part of it. Keras' `sparse_categorical_crossentropy(from_logits=True)`, PyTorch's
    /// `CrossEntropyLoss`.
    #[serde(alias = "sparse_categorical_crossentropy", alias = "categorical_crossentropy")]
    CrossEntropy,
    /// The mean of (prediction - target)² over all elements.
    #[serde(alias = "mse")]
    MeanSquaredError,
}

/// A recorded loss.
pub(crate) struct RecordedLoss {
    /// The scalar that is differentiated.
    pub(crate) mean: Tensor,
    /// What is summed over an epoch, with factors, so that the sum divided by the rows is the mean loss;
    /// then, for classification, the number of hits.
    pub(crate) totals: Vec<(Tensor, f32)>,
}

impl Loss {
    /// Whether targets are class indices.
    pub fn is_classification(self) -> bool {
        match self {
            Loss::CrossEntropy => true,
            Loss::MeanSquaredError => false,
        }
    }

    /// Records the loss of a batch of `rows`.
    pub(crate) fn record(
        self,
        g: &mut Graph,
        output: Tensor,
        target: Tensor,
        rows: usize,
    ) -> Result<RecordedLoss, GraphError> {
        g.scoped("loss", |g| match self {
            Loss::CrossEntropy => {
                let (losses, correct) = g.cross_entropy(output, target, 0.0)?;
                Ok(RecordedLoss { mean: g.mean_all(losses)?, totals: vec![(losses, 1.0), (correct, 1.0)] })
            }
            Loss::MeanSquaredError => {
                if g.shape(output)? != g.shape(target)? {
                    let message = format!(
                        "prediction {} and target {} differ in shape",
                        g.shape(output)?,
                        g.shape(target)?
                    );
                    return Err(GraphError::Shape {
                        op: "mean_squared_error".into(),
                        scope: "loss".into(),
                        message,
                    });
                }
                let difference = g.sub(output, target)?;
                let squares = g.square(difference)?;
                let mean = g.mean_all(squares)?;
                Ok(RecordedLoss { mean, totals: vec![(mean, rows as f32)] })
            }
        })
    }
}
