//! Small tables: regression on a line, logic gates, body sizes.

use kiln_kernel::{Shape, random::Stream};

use crate::{DataError, Dataset, Features, Split, Targets, streams};

/// A logic function of two inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// One of the two.
    Xor,
    /// Both.
    And,
    /// At least one.
    Or,
    /// Neither.
    Nor,
}

impl Gate {
    /// The data set's name: `xor`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xor => "xor",
            Self::And => "and",
            Self::Or => "or",
            Self::Nor => "nor",
        }
    }

    /// The function itself.
    pub fn apply(self, a: bool, b: bool) -> bool {
        match self {
            Self::Xor => a != b,
            Self::And => a && b,
            Self::Or => a || b,
            Self::Nor => !(a || b),
        }
    }
}

/// Height in metres and weight in hundreds of kilograms, so that both are near 1; 0 small, 1 large.
const BODY_SIZES: [([f32; 2], u32); 6] = [
    ([1.52, 0.47], 0),
    ([1.88, 0.94], 1),
    ([1.60, 0.55], 0),
    ([1.95, 1.02], 1),
    ([1.57, 0.50], 0),
    ([1.83, 0.88], 1),
];

impl Dataset {
    /// Slope of [`Dataset::linear`].
    pub const LINEAR_SLOPE: f32 = 2.0;

    /// Intercept of [`Dataset::linear`].
    pub const LINEAR_INTERCEPT: f32 = 1.0;

    /// Standard deviation of the noise in [`Dataset::linear`]: the best mean squared error is its square.
    pub const LINEAR_NOISE: f32 = 0.1;

    /// `y = 2 x + 1 + noise`: 500 points, x uniform in [-1, 1), noise normal with deviation 0.1; 400 for
    /// training, 100 for testing. Rows `[1]`, targets `[1]`.
    ///
    /// # Errors
    /// None in practice: the sizes are fixed.
    ///
    /// ```
    /// let data = kiln_data::Dataset::linear(7)?;
    /// assert_eq!((data.train.len(), data.test.len()), (400, 100));
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn linear(seed: u64) -> Result<Self, DataError> {
        let place = Stream { seed, stream: streams::LINEAR, step: 0 };
        let noise = Stream { step: 1, ..place };
        let x: Vec<f32> = (0..500).map(|i| place.uniform(i) * 2.0 - 1.0).collect();
        let values = (0..500)
            .zip(&x)
            .map(|(i, x)| {
                Self::LINEAR_SLOPE * x + Self::LINEAR_INTERCEPT + Self::LINEAR_NOISE * noise.normal(i)
            })
            .collect();
        let all = Split::new(Features::Real(x), [1], Targets::Real { values, shape: Shape::new([1]) })?;
        let (train, test) = all.split(0.8, seed)?;
        Ok(Self { columns: vec!["x".into()], ..Self::new("linear", train, test, Vec::new())? })
    }

    /// The four rows of a logic gate, inputs and output 0 or 1. Rows `[2]`, targets `[1]`; tested on the rows it
    /// is trained on, for there are no others.
    ///
    /// # Errors
    /// None in practice: the sizes are fixed.
    pub fn gate(gate: Gate) -> Result<Self, DataError> {
        let rows = [(false, false), (false, true), (true, false), (true, true)];
        let number = |b: bool| f32::from(u8::from(b));
        let features = rows.iter().flat_map(|&(a, b)| [number(a), number(b)]).collect();
        let values = rows.iter().map(|&(a, b)| number(gate.apply(a, b))).collect();
        let split =
            Split::new(Features::Real(features), [2], Targets::Real { values, shape: Shape::new([1]) })?;
        let columns = ["a", "b"].map(String::from).into();
        Ok(Self { columns, ..Self::new(gate.name(), split.clone(), split, Vec::new())? })
    }

    /// Six people, height in metres and weight in hundreds of kilograms, each small or large. Rows `[2]`, two
    /// classes; tested on the rows it is trained on. Invented.
    ///
    /// # Errors
    /// None in practice: the sizes are fixed.
    pub fn body_size() -> Result<Self, DataError> {
        let features = BODY_SIZES.iter().flat_map(|(row, _)| *row).collect();
        let labels = BODY_SIZES.iter().map(|(_, label)| *label).collect();
        let split = Split::new(Features::Real(features), [2], Targets::Classes { labels, classes: 2 })?;
        let columns = ["height", "weight"].map(String::from).into();
        let classes = vec!["small".into(), "large".into()];
        Ok(Self { columns, ..Self::new("body-size", split.clone(), split, classes)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_linear_has_its_slope() {
        let data = Dataset::linear(3).unwrap();
        let (Features::Real(x), Targets::Real { values: y, .. }) =
            (data.train.features(), data.train.targets())
        else {
            panic!("real numbers expected")
        };
        let n = x.len() as f32;
        let (mx, my) = (x.iter().sum::<f32>() / n, y.iter().sum::<f32>() / n);
        let slope = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum::<f32>()
            / x.iter().map(|x| (x - mx).powi(2)).sum::<f32>();
        assert!((slope - 2.0).abs() < 0.03, "{slope}");
        assert!((my - slope * mx - 1.0).abs() < 0.03);
        assert_ne!(Dataset::linear(3).unwrap(), Dataset::linear(4).unwrap());
    }

    #[test]
    fn gates_and_bodies() {
        let outputs = [Gate::Xor, Gate::And, Gate::Or, Gate::Nor].map(|gate| {
            let data = Dataset::gate(gate).unwrap();
            match data.train.targets() {
                Targets::Real { values, .. } => values.clone(),
                _ => panic!("real numbers expected"),
            }
        });
        assert_eq!(outputs[0], [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(outputs[1], [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(outputs[2], [0.0, 1.0, 1.0, 1.0]);
        assert_eq!(outputs[3], [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(Dataset::body_size().unwrap().train.len(), 6);
    }
}
