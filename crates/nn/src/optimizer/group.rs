//! Settings of some of the parameters.

use kiln_graph::Segments;
use kiln_kernel::GROUP_BLOCK;
use serde::{Deserialize, Serialize};

use super::{Optimizer, Range, fail};
use crate::NnError;

/// Settings of the parameters whose names match a pattern. Of several groups that match, the first holds.
///
/// ```
/// use kiln_nn::{Adam, Optimizer, ParameterGroup};
///
/// let slow = ParameterGroup { lr_factor: Some(0.1), ..ParameterGroup::new("conv?.*") };
/// let optimizer = Optimizer::from(Adam::decoupled(1e-3)).with_group(slow).no_decay_on_bias_and_norm();
/// assert_eq!(optimizer.groups.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParameterGroup {
    /// What the whole of a parameter's name must match: `*` stands for any characters, `?` for one.
    pub pattern: String,
    /// Whether parameters of two or more axes are left out: biases and the weights of norms have one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub one_dimensional: bool,
    /// Factor of the learning rate; none is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_factor: Option<f32>,
    /// Weight decay; none is the optimizer's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f32>,
    /// Whether the parameters keep their values: the same as a factor of 0.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
}

impl Default for ParameterGroup {
    /// All parameters, with nothing changed.
    fn default() -> Self {
        let pattern = "*".into();
        Self { pattern, one_dimensional: false, lr_factor: None, weight_decay: None, frozen: false }
    }
}

impl ParameterGroup {
    /// The parameters that match a pattern, with nothing changed so far.
    pub fn new(pattern: &str) -> Self {
        Self { pattern: pattern.into(), ..Self::default() }
    }

    /// True if a parameter of this name and number of axes belongs to it.
    pub fn matches(&self, name: &str, rank: usize) -> bool {
        (!self.one_dimensional || rank <= 1) && matches(self.pattern.as_bytes(), name.as_bytes())
    }

    pub(super) fn check(&self) -> Result<(), NnError> {
        let what = |setting: &str| format!("{setting} of group \"{}\"", self.pattern);
        for (setting, value) in [("lr_factor", self.lr_factor), ("weight_decay", self.weight_decay)] {
            if let Some(value) = value.map(f64::from).filter(|&v| !Range::NotNegative.holds(v)) {
                return fail(&what(setting), value, Range::NotNegative.words());
            }
        }
        match self.lr_factor {
            Some(factor) if self.frozen => {
                fail(&what("lr_factor"), factor.into(), "left out where it is frozen")
            }
            _ => Ok(()),
        }
    }
}

/// Whether a text matches a pattern of `*`, `?` and plain characters.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // where the last star was, and up to where it reaches so far
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, reach)) => {
                    *reach += 1;
                    (p, t) = (*at + 1, *reach);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

impl Optimizer {
    /// Without weight decay on parameters of one axis: biases, and the weights of norms. Groups that were there
    /// before go first.
    pub fn no_decay_on_bias_and_norm(self) -> Self {
        self.with_group(ParameterGroup {
            one_dimensional: true,
            weight_decay: Some(0.0),
            ..ParameterGroup::default()
        })
    }

    /// With one more group, behind those that are there.
    pub fn with_group(mut self, group: ParameterGroup) -> Self {
        self.groups.push(group);
        self
    }

    /// The factor of the learning rate and the weight decay of a parameter.
    pub fn settings_of(&self, name: &str, rank: usize) -> (f32, f32) {
        let group = self.groups.iter().find(|group| group.matches(name, rank));
        let own = self.rule.weight_decay();
        let Some(group) = group else { return (1.0, own) };
        let factor = if group.frozen { 0.0 } else { group.lr_factor.unwrap_or(1.0) };
        (factor, group.weight_decay.unwrap_or(own))
    }

    /// The table `group_settings`, [blocks, 2]: for each block of 64 elements of the arenas the factor of the learning
    /// rate and the weight decay. Both are 0 for parameters that `trainable` refuses by name: those of frozen layers,
    /// and running statistics.
    pub fn group_settings(&self, segments: &Segments, trainable: &dyn Fn(&str) -> bool) -> Vec<f32> {
        let mut table = Vec::with_capacity(2 * segments.blocks());
        for segment in segments.list() {
            let (factor, decay) = match trainable(&segment.name) {
                true => self.settings_of(&segment.name, segment.shape.rank()),
                false => (0.0, 0.0),
            };
            for _ in 0..segment.shape.elements().div_ceil(GROUP_BLOCK) {
                table.extend([factor, decay]);
            }
        }
        // an arena without parameters has a block all the same
        table.resize(2 * segments.blocks(), 0.0);
        table
    }

    /// Refuses groups that stand for no parameter: a pattern that was mistyped would change nothing silently.
    ///
    /// # Errors
    /// If a pattern other than `*` matches none of the parameters' names.
    pub fn check_groups(&self, segments: &Segments) -> Result<(), NnError> {
        for group in self.groups.iter().filter(|group| group.pattern != "*") {
            if !segments.list().iter().any(|s| group.matches(&s.name, s.shape.rank())) {
                let names: Vec<&str> = segments.list().iter().map(|s| s.name.as_str()).collect();
                return Err(NnError::Settings(format!(
                    "optimizer: group \"{}\" matches no parameter; there are {}",
                    group.pattern,
                    names.join(", ")
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, want) in [
            ("*", "", true),
            ("*", "conv1.weight", true),
            ("*.bias", "conv1.bias", true),
            ("*.bias", "bias", false),
            ("*.bias", "conv1.bias2", false),
            ("conv?.weight", "conv1.weight", true),
            ("conv?.weight", "conv12.weight", false),
            ("*a*b*", "xxaxxbxaxx", true),
            ("*ab", "aab", true),
            ("*aab", "aaab", true),
            ("a*b*c", "abbbc", true),
            ("a*b*c", "acb", false),
            ("", "", true),
            ("", "a", false),
            ("fc", "fc", true),
            ("fc?", "fc", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
        }
    }
}
