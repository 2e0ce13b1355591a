//! Weighted sums of feature maps.

use super::attribute::int;
use super::{Fill, Network, Tensor};

/// What keeps the sum of the weights from zero.
const EPSILON: f32 = 1e-4;

impl Network {
    /// Fast normalised fusion: the sum of `maps`, each times its weight, over the sum of the weights; weights
    /// are trained, and no less than zero.
    ///
    /// # Source
    /// Tan, Pang, Le: "EfficientDet: Scalable and efficient object detection", 2019, section 3.3; node by
    /// node what PyTorch's exporter writes of the package effdet, which stacks the maps along an axis of
    /// their own.
    pub(in crate::zoo) fn normalised_fusion(&mut self, name: &str, maps: &[Tensor]) -> Tensor {
        let dims = self.dims(maps[0]);
        let power: f64 = maps.iter().map(|&map| self.power(map)).sum::<f64>() / maps.len().pow(2) as f64;
        let n = maps.len();
        let weights = Fill::Uniform { low: 0.5, high: 1.5 };
        let weights = self.parameter(format!("{name}.weights"), vec![n], weights);
        let epsilon = self.fixed(format!("{name}.epsilon"), vec![], vec![EPSILON]);
        let last = self.fixed_ints(format!("{name}.axis"), vec![-1]);

        let positive = self.node("Relu", &format!("{name}/relu"), vec![weights], vec![], vec![n], 1.0);
        let positive = self.name(positive);
        let total = vec![int("keepdims", 0)];
        let total =
            self.node("ReduceSum", &format!("{name}/total"), vec![positive.clone()], total, vec![], 1.0);
        let mut denominator = None;
        let mut shares = Vec::with_capacity(n);
        for (index, &map) in maps.iter().enumerate() {
            let at = self.parameter(format!("{name}.{index}"), vec![], Fill::FixedInts(vec![index as i64]));
            let axis = vec![int("axis", 0)];
            let weight = self.node(
                "Gather",
                &format!("{name}/weight_{index}"),
                vec![positive.clone(), at],
                axis,
                vec![],
                1.0,
            );
            let inputs = vec![self.name(map), self.name(weight)];
            let product =
                self.node("Mul", &format!("{name}/mul_{index}"), inputs, vec![], dims.clone(), power);
            let denominator = *denominator.get_or_insert_with(|| {
                let inputs = vec![self.name(total), epsilon.clone()];
                self.node("Add", &format!("{name}/denominator"), inputs, vec![], vec![], 1.0)
            });
            let inputs = vec![self.name(product), self.name(denominator)];
            shares.push(self.node(
                "Div",
                &format!("{name}/div_{index}"),
                inputs,
                vec![],
                dims.clone(),
                power,
            ));
        }
        let mut stacked_dims = [&dims[..], &[1]].concat();
        let mut stack = Vec::with_capacity(n);
        for (index, &share) in shares.iter().enumerate() {
            let inputs = vec![self.name(share), last.clone()];
            let name = format!("{name}/unsqueeze_{index}");
            let layer = self.node("Unsqueeze", &name, inputs, vec![], stacked_dims.clone(), power);
            stack.push(self.name(layer));
        }
        stacked_dims[dims.len()] = n;
        let axis = vec![int("axis", dims.len())];
        let stack = self.node("Concat", &format!("{name}/stack"), stack, axis, stacked_dims, power);
        let inputs = vec![self.name(stack), last];
        self.node("ReduceSum", name, inputs, vec![int("keepdims", 0)], dims, power)
    }
}
