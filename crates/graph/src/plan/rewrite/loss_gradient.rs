//! Cross entropy with its gradient.

use super::Rewritten;
use crate::ops::Op;

/// Cross entropy and its gradient in one launch, where the gradient that flows in is one known number
/// (as under a mean).
pub(super) fn join(r: &mut Rewritten) {
    for backward in r.nodes().collect::<Vec<_>>() {
        let node = r.graph.nodes[backward].clone();
        let Op::CrossEntropyBackward(op) = &node.op else { continue };
        let Some(gradient) = r.constant(node.inputs[2]) else { continue };
        let forward = r.nodes().find(|&n| {
            let candidate = &r.graph.nodes[n];
            let same = matches!(&candidate.op, Op::CrossEntropy(f) if f.smoothing == op.smoothing && f.gradient.is_none());
            same && candidate.inputs[..] == node.inputs[..2]
        });
        let Some(forward) = forward else { continue };
        r.adopt_output(backward, forward);
        if let Op::CrossEntropy(f) = &mut r.graph.nodes[forward].op {
            f.gradient = Some(gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::texts, *};
    use crate::Graph;

    #[test]
    fn under_a_mean() {
        let mut g = Graph::new();
        let logits = g.parameter("logits", [4, 3]).unwrap();
        let labels = g.input_u32("labels", [4]).unwrap();
        let (losses, _) = g.cross_entropy(logits, labels, 0.1).unwrap();
        let loss = g.mean_all(losses).unwrap();
        let mut sinks = g.gradients(loss, &[logits]).unwrap();
        sinks.push(loss);
        let (before, after) = texts(&g, &sinks, &[], join);
        assert_eq!(
            before,
            "
t2 [4], t3 [4] = cross_entropy(logits, labels)
t4 [] = sum(t2)
t6 [] = mul(t4, 0.25)
t11 [4, 3] = cross_entropy_backward(logits, labels, 0.25)
"
        );
        assert_eq!(
            after,
            "
t2 [4], t3 [4], t11 [4, 3] = cross_entropy_with_gradient(logits, labels)
t4 [] = sum(t2)
t6 [] = mul(t4, 0.25)
"
        );
    }
}
