//! Rows dealt out by chance.

use kiln_kernel::random::Stream;

use crate::{DataError, Split, Targets, streams};

impl Split {
    /// Deals the rows out by chance: `fraction` of them (rounded) to the first split, the rest to the
    /// second. The same seed deals the same rows.
    ///
    /// # Errors
    /// [`DataError::Shape`] where one side would be empty.
    ///
    /// ```
    /// let data = kiln_data::Dataset::digits(1, 50, 1)?;
    /// let (train, validation) = data.train.split(0.8, 3)?;
    /// assert_eq!((train.len(), validation.len()), (40, 10));
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(Self, Self), DataError> {
        let (a, b) = self.deal(fraction, seed)?;
        Ok((self.select(&a)?, self.select(&b)?))
    }

    /// The rows that [`Split::split`] deals out, by their indices.
    ///
    /// # Errors
    /// [`DataError::Shape`] where one side would be empty.
    pub fn deal(&self, fraction: f64, seed: u64) -> Result<(Vec<u32>, Vec<u32>), DataError> {
        let first = (self.len() as f64 * fraction).round();
        if !(1.0..self.len() as f64).contains(&first) {
            return Err(one_side_empty(self.len(), fraction));
        }
        let mut first_rows = permutation(self.len(), seed);
        let rest = first_rows.split_off(first as usize);
        Ok((first_rows, rest))
    }

    /// As [`Split::split`], with `fraction` of the rows of each class in the first split (rounded, at least one): both
    /// sides have the classes in the same parts. scikit-learn's `train_test_split(stratify=y)`. Rows without classes are
    /// dealt as [`Split::split`] does.
    ///
    /// # Errors
    /// [`DataError::Shape`] where one side would be empty.
    ///
    /// ```
    /// use kiln_data::{Features, Split, Targets};
    /// let targets = Targets::Classes { labels: (0..100).map(|row| row % 10).collect(), classes: 10 };
    /// let rows = Split::new(Features::Real(vec![0.5; 100]), [1], targets)?;
    /// let (train, test) = rows.split_stratified(0.8, 3)?;
    /// let Targets::Classes { labels, .. } = test.targets() else { unreachable!() };
    /// assert_eq!((train.len(), labels.iter().filter(|&&label| label == 7).count()), (80, 2));
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn split_stratified(&self, fraction: f64, seed: u64) -> Result<(Self, Self), DataError> {
        let (a, b) = self.deal_stratified(fraction, seed)?;
        Ok((self.select(&a)?, self.select(&b)?))
    }

    /// The rows that [`Split::split_stratified`] deals out, by their indices.
    ///
    /// # Errors
    /// [`DataError::Shape`] where one side would be empty.
    pub fn deal_stratified(&self, fraction: f64, seed: u64) -> Result<(Vec<u32>, Vec<u32>), DataError> {
        match self.targets() {
            Targets::Classes { labels, classes } => deal_classes(labels, *classes, fraction, seed),
            Targets::Real { .. } | Targets::Input => self.deal(fraction, seed),
        }
    }

    /// Training, validation and test rows, the latter two with these parts of all rows, stratified.
    ///
    /// # Errors
    /// [`DataError::Shape`] where one of them would be empty.
    ///
    /// ```
    /// let all = kiln_data::Dataset::digits(1, 100, 1)?.train;
    /// let [train, validation, test] = all.train_validation_test(0.1, 0.2, 3)?;
    /// assert_eq!((train.len(), validation.len(), test.len()), (70, 10, 20));
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    pub fn train_validation_test(
        &self,
        validation: f64,
        test: f64,
        seed: u64,
    ) -> Result<[Self; 3], DataError> {
        let (rest, test_rows) = self.split_stratified(1.0 - test, seed)?;
        // of what is left
        let (train, validation_rows) =
            rest.split_stratified(1.0 - validation / (1.0 - test), seed.wrapping_add(1))?;
        Ok([train, validation_rows, test_rows])
    }
}

/// All rows in an order of chance.
pub(crate) fn permutation(len: usize, seed: u64) -> Vec<u32> {
    Stream { seed, stream: streams::SPLIT, step: 0 }.permutation(len)
}

/// The rows of labels dealt out so that each class goes to both sides in the same parts.
pub(crate) fn deal_classes(
    labels: &[u32],
    classes: usize,
    fraction: f64,
    seed: u64,
) -> Result<(Vec<u32>, Vec<u32>), DataError> {
    let mut rows_of = vec![0usize; classes];
    labels.iter().for_each(|&label| rows_of[label as usize] += 1);
    // what rounding has taken from one class the next one gets, so that the sum is as asked
    let (mut wanted, mut taken) = (0.0, 0usize);
    let mut left: Vec<usize> = Vec::with_capacity(classes);
    for &rows in &rows_of {
        wanted += rows as f64 * fraction;
        let take = (wanted.round() as usize).saturating_sub(taken).clamp(rows.min(1), rows.max(1)).min(rows);
        taken += take;
        left.push(take);
    }
    if !(0.0..=1.0).contains(&fraction) || taken == 0 || taken >= labels.len() {
        return Err(one_side_empty(labels.len(), fraction));
    }
    Ok(permutation(labels.len(), seed).into_iter().partition(|&row| {
        let left = &mut left[labels[row as usize] as usize];
        let is_first = *left > 0;
        *left -= usize::from(is_first);
        is_first
    }))
}

fn one_side_empty(rows: usize, fraction: f64) -> DataError {
    DataError::Shape {
        origin: "data".into(),
        message: format!(
            "a split of {rows} rows at {fraction} leaves one side empty; where rows have classes, each keeps a row on the first"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_dealt_in_the_same_parts() {
        // 30, 5, 2, 0 and 1 rows
        let labels: Vec<u32> = [(0, 30), (1, 5), (2, 2), (4, 1)]
            .into_iter()
            .flat_map(|(label, rows)| std::iter::repeat_n(label, rows))
            .collect();
        let count =
            |rows: &[u32], class: u32| rows.iter().filter(|&&row| labels[row as usize] == class).count();
        let (a, b) = deal_classes(&labels, 5, 0.8, 7).unwrap();
        assert_eq!((0..5).map(|class| count(&a, class)).collect::<Vec<_>>(), [24, 4, 2, 0, 1]);
        let mut all = [&a[..], &b].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..38));
        assert_eq!(deal_classes(&labels, 5, 0.8, 7).unwrap(), (a.clone(), b));
        assert_ne!(deal_classes(&labels, 5, 0.8, 8).unwrap().0, a);
        assert!(a.windows(2).any(|pair| pair[0] > pair[1]), "shuffled");
        for fraction in [0.0, 1.0, -1.0, f64::NAN, 2.0] {
            // at 0 each class keeps one row on the first side
            let dealt = deal_classes(&labels, 5, fraction, 7);
            assert!(dealt.is_err() || fraction == 0.0, "{fraction}: {dealt:?}");
        }
    }
}
