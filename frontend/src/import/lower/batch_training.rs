//! `BatchNormalization` in training mode: by the moments of the batch itself, as reductions.
//!
//! Exporters write it for weights that are standardised, which folds, and where a model was left in training
//! mode.

use strata_ir::{ValueId, dialect};
use tract_onnx::pb::tensor_proto::DataType;

use super::Lowering;
use crate::import::error::{Lowered, invalid};
use crate::import::graph::Node;
use crate::import::layout::{Value, View};

/// The normalised tensor and, if they are used, the running mean and variance.
pub(super) fn batch(lo: &mut Lowering, node: &Node<'_>, view: &View) -> Lowered<Vec<Value>> {
    let rank = view.shape.len();
    let (x, perm) = lo.in_natural_order(view);
    let em = &mut lo.em;
    let is_reduced = |&place: &usize| perm[place] != 1 && em.shape(x)[place] > 1;
    let axes: Vec<usize> = (0..perm.len()).filter(is_reduced).collect();
    let mean = em.mean(x, &axes);
    let centred = em.sub(x, mean);
    let square = em.mul(centred, centred);
    let variance = em.mean(square, &axes);
    let shifted = em.shift(variance, node.float("epsilon", 1e-5)?);
    let inverse = em.unary(dialect::Rsqrt {}, shifted);
    let out = em.mul(centred, inverse);
    let out = View::plain(out, view.shape.clone(), &perm, DataType::Float);

    let n = view.shape[1];
    let mut aligned_shape = vec![1; rank];
    aligned_shape[1] = n;
    let scale = channels(lo, node, 1, n, &aligned_shape)?;
    let bias = channels(lo, node, 2, n, &aligned_shape)?;
    let scaled = lo.align(&[out.into(), scale])?;
    let product = lo.em.mul(scaled.values[0], scaled.values[1]);
    let terms = lo.align(&[scaled.result(product, DataType::Float), bias])?;
    let sum = lo.em.add(terms.values[0], terms.values[1]);
    let mut outputs = vec![terms.result(sum, DataType::Float)];

    let moment = |value: ValueId| View::plain(value, aligned_shape.clone(), &perm, DataType::Float);
    for (index, moment) in [(1, moment(mean)), (2, moment(variance))] {
        // Nothing is made of a moment that nobody reads; the others need their places.
        if (index..3).any(|output| node.has_output(output)) {
            outputs.push(running(lo, node, index + 2, &moment, n)?);
        }
    }
    Ok(outputs)
}

/// `given * momentum + moment * (1 - momentum)` a channel, with operand `index` as what is given.
fn running(lo: &mut Lowering, node: &Node<'_>, index: usize, moment: &View, n: usize) -> Lowered<Value> {
    let momentum = node.float("momentum", 0.9)?;
    let given = channels(lo, node, index, n, &[n])?;
    let moment = lo.reshaped(moment, &[n]);
    let aligned = lo.align(&[given, moment.into()])?;
    let [given, moment] = aligned.values[..] else { unreachable!("two operands were aligned") };
    let old = lo.em.scale(given, momentum);
    let new = lo.em.scale(moment, 1.0 - momentum);
    let sum = lo.em.add(old, new);
    Ok(aligned.result(sum, DataType::Float))
}

/// Operand `index`, one number a channel, in another shape.
fn channels(lo: &mut Lowering, node: &Node<'_>, index: usize, n: usize, shape: &[usize]) -> Lowered<Value> {
    let value = node.input(index)?;
    if value.shape() != [n] {
        invalid!("operand {index} has shape {:?} for {n} channels", value.shape());
    }
    Ok(match value {
        Value::Const(array) => array.reshaped(shape).into(),
        Value::View(view) => lo.reshaped(view, shape).into(),
    })
}

#[cfg(test)]
mod tests {
    use strata_ir::Tensor;

    use crate::import::tests::{Attr, Net, noise, run};
    use crate::import::{ImportOptions, import_proto};

    fn assert_close(ours: &[f32], expected: &[f32]) {
        assert_eq!(ours.len(), expected.len());
        for (a, b) in ours.iter().zip(expected) {
            assert!((a - b).abs() < 1e-4, "{a} not {b}");
        }
    }

    #[test]
    fn the_moments_are_those_of_the_batch() {
        let (n, c, pixels) = (2, 3, 20);
        let (scale, bias) = (vec![1.0, -2.0, 0.5], vec![0.0, 0.25, 1.0]);
        let (mean, variance) = (vec![4.0, 5.0, 6.0], vec![1.0, 2.0, 3.0]);
        let attrs = [
            ("training_mode", Attr::Int(1)),
            ("momentum", Attr::Float(0.75)),
            ("epsilon", Attr::Float(0.01)),
        ];
        let net = Net::new(15, &[n as i64, c as i64, 4, 5])
            .floats("s", &[3], scale.clone())
            .floats("b", &[3], bias.clone())
            .floats("m", &[3], mean.clone())
            .floats("v", &[3], variance.clone())
            .node("BatchNormalization", "x s b m v", "y m2 v2", &attrs);
        let imported = import_proto(&net.model("y m2 v2"), &ImportOptions::default()).expect("it imports");
        let x = noise(n * c * pixels, 3);
        let results = run(&imported, &[Tensor::f32([n, c, 4, 5], x.clone())]);

        let mut y = vec![0.0; x.len()];
        let (mut running_mean, mut running_variance) = (Vec::new(), Vec::new());
        for channel in 0..c {
            let places: Vec<usize> = (0..x.len()).filter(|place| place / pixels % c == channel).collect();
            let count = places.len() as f32;
            let batch_mean = places.iter().map(|&at| x[at]).sum::<f32>() / count;
            let spread = places.iter().map(|&at| (x[at] - batch_mean).powi(2)).sum::<f32>() / count;
            for &at in &places {
                y[at] = (x[at] - batch_mean) / (spread + 0.01).sqrt() * scale[channel] + bias[channel];
            }
            running_mean.push(0.75 * mean[channel] + 0.25 * batch_mean);
            running_variance.push(0.75 * variance[channel] + 0.25 * spread);
        }
        for (result, expected) in results.iter().zip([y, running_mean, running_variance]) {
            assert_close(result.as_f32().expect("floats"), &expected);
        }
    }

    #[test]
    fn moments_among_the_outputs_meant_training_before_operator_set_14() {
        let net = |opset, outputs, attrs: &[(&str, Attr<'_>)]| {
            let net = Net::new(opset, &[1, 3, 4, 5]).weight("s", &[3]).weight("b", &[3]);
            let net = net.floats("m", &[3], vec![1.0; 3]).floats("v", &[3], vec![2.0; 3]);
            let model = net.node("BatchNormalization", "x s b m v", outputs, attrs).model("y");
            let imported = import_proto(&model, &ImportOptions::default()).expect("it imports");
            run(&imported, &[Tensor::f32([1, 3, 4, 5], noise(60, 3))])
        };
        let trained = net(15, "y m2 v2", &[("training_mode", Attr::Int(1))]);
        assert_eq!(net(9, "y m2 v2 sm sv", &[]), trained);
        assert_eq!(net(9, "y", &[]), net(15, "y", &[]));
        assert_ne!(net(9, "y", &[]), trained);
    }

    #[test]
    fn standardised_weights_fold() {
        let attrs = [("training_mode", Attr::Int(1))];
        let net = Net::new(15, &[1, 3, 4, 5])
            .weight("w", &[4, 3, 1, 1])
            .ints("rows", &[1, 4, -1])
            .ints("back", &[4, 3, 1, 1])
            .floats("one", &[4], vec![1.0; 4])
            .floats("zero", &[4], vec![0.0; 4])
            .node("Reshape", "w rows", "r", &[])
            .node("BatchNormalization", "r one zero zero one", "n m2 v2", &attrs)
            .node("Reshape", "n back", "k", &[])
            .node("Conv", "x k", "y", &[]);
        let imported = import_proto(&net.model("y"), &ImportOptions::default()).expect("it imports");
        let reductions = crate::import::tests::count(&imported.module, |op| {
            matches!(op, strata_ir::dialect::Op::ReduceSum(_))
        });
        assert_eq!(reductions, 0);
    }
}
