//! What an optimizer does to one parameter, in plain `f64`.

use super::{Optimizer, Rule};

/// What one update of one parameter takes beside weights, gradient and moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update<'a> {
    /// The parameter's name: a group may match it.
    pub name: &'a str,
    /// The number of its axes.
    pub rank: usize,
    /// The step, counted from 0.
    pub step: u64,
    /// The learning rate of the step.
    pub learning_rate: f64,
}

impl Optimizer {
    /// The update's meaning in plain `f64`: changes one parameter and its moments (in the order of
    /// [`Optimizer::moments`]) by one step. The gradient is one that was clipped before. For verification.
    pub fn update_f64(&self, at: Update<'_>, w: &mut [f64], gradient: &[f64], moments: &mut [Vec<f64>]) {
        let (factor, decay) = self.settings_of(at.name, at.rank);
        if factor == 0.0 {
            return;
        }
        let (lr, decay) = (at.learning_rate * f64::from(factor), f64::from(decay));
        for i in 0..w.len() {
            w[i] = self.element(at.step, lr, decay, w[i], gradient[i], moments, i);
        }
        if let (Rule::Lamb(_), [_, _, direction]) = (self.rule, &*moments) {
            let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
            let (of_w, of_direction) = (norm(w), norm(direction));
            let ratio = if of_w > 0.0 && of_direction > 0.0 { of_w / of_direction } else { 1.0 };
            w.iter_mut().zip(direction).for_each(|(w, d)| *w -= lr * ratio * d);
        }
    }

    /// Element `i` after the update. Moments that the rule does not have are a caller's mistake: nothing changes then.
    #[allow(clippy::too_many_arguments)] // the formula's letters
    fn element(
        &self,
        step: u64,
        lr: f64,
        decay: f64,
        w: f64,
        gradient: f64,
        moments: &mut [Vec<f64>],
        i: usize,
    ) -> f64 {
        let t = (step + 1) as i32;
        let average = |old: f64, beta: f32, new: f64| f64::from(beta) * old + (1.0 - f64::from(beta)) * new;
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(t);
        let g = gradient + decay * w;
        match (self.rule, moments) {
            (Rule::Sgd(_), []) => w - lr * g,
            (Rule::Sgd(o), [v]) => {
                let momentum = f64::from(o.momentum);
                v[i] = momentum * v[i] + g;
                w - lr * if o.nesterov { g + momentum * v[i] } else { v[i] }
            }
            (Rule::Rmsprop(o), [s, more @ ..]) => {
                s[i] = average(s[i], o.alpha, g * g);
                let mut square = s[i];
                if let [_, a] = more {
                    a[i] = average(a[i], o.alpha, g);
                    square = (square - a[i] * a[i]).max(0.0);
                }
                let step = g / (square.sqrt() + f64::from(o.eps));
                let Some(v) = more.first_mut() else { return w - lr * step };
                v[i] = f64::from(o.momentum) * v[i] + step;
                w - lr * v[i]
            }
            (Rule::Adagrad(o), [s]) => {
                s[i] += g * g;
                w - lr * g / ((s[i] + f64::from(o.initial)).sqrt() + f64::from(o.eps))
            }
            (Rule::Adadelta(o), [s, u]) => {
                let eps = f64::from(o.eps);
                s[i] = average(s[i], o.rho, g * g);
                let d = (u[i] + eps).sqrt() / (s[i] + eps).sqrt() * g;
                u[i] = average(u[i], o.rho, d * d);
                w - lr * d
            }
            (Rule::Adam(o), [m, v, largest @ ..]) => {
                let (w, g) = if o.decoupled { (w - lr * decay * w, gradient) } else { (w, g) };
                m[i] = average(m[i], o.beta1, g);
                v[i] = average(v[i], o.beta2, g * g);
                let mut square = v[i];
                if let [largest] = largest {
                    largest[i] = largest[i].max(square);
                    square = largest[i];
                }
                let denominator = (square / correction(o.beta2)).sqrt() + f64::from(o.eps);
                w - lr * (m[i] / correction(o.beta1)) / denominator
            }
            (Rule::Adamax(o), [m, u]) => {
                m[i] = average(m[i], o.beta1, g);
                u[i] = (f64::from(o.beta2) * u[i]).max(g.abs() + f64::from(o.eps));
                w - lr * (m[i] / correction(o.beta1)) / u[i]
            }
            (Rule::Nadam(o), [m, v]) => {
                m[i] = average(m[i], o.beta1, g);
                v[i] = average(v[i], o.beta2, g * g);
                let (of_moment, of_gradient) = o.factors(step + 1, o.mu_product(step));
                let denominator = (v[i] / correction(o.beta2)).sqrt() + f64::from(o.eps);
                w - lr * (of_moment * m[i] + of_gradient * g) / denominator
            }
            (Rule::Lion(o), [m]) => {
                let direction = average(m[i], o.beta1, gradient);
                m[i] = average(m[i], o.beta2, gradient);
                let sign = if direction == 0.0 { 0.0 } else { direction.signum() };
                w - lr * (sign + decay * w)
            }
            (Rule::Lamb(o), [m, v, direction]) => {
                m[i] = average(m[i], o.beta1, gradient);
                v[i] = average(v[i], o.beta2, gradient * gradient);
                let denominator = (v[i] / correction(o.beta2)).sqrt() + f64::from(o.eps);
                direction[i] = m[i] / correction(o.beta1) / denominator + decay * w;
                w // moved as a whole, once the norms are known
            }
            _ => w,
        }
    }
}
