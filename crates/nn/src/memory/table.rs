//! A memory plan as people read it.

use std::fmt::{self, Write as _};

use crate::{
    grouped,
    memory::{Group, Holding, MemoryPlan},
};

impl Group {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::Gradients => "gradients",
            Self::OptimizerState => "optimizer state",
            Self::Tables => "tables",
            Self::TrainingData => "training data",
            Self::Workspace => "workspace",
            Self::EvaluationData => "evaluation data",
            Self::EvaluationWorkspace => "evaluation workspace",
            Self::CheckFinite => "check of numbers",
            Self::Literals => "literals",
            Self::Staging => "staging for reads",
        }
    }
}

impl Holding {
    /// What it is, in words: for what is computed, the largest tensor that lives there.
    pub fn describe(&self) -> String {
        let is_slot =
            matches!(self.group, Group::Workspace | Group::EvaluationWorkspace | Group::CheckFinite);
        match self.tensors.first().filter(|_| is_slot) {
            Some(first) => format!("{} {:?}", first.label, first.shape),
            None => self.name.clone(),
        }
    }
}

impl MemoryPlan {
    /// Bytes of a group.
    pub fn group_bytes(&self, group: Group) -> u64 {
        self.holdings.iter().filter(|holding| holding.group == group).map(|holding| holding.bytes).sum()
    }

    /// The groups that hold anything, in order, with their bytes.
    pub fn groups(&self) -> Vec<(Group, u64)> {
        let mut groups: Vec<Group> = self.holdings.iter().map(|holding| holding.group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.into_iter().map(|group| (group, self.group_bytes(group))).collect()
    }

    /// The three largest buffers, largest first.
    pub fn largest_holdings(&self) -> Vec<&Holding> {
        let mut all: Vec<&Holding> = self.holdings.iter().collect();
        all.sort_by_key(|holding| std::cmp::Reverse(holding.bytes));
        all.truncate(3);
        all
    }
}

/// Most tensors of one buffer that the table names.
const MOST_TENSORS: usize = 8;

impl fmt::Display for MemoryPlan {
    /// Groups, their buffers, what lives in them; then the sums and the limits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rows in batches of {} on {}", self.rows, self.batch_size, self.device)?;
        if let Some(rows) = self.micro_batch_size {
            writeln!(
                f,
                "each step in {} parts of {rows} rows",
                self.batch_size.min(self.rows).div_ceil(rows)
            )?;
        }
        let mut lines: Vec<(String, Option<u64>)> = Vec::new();
        for (group, bytes) in self.groups() {
            lines.push((group.name().to_owned(), Some(bytes)));
            for holding in self.holdings.iter().filter(|holding| holding.group == group) {
                lines.push((format!("  {}", holding.name), Some(holding.bytes)));
                for tensor in holding.tensors.iter().take(MOST_TENSORS) {
                    let mut text = format!("    {}", tensor.label);
                    if !tensor.shape.is_empty() {
                        let _ = write!(text, " {:?}: {}", tensor.shape, grouped(tensor.bytes));
                    }
                    lines.push((text, None));
                }
                if let Some(others @ 1..) = holding.tensors.len().checked_sub(MOST_TENSORS) {
                    lines.push((format!("    and {others} others"), None));
                }
            }
        }
        let beside = "the most at a time, with reads of parameters";
        lines.push(("sum, when ready".into(), Some(self.bytes)));
        lines.push((beside.into(), Some(self.peak_bytes)));
        lines.extend(self.budget_bytes.map(|budget| ("budget".to_owned(), Some(budget))));
        if !self.fits {
            lines.push(("it does not fit".into(), None));
        }
        let width = |(text, bytes): &(String, Option<u64>)| bytes.map_or(0, |_| text.chars().count());
        let widest = lines.iter().map(width).max().unwrap_or(0);
        for (text, bytes) in &lines {
            match bytes {
                Some(bytes) => {
                    write!(f, "{text:<widest$}  {:>15} bytes", grouped(*bytes))?;
                    // in round numbers, of groups and sums
                    if !text.starts_with(' ') && *bytes >= 1 << 20 {
                        write!(f, "  {:.1} MiB", *bytes as f64 / f64::from(1 << 20))?;
                    }
                    writeln!(f)?;
                }
                None => writeln!(f, "{text}")?,
            }
        }
        if !self.limits.is_empty() {
            writeln!(f, "limits")?;
            for limit in &self.limits {
                let text = format!("  {}", limit.what);
                let (needed, allowed) = (grouped(limit.needed), grouped(limit.allowed));
                writeln!(f, "{text:<widest$}  {needed:>15} of {allowed}: {}", limit.by)?;
            }
        }
        let rows = |n: Option<usize>| n.map_or("none".to_owned(), |n| n.to_string());
        match (self.largest_batch, self.largest_power_of_two) {
            (None, power) => write!(f, "largest power of two that fits: {}", rows(power)),
            (exact, power) => {
                write!(f, "largest batch that fits: {}; power of two: {}", rows(exact), rows(power))
            }
        }
    }
}
