//! How often which class was taken for which, and what follows from that.

use super::Average;
use crate::NnError;

/// Rows by class and prediction, and labels by rank. See [`kiln_kernel::RankRows`] for what these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    classes: usize,
    /// [classes, classes]
    confusion: Vec<u64>,
    /// \[classes\]
    ranks: Vec<u64>,
}

fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

impl Counts {
    /// Nothing counted yet.
    pub fn new(classes: usize) -> Self {
        Self { classes, confusion: vec![0; classes * classes], ranks: vec![0; classes] }
    }

    /// Counts `scores` [rows, classes], row by row, against `labels`. The largest score is the prediction, of equals
    /// the first; what is no number comes last.
    ///
    /// # Errors
    /// If a label names no class, or the scores are not one row for each label.
    pub fn add(&mut self, scores: &[f32], labels: &[u32]) -> Result<(), NnError> {
        self.check(scores.len(), self.classes, labels)?;
        for (row, &label) in scores.chunks_exact(self.classes).zip(labels) {
            let label = label as usize;
            let (mut best, mut rank) = (0, 0);
            for (c, &score) in row.iter().enumerate() {
                if score > row[best] || (row[best].is_nan() && !score.is_nan()) {
                    best = c;
                }
                let behind = score < row[label] || (score == row[label] && c >= label);
                rank += usize::from(!behind && c != label);
            }
            self.confusion[label * self.classes + best] += 1;
            self.ranks[rank] += 1;
        }
        Ok(())
    }

    /// Counts a single output for each row, of two classes: above the threshold it says class 1.
    ///
    /// # Errors
    /// If there are not two classes, a label is neither, or there is not one output for each label.
    pub fn add_binary(&mut self, outputs: &[f32], labels: &[u32], threshold: f32) -> Result<(), NnError> {
        if self.classes != 2 {
            let classes = self.classes;
            return Err(NnError::Settings(format!(
                "one output for each row tells two classes, not {classes}"
            )));
        }
        self.check(outputs.len(), 1, labels)?;
        for (&output, &label) in outputs.iter().zip(labels) {
            let said = usize::from(output > threshold);
            self.confusion[label as usize * 2 + said] += 1;
            self.ranks[usize::from(said != label as usize)] += 1;
        }
        Ok(())
    }

    fn check(&self, scores: usize, width: usize, labels: &[u32]) -> Result<(), NnError> {
        let (classes, rows) = (self.classes, labels.len());
        if classes == 0 || scores != rows * width {
            return Err(NnError::Settings(format!("{scores} scores are not {rows} rows of {width}")));
        }
        match labels.iter().find(|&&label| label as usize >= classes) {
            Some(label) => Err(NnError::Settings(format!("label {label} is none of {classes} classes"))),
            None => Ok(()),
        }
    }

    /// Adds what a device has counted: the words of [`kiln_graph::TALLY`].
    ///
    /// # Errors
    /// If they are not [classes + 1, classes].
    pub fn add_words(&mut self, words: &[u32]) -> Result<(), NnError> {
        let classes = self.classes;
        if words.len() != (classes + 1) * classes {
            let got = words.len();
            return Err(NnError::Settings(format!("{got} counts are not those of {classes} classes")));
        }
        for (sum, &word) in self.confusion.iter_mut().chain(&mut self.ranks).zip(words) {
            *sum += u64::from(word);
        }
        Ok(())
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Rows that were counted.
    pub fn rows(&self) -> u64 {
        self.ranks.iter().sum()
    }

    /// Rows of class `label` that were called `said`.
    pub fn at(&self, label: usize, said: usize) -> u64 {
        self.confusion[label * self.classes + said]
    }

    /// The confusion matrix: `[i][j]` rows of class i were called j.
    pub fn confusion(&self) -> Vec<Vec<usize>> {
        let row = |row: &[u64]| row.iter().map(|&n| n as usize).collect();
        self.confusion.chunks(self.classes.max(1)).map(row).collect()
    }

    /// Part of the rows that were called what they are.
    pub fn accuracy(&self) -> f64 {
        self.part((0..self.classes).map(|c| self.at(c, c)).sum())
    }

    /// Part of the rows whose label was among the k largest scores.
    pub fn top_k_accuracy(&self, k: usize) -> f64 {
        self.part(self.ranks.iter().take(k).sum())
    }

    fn part(&self, rows: u64) -> f64 {
        ratio(rows as f64, self.rows() as f64)
    }

    /// Rows of a class.
    pub fn support(&self, class: usize) -> u64 {
        (0..self.classes).map(|c| self.at(class, c)).sum()
    }

    /// Of the rows that were called this class, the part that are.
    pub fn class_precision(&self, class: usize) -> f64 {
        let called: u64 = (0..self.classes).map(|c| self.at(c, class)).sum();
        ratio(self.at(class, class) as f64, called as f64)
    }

    /// Of the rows of this class, the part that were called so.
    pub fn class_recall(&self, class: usize) -> f64 {
        ratio(self.at(class, class) as f64, self.support(class) as f64)
    }

    /// The harmonic mean of a class' precision and recall; 0 where both are.
    pub fn class_f1(&self, class: usize) -> f64 {
        let (precision, recall) = (self.class_precision(class), self.class_recall(class));
        ratio(2.0 * precision * recall, precision + recall)
    }

    /// Precision over all classes.
    pub fn precision(&self, average: Average) -> f64 {
        self.averaged(average, |c| self.class_precision(c))
    }

    /// Recall over all classes.
    pub fn recall(&self, average: Average) -> f64 {
        self.averaged(average, |c| self.class_recall(c))
    }

    /// F1 over all classes.
    pub fn f1(&self, average: Average) -> f64 {
        self.averaged(average, |c| self.class_f1(c))
    }

    fn averaged(&self, average: Average, of: impl Fn(usize) -> f64) -> f64 {
        let classes = 0..self.classes;
        match average {
            Average::Auto | Average::Binary if self.classes == 2 => of(1),
            // refused before; nothing is positive where there are not two
            Average::Binary => 0.0,
            Average::Auto | Average::Macro => ratio(classes.map(of).sum(), self.classes as f64),
            // each row that is not called its class misses one class and is called another
            Average::Micro => self.accuracy(),
            Average::Weighted => {
                ratio(classes.map(|c| self.support(c) as f64 * of(c)).sum(), self.rows() as f64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six rows of three classes; what scikit-learn says of true [0, 0, 0, 1, 1, 2] and predicted
    /// [0, 0, 1, 1, 2, 2].
    #[test]
    fn averages_by_hand() {
        let mut counts = Counts::new(3);
        let one = |c: usize| (0..3).map(move |i| if i == c { 1.0 } else { 0.0 });
        let scores: Vec<f32> = [0, 0, 1, 1, 2, 2].into_iter().flat_map(one).collect();
        counts.add(&scores, &[0, 0, 0, 1, 1, 2]).unwrap();
        assert_eq!(counts.confusion(), [[2, 1, 0], [0, 1, 1], [0, 0, 1]]);
        let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got}, not {want}");
        close(counts.accuracy(), 4.0 / 6.0);
        close(counts.precision(Average::Macro), 2.0 / 3.0);
        close(counts.precision(Average::Micro), 4.0 / 6.0);
        close(counts.precision(Average::Weighted), (3.0 + 2.0 * 0.5 + 0.5) / 6.0);
        close(counts.recall(Average::Macro), (2.0 / 3.0 + 0.5 + 1.0) / 3.0);
        close(counts.recall(Average::Weighted), 4.0 / 6.0);
        close(counts.f1(Average::Macro), (0.8 + 0.5 + 2.0 / 3.0) / 3.0);
        close(counts.f1(Average::Micro), 4.0 / 6.0);
        close(counts.f1(Average::Weighted), (3.0 * 0.8 + 2.0 * 0.5 + 2.0 / 3.0) / 6.0);
        // the wrong rows: class 0 ties with class 2 behind 1, class 1 comes behind 0 in a tie
        assert_eq!(counts.ranks, [4, 1, 1]);
        close(counts.top_k_accuracy(2), 5.0 / 6.0);
        close(counts.top_k_accuracy(9), 1.0);
    }

    #[test]
    fn one_output_tells_two_classes() {
        let mut counts = Counts::new(2);
        counts.add_binary(&[0.2, 0.7, 0.5, 0.9], &[0, 0, 1, 1], 0.5).unwrap();
        assert_eq!(counts.confusion(), [[1, 1], [1, 1]]);
        assert_eq!((counts.accuracy(), counts.rows()), (0.5, 4));
        // what is said and what is: 1 of one, 1 of four
        let mut counts = Counts::new(2);
        counts.add_binary(&[0.9, 0.1, 0.1, 0.1, 0.2], &[1, 1, 1, 1, 0], 0.5).unwrap();
        for average in [Average::Auto, Average::Binary] {
            assert_eq!(
                (counts.precision(average), counts.recall(average), counts.f1(average)),
                (1.0, 0.25, 0.4)
            );
        }
        assert_eq!(counts.precision(Average::Macro), (1.0 + 0.25) / 2.0);
        assert!(Counts::new(3).add_binary(&[0.5], &[0], 0.5).is_err());
        assert!(counts.add_binary(&[0.5], &[2], 0.5).is_err());
        assert!(counts.add_words(&[0; 5]).is_err());
    }
}
