use kiln_graph::{Graph, GraphError, Tensor};
use kiln_kernel::{Real, Unary, for_each_activation};
use serde::{Deserialize, Serialize};

/// Declares [`Activation`] from the kernel crate's list of functions.
macro_rules! activations {
    ($($variant:ident $(($usual:literal))? $(| $alias:literal)?,)*) => {
        /// A function applied to each element of a layer's result, or, for softmax, to each row.
        ///
        /// In recipes the names are these in lower case: `relu`, `leaky_relu`, `softmax`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Activation {
            /// x.
            #[default]
            #[serde(alias = "none")]
            Linear,
            $(
                #[doc = concat!("See [`Unary::", stringify!($variant), "`]", $(", with ", $usual,)? ".")]
                $(#[serde(alias = $alias)])?
                $variant,
            )*
            /// eˣ / Σ eˣ over the last axis.
            Softmax,
            /// The logarithm of softmax over the last axis.
            LogSoftmax,
        }

        impl Activation {
            /// Every function. For tables and tests.
            pub const ALL: &'static [Activation] =
                &[Self::Linear, $(Self::$variant,)* Self::Softmax, Self::LogSoftmax];

            /// Records the function.
            ///
            /// # Errors
            /// As the graph's operation of that name.
            pub fn record(self, g: &mut Graph, x: Tensor) -> Result<Tensor, GraphError> {
                let last = g.shape(x)?.rank().saturating_sub(1);
                match self {
                    Self::Linear => Ok(x),
                    Self::Softmax => g.softmax(x, last),
                    Self::LogSoftmax => g.log_softmax(x, last),
                    $(Self::$variant => g.unary(Unary::$variant $((Real($usual)))?, x),)*
                }
            }
        }
    };
}

for_each_activation!(activations);

impl std::fmt::Display for Activation {
    /// The name in recipes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}
