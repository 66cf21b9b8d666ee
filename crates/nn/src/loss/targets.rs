//! What a loss takes: class labels or numbers, and of which shapes.

use kiln_data::{Split, Targets};
use kiln_graph::{Graph, GraphError, Tensor};
use kiln_kernel::{DType, Shape};

use super::Loss;
use crate::NnError;

/// What a split's targets are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// Labels of this many classes.
    Classes(usize),
    /// Real numbers, of this shape for each row.
    Real(Shape),
    /// The row itself, prepared as the network sees it, of this shape: what an autoencoder gives back.
    Input(Shape),
}

impl TargetKind {
    /// What the targets of a split are.
    pub fn of(split: &Split) -> Self {
        match split.targets() {
            Targets::Classes { classes, .. } => Self::Classes(*classes),
            Targets::Real { shape, .. } => Self::Real(shape.clone()),
            Targets::Input => Self::Input(split.item_shape().clone()),
        }
    }
}

impl Loss {
    /// Whether it makes sense to ask what part of the rows is right: of class labels always; of numbers where the
    /// loss takes them for probabilities or sides; of the rows themselves never.
    pub fn is_classification(&self, targets: &TargetKind) -> bool {
        match targets {
            TargetKind::Classes(_) => true,
            TargetKind::Real(_) => self.is_binary() || self.is_categorical(),
            TargetKind::Input(_) => false,
        }
    }

    /// What a single output that decides between two classes must be above for the second: 1/2 of probabilities, 0 of
    /// what the hinges take.
    pub fn decision_threshold(&self) -> f32 {
        if matches!(self, Loss::Hinge | Loss::SquaredHinge) { 0.0 } else { 0.5 }
    }

    /// Each output is a yes or no of its own.
    pub(super) fn is_binary(&self) -> bool {
        matches!(
            self,
            Loss::BinaryCrossEntropy | Loss::BinaryCrossEntropyWithLogits | Loss::Hinge | Loss::SquaredHinge
        )
    }

    /// The outputs of a row are one choice.
    pub(super) fn is_categorical(&self) -> bool {
        matches!(
            self,
            Loss::CrossEntropy
                | Loss::CrossEntropyWith(_)
                | Loss::NllLoss
                | Loss::CategoricalHinge
                | Loss::KlDivergence
        )
    }

    /// Checks that the loss can compare a network's output, of this shape for each row, with such targets.
    ///
    /// # Errors
    /// If it cannot; the message names the loss, both shapes and what would fit.
    pub fn check_targets(&self, output: &Shape, targets: &TargetKind) -> Result<(), NnError> {
        self.check()?;
        let name = self.name();
        let fail = |message: String| Err(NnError::Settings(message));
        let one = output.elements() == 1;
        match targets {
            TargetKind::Classes(classes) => {
                if *self == Loss::MeanAbsolutePercentageError {
                    return fail(format!(
                        "the loss {name} divides by the targets, which of class labels are 0; use cross_entropy"
                    ));
                }
                let fits = *output == Shape::from([*classes]);
                let choice = self.is_categorical() || *self == Loss::CosineSimilarity;
                if !(fits || (one && *classes == 2 && !choice)) {
                    let or = if *classes == 2 && !choice { " or 1" } else { "" };
                    return fail(format!(
                        "the network's output is {output}, the data have {classes} classes; the loss {name} needs a \
                         last layer of {classes}{or}"
                    ));
                }
                let weights = self.cross_entropy_options().map_or(0, |o| o.class_weights.len());
                if weights > 0 && weights != *classes {
                    return fail(format!(
                        "the loss {name} has {weights} class_weights for {classes} classes"
                    ));
                }
                Ok(())
            }
            TargetKind::Real(_) | TargetKind::Input(_) if *self == Loss::NllLoss => fail(format!(
                "the targets are real numbers, but the loss {name} takes class labels; use cross_entropy for \
                 probabilities, mean_squared_error for other numbers"
            )),
            TargetKind::Real(shape) | TargetKind::Input(shape) => {
                let several = self.is_categorical() || *self == Loss::CosineSimilarity;
                // one number along the axis that is compared
                let one = one || (several && output.dims().last() == Some(&1));
                if several && (one || (self.includes_softmax() && output.rank() != 1)) {
                    return fail(format!(
                        "the targets are real numbers of shape {shape}, the network's output is {output}, but the loss \
                         {name} compares rows of two numbers or more; use binary_cross_entropy_with_logits for one \
                         probability, mean_squared_error for other numbers"
                    ));
                }
                if output != shape && matches!(targets, TargetKind::Input(_)) {
                    return fail(format!(
                        "the output is {output}, the rows that it is to give back are {shape}; end the network in \
                         layers that make it so (conv_transpose2d, upsample2d, reshape)"
                    ));
                }
                if output != shape && !(one && shape.elements() == 1) {
                    let hint = match self.is_categorical() && shape.elements() == 1 {
                        true => {
                            "; of a table whose label is a class, say task = \"classification\" in [data]"
                        }
                        false => "",
                    };
                    return fail(format!(
                        "the network's output is {output}, the targets are {shape}; the loss {name} needs equal \
                         shapes{hint}"
                    ));
                }
                let weights = self.cross_entropy_options().map_or(0, |o| o.class_weights.len());
                if weights > 0 && weights != output.elements() {
                    let classes = output.elements();
                    return fail(format!(
                        "the loss {name} has {weights} class_weights for {classes} classes"
                    ));
                }
                Ok(())
            }
        }
    }

    /// The targets as real numbers of the output's shape, -1 and 1 for the hinges.
    pub(super) fn matching(
        &self,
        g: &mut Graph,
        output: Tensor,
        target: Tensor,
    ) -> Result<Tensor, GraphError> {
        let shape = g.shape(output)?.clone();
        let info = g.info(target)?.clone();
        if info.dtype == DType::F32 {
            if info.shape == shape {
                return Ok(target);
            }
            let rows = shape.dims().first();
            if rows == info.shape.dims().first() && shape.elements() == info.shape.elements() {
                return g.reshape(target, shape);
            }
            return Err(self.error(format!("prediction {shape} and target {} differ in shape", info.shape)));
        }
        let sides = matches!(self, Loss::Hinge | Loss::SquaredHinge);
        let width = shape.elements() / shape.dims().first().copied().unwrap_or(1).max(1);
        if shape.rank() == 0 || info.shape.dims() != &shape.dims()[..1] || (shape.rank() > 2 && width > 1) {
            return Err(self.error(format!(
                "prediction {shape} and class labels {} do not fit: needs [rows, classes] and [rows]",
                info.shape
            )));
        }
        // of two classes with one output, what is not class 0 is class 1
        let hot = g.one_hot(target, width)?;
        let (factor, shift) = match (width == 1, sides) {
            (true, false) => (-1.0, 1.0),
            (true, true) => (-2.0, 1.0),
            (false, false) => (1.0, 0.0),
            (false, true) => (2.0, -1.0),
        };
        let scaled = g.scale(hot, factor)?;
        let shifted = g.add_constant(scaled, shift)?;
        g.reshape(shifted, shape)
    }

    pub(super) fn error(&self, message: String) -> GraphError {
        GraphError::Shape { op: self.name().into(), scope: "loss".into(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CrossEntropyOptions;

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let weighted = Loss::CrossEntropyWith(CrossEntropyOptions {
            class_weights: vec![1.0, 2.0],
            ..Default::default()
        });
        let real = |dims: &[usize]| TargetKind::Real(Shape::from(dims));
        let input = |dims: &[usize]| TargetKind::Input(Shape::from(dims));
        let classes = TargetKind::Classes;
        for (loss, output, targets, want) in [
            (
                Loss::CrossEntropy,
                vec![9],
                classes(10),
                "the network's output is [9], the data have 10 classes",
            ),
            (Loss::CrossEntropy, vec![1], classes(2), "needs a last layer of 2"),
            (Loss::CrossEntropy, vec![1], real(&[1]), "use binary_cross_entropy_with_logits for one"),
            (Loss::CrossEntropy, vec![3], real(&[4]), "the network's output is [3], the targets are [4]"),
            (weighted.clone(), vec![3], classes(3), "2 class_weights for 3 classes"),
            (weighted, vec![3], real(&[3]), "2 class_weights for 3 classes"),
            (Loss::NllLoss, vec![3], real(&[3]), "takes class labels"),
            (Loss::MeanSquaredError, vec![3], real(&[2]), "mean_squared_error needs equal shapes"),
            (Loss::MeanSquaredError, vec![3], input(&[2, 2]), "the output is [3], the rows that it"),
            (Loss::CrossEntropy, vec![1, 2], input(&[1, 2]), "compares rows of two numbers or more"),
            (Loss::NllLoss, vec![3], input(&[3]), "takes class labels"),
            (Loss::BinaryCrossEntropy, vec![3], classes(2), "needs a last layer of 2 or 1"),
            (Loss::BinaryCrossEntropy, vec![1], classes(3), "needs a last layer of 3"),
            (Loss::MeanAbsolutePercentageError, vec![3], classes(3), "divides by the targets"),
            (Loss::CosineSimilarity, vec![1], classes(2), "needs a last layer of 2"),
            (Loss::Huber { delta: -1.0 }, vec![3], real(&[3]), "loss huber: delta must be"),
        ] {
            let message = loss.check_targets(&output.into(), &targets).unwrap_err().to_string();
            assert!(message.contains(want), "{message:?} lacks {want:?}");
        }
        for (loss, output, targets) in [
            (Loss::CrossEntropy, vec![3], classes(3)),
            (Loss::CrossEntropy, vec![3], real(&[3])),
            (Loss::BinaryCrossEntropy, vec![1], classes(2)),
            (Loss::BinaryCrossEntropy, vec![5], real(&[5])),
            (Loss::Hinge, vec![1], classes(2)),
            (Loss::MeanSquaredError, vec![10], classes(10)),
            (Loss::MeanSquaredError, vec![1], real(&[])),
            (Loss::MeanSquaredError, vec![2, 3], real(&[2, 3])),
            (Loss::BinaryCrossEntropy, vec![1, 2, 3], input(&[1, 2, 3])),
        ] {
            loss.check_targets(&output.into(), &targets).unwrap();
        }
    }
}
