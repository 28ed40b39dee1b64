use super::super::cpu::Isa;
use super::super::{PackedLinear, cross_entropy, loss};
use super::{close, numbers, tensor, values};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};

#[test]
fn losses_and_gradients_agree_with_burn() {
    let device = Device::flex().autodiff();
    let [rows, width, words] = [9, 24, 70];
    let w = numbers(words * width, 2);
    let head = PackedLinear::f32(words, width, &w);
    let plain = Tensor::<2>::from_data(TensorData::new(w, [words, width]), &device);
    let targets: Vec<u32> = (0..rows as u32).map(|i| i * 23 % words as u32).collect();
    let push = tensor::<1>([rows], 3, &device);
    let hidden = tensor::<2>([rows, width], 1, &device).mul_scalar(3.0).require_grad();
    let outcome = |losses: Tensor<1>| {
        let value = values(losses.clone());
        let mut gradients = (losses * push.clone()).sum().backward();
        (value, values(hidden.grad_remove(&mut gradients).expect("tracked")))
    };
    let found = outcome(cross_entropy(hidden.clone(), &head, &targets));
    let logits = activation::log_softmax(hidden.clone().matmul(plain.transpose()), 1);
    let indices: Vec<i64> = targets.iter().map(|t| i64::from(*t)).collect();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [rows, 1]), &device);
    let wanted = outcome(logits.gather(1, indices).reshape([rows]).neg());
    close(&found.0, &wanted.0, 1e-5, "loss");
    close(&found.1, &wanted.1, 1e-5, "gradient");
}

#[test]
fn rows_beyond_one_buffer_are_reached() {
    // The buffer holds 1677 rows of 5000 logits.
    let [rows, width, words] = [1700, 1, 5000];
    let head = PackedLinear::f32(words, width, &numbers(words, 2));
    let hidden = numbers(rows, 1);
    let targets: Vec<u32> = (0..rows as u32).collect();
    let run = |hidden: &[f32], targets: &[u32]| {
        let (mut losses, mut grad) = (vec![f32::NAN; targets.len()], vec![f32::NAN; targets.len()]);
        loss::cross_entropy(Isa::best(), hidden, &head, targets, &mut losses, Some(&mut grad));
        [losses, grad].concat()
    };
    let all = run(&hidden, &targets);
    for row in [0, 1676, 1677, 1699] {
        let one = run(&hidden[row..=row], &targets[row..=row]);
        close(&[all[row], all[rows + row]], &one, 1e-5, "row");
    }
}

#[test]
fn large_logits_neither_overflow_nor_vanish() {
    for isa in Isa::available() {
        let head = PackedLinear::f32(20, 1, &(0..20).map(|i| i as f32).collect::<Vec<_>>());
        let mut losses = [f32::NAN; 2];
        loss::cross_entropy(isa, &[1e4, -1e4], &head, &[19, 5], &mut losses, None);
        assert_eq!(losses, [0.0, 5e4], "{isa:?}");
    }
}
