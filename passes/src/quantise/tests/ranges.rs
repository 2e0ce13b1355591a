//! Values whose ranges differ much from those of what they come from, or from their neighbours'.

use super::*;

/// The least decibels of the samples in some columns of the last axis of the only result.
fn decibels_of_columns(module: &Module, columns: std::ops::Range<usize>) -> f64 {
    let inputs = samples(module, 2);
    let calibration = Calibration::collect(module, &inputs).expect("the network runs");
    let mut quantised = module.clone();
    quantise(&mut quantised, &calibration, &QuantiseOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let main = module.function("main").expect("it was made");
    let of_sample = |inputs: &Vec<Arc<Tensor>>| {
        let owned = inputs.iter().map(|t| (**t).clone()).collect();
        let want = eval_function(module, main, owned).unwrap_or_else(|e| panic!("{e}"));
        let got = run_quantised(&quantised, inputs);
        let n = *want[0].shape().last().expect("it has axes");
        let chosen = |tensor: &Tensor| -> Vec<f32> {
            let data = tensor.as_f32().expect("f32").iter().enumerate();
            data.filter(|(at, _)| columns.contains(&(at % n))).map(|(_, &x)| x).collect()
        };
        sqnr(&chosen(&want[0]), &chosen(&got[0]))
    };
    inputs.iter().map(of_sample).fold(f64::INFINITY, f64::min)
}

/// The element type of the first result of `@main`.
fn result_elem(module: &Module) -> ElemType {
    let main = module.function("main").expect("it was made");
    let Op::Func(func) = &module.op(main).op else { panic!("it is a function") };
    func.function_type.results[0].as_tensor().expect("a tensor").elem
}

fn windows(net: &mut Net, x: ValueId, kernel: i64, stride: i64, pad: [i64; 4]) -> ValueId {
    let (a, b) = (net.zero_point(), net.zero_point());
    let op = AvgPool2d { kernel: [kernel; 2], stride: [stride; 2], pad, acc_type: ElemType::F32 };
    net.op(op, &[x, a, b])
}

#[test]
fn means_of_signed_values_have_a_scale_of_their_own() {
    let (mut net, x) = Net::new(&[1, 24, 24, 4]);
    let y = net.conv(x, 8, 1, 1);
    let y = net.average(y);
    check_in(&net.finish(&[y]), Precision::Int8, 33.0);
}

#[test]
fn means_of_windows_have_a_scale_of_their_own() {
    for pad in [[0; 4], [3; 4], [3, 0, 0, 3]] {
        let (mut net, x) = Net::new(&[1, 24, 24, 4]);
        let y = net.conv(x, 8, 1, 1);
        let y = windows(&mut net, y, 12, if pad == [0; 4] { 12 } else { 3 }, pad);
        check_in(&net.finish(&[y]), Precision::Int8, 33.0);
    }
}

#[test]
fn gates_are_computed_in_16_bits() {
    let (mut net, x) = Net::new(&[1, 12, 12, 4]);
    let y = net.conv(x, 16, 3, 1);
    let s = net.average(y);
    let s = net.conv(s, 4, 1, 1);
    let s = net.relu(s);
    let s = net.conv(s, 16, 1, 1);
    let s = net.op(Sigmoid {}, &[s]);
    let y = net.mul(y, s);
    let y = net.depthwise(y);
    let (module, report, _) = check_in(&net.finish(&[y]), Precision::Int8, 33.0);
    let is_wide =
        |op: &&OpId| matches!(&module.op(**op).op, Op::Conv2d(conv) if conv.acc_type == ElemType::I48);
    assert_eq!(module.walk(module.body()).iter().filter(is_wide).count(), 2, "both products of the gate");
    assert_eq!(report.i16_layers, [""; 0], "nobody asked for them");
}

#[test]
fn an_image_that_is_averaged_at_first_stays_8_bits() {
    let (mut net, x) = Net::new(&[1, 32, 32, 4]);
    let y = windows(&mut net, x, 4, 4, [0; 4]);
    let y = net.conv(y, 8, 3, 1);
    let (module, ..) = check_in(&net.finish(&[y]), Precision::Int8, 30.0);
    let is_wide =
        |op: &&OpId| matches!(&module.op(**op).op, Op::Conv2d(conv) if conv.acc_type == ElemType::I48);
    assert_eq!(module.walk(module.body()).iter().filter(is_wide).count(), 0);
}

/// Boxes of hundreds and scores up to 1 for each pixel.
fn boxes_and_scores(net: &mut Net, x: ValueId) -> (ValueId, ValueId) {
    let boxes = net.conv(x, 4, 1, 1);
    let size = net.scalar(4, 100.0);
    let boxes = net.mul(boxes, size);
    let scores = net.conv(x, 3, 1, 1);
    (boxes, net.op(Sigmoid {}, &[scores]))
}

#[test]
fn an_output_joined_of_boxes_and_scores_has_16_bits() {
    let (mut net, x) = Net::new(&[1, 12, 12, 4]);
    let (boxes, scores) = boxes_and_scores(&mut net, x);
    let y = net.op(Concat { axis: 3 }, &[boxes, scores]);
    let extents = net.extents(&[1, 144, 7]);
    let y = net.op(Reshape {}, &[y, extents]);
    let module = net.finish(&[y]);
    assert!(decibels_of_columns(&module, 4..7) > 25.0);
    let (quantised, report, _) = check_in(&module, Precision::Int8, 30.0);
    assert_eq!(result_elem(&quantised), ElemType::I16);
    assert_eq!(report.uneven_outputs.len(), 1);
}

#[test]
fn an_output_of_one_convolution_with_channels_of_two_kinds_has_16_bits() {
    let (mut net, x) = Net::new(&[1, 12, 12, 4]);
    let y = net.conv(x, 7, 1, 1);
    let gains = net.constant(&[1, 1, 1, 7], vec![300.0, 300.0, 300.0, 300.0, 1.0, 1.0, 1.0]);
    let y = net.mul(y, gains);
    let y = net.op(Transpose { perms: vec![0, 3, 1, 2] }, &[y]);
    let extents = net.extents(&[1, 7, 144]);
    let y = net.op(Reshape {}, &[y, extents]);
    let y = net.op(Transpose { perms: vec![0, 2, 1] }, &[y]);
    let module = net.finish(&[y]);
    assert!(decibels_of_columns(&module, 4..7) > 25.0);
    let (quantised, ..) = check_in(&module, Precision::Int8, 30.0);
    assert_eq!(result_elem(&quantised), ElemType::I16);
}

#[test]
fn an_output_of_like_channels_stays_8_bits() {
    let (mut net, x) = Net::new(&[1, 12, 12, 4]);
    let y = net.conv(x, 7, 1, 1);
    let (_, scores) = boxes_and_scores(&mut net, x);
    let y = net.op(Concat { axis: 3 }, &[y, scores]);
    let (quantised, report, _) = check_in(&net.finish(&[y]), Precision::Int8, 30.0);
    assert_eq!(result_elem(&quantised), ElemType::I8);
    assert_eq!(report.uneven_outputs, [""; 0]);
}

#[test]
fn factors_of_channels_after_a_table_are_part_of_its_rescale() {
    for moves in [false, true] {
        let (mut net, x) = Net::new(&[1, 8, 8, 4]);
        let mut y = net.conv(x, 8, 3, 1);
        if moves {
            // The table is then of an activation in 8 bits.
            y = net.max_pool(y);
        }
        let gate = net.op(Sigmoid {}, &[y]);
        let y = net.mul(y, gate);
        let factors = net.constant(&[1, 1, 1, 8], (0..8).map(|c| 1.0 + c as f32 * 0.4).collect());
        let y = net.mul(y, factors);
        let y = net.conv(y, 8, 1, 1);
        let (module, report, _) = check_in(&net.finish(&[y]), Precision::Int8, 30.0);
        assert_eq!((report.n_tables, count(&module, "tosa.mul")), (1, 0));
    }
}
