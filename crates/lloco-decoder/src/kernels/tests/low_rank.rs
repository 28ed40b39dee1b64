use super::super::cpu::Isa;
use super::super::low_rank::{Factors, Second};
use super::super::matmul::{Write, matmul, transposed};
use super::{close, numbers, tensor, values};
use crate::low_rank;
use burn::tensor::{Device, Tensor};

fn exact(left: &[f32], right: &[f32], scale: f32, before: &[f32], [rows, depth, width]: [usize; 3]) -> Vec<f32> {
    let at = |row: usize, column: usize| {
        let products = (0..depth).map(|i| f64::from(left[row * depth + i]) * f64::from(right[i * width + column]));
        (f64::from(before[row * width + column]) + f64::from(scale) * products.sum::<f64>()) as f32
    };
    (0..rows).flat_map(|row| (0..width).map(move |column| at(row, column))).collect()
}

#[test]
fn products_of_any_shape_agree_on_every_path() {
    for isa in Isa::available() {
        for sizes @ [rows, depth, width] in
            [[1, 1, 1], [7, 3, 5], [13, 600, 17], [100, 16, 130], [3, 0, 4], [0, 5, 6], [300, 257, 33]]
        {
            let (left, right) = (numbers(rows * depth, 1), numbers(depth * width, 2));
            let before = numbers(rows * width, 3);
            let mut out = before.clone();
            matmul(isa, &left, &right, 0.5, &mut out, sizes, Write::Add);
            close(&out, &exact(&left, &right, 0.5, &before, sizes), 2e-5, &format!("{isa:?} {sizes:?} added"));
            matmul(isa, &left, &right, 2.0, &mut out, sizes, Write::Store);
            let zeros = vec![0.0; rows * width];
            close(&out, &exact(&left, &right, 2.0, &zeros, sizes), 1e-4, &format!("{isa:?} {sizes:?} stored"));
        }
    }
}

#[test]
fn transposing_twice_changes_nothing() {
    for [rows, columns] in [[1, 1], [16, 16], [17, 50], [0, 3]] {
        let matrix = numbers(rows * columns, 4);
        let turned = transposed(&matrix, rows, columns);
        assert_eq!(transposed(&turned, columns, rows), matrix);
        assert!((0..rows).all(|row| (0..columns).all(|c| turned[c * rows + row] == matrix[row * columns + c])));
    }
}

#[test]
fn few_rows_and_many_get_the_same_term() {
    let (rank, inputs, outputs) = (12, 50, 37);
    let (a, b) = (numbers(rank * inputs, 1), numbers(outputs * rank, 2));
    let turned = transposed(&b, outputs, rank);
    let factors = |b| Factors { a: &a, b, rank, inputs, outputs, scale: 1.5 };
    let (x, before) = (numbers(9 * inputs, 3), numbers(9 * outputs, 4));
    for isa in Isa::available() {
        let mut together = before.clone();
        factors(Second::Rows(&b)).add(isa, &x, &mut together);
        let mut turned_too = before.clone();
        factors(Second::Columns(&turned)).add(isa, &x, &mut turned_too);
        assert_eq!(together, turned_too, "{isa:?}");
        let mut apart = before.clone();
        for (x, y) in x.chunks(2 * inputs).zip(apart.chunks_mut(2 * outputs)) {
            factors(Second::Columns(&turned)).add(isa, x, y);
        }
        close(&together, &apart, 2e-5, &format!("{isa:?}"));
    }
}

#[test]
fn the_term_and_its_gradients_agree_with_burn() {
    let device = Device::flex().autodiff();
    for (batch, seq, rank) in [(1, 3, 2), (3, 21, 17)] {
        let [inputs, outputs] = [50, 37];
        let y = tensor::<3>([batch, seq, outputs], 1, &device).require_grad();
        let x = tensor::<3>([batch, seq, inputs], 2, &device).require_grad();
        let a = tensor::<2>([rank, inputs], 3, &device).require_grad();
        let b = tensor::<2>([outputs, rank], 4, &device).require_grad();
        let push = tensor::<3>([batch, seq, outputs], 5, &device);
        let plain = |y: Tensor<3>, x: Tensor<3>, a: &Tensor<2>, b: &Tensor<2>, scale: f64| {
            y + x.matmul(a.clone().transpose().unsqueeze()).matmul(b.clone().transpose().unsqueeze()).mul_scalar(scale)
        };
        let outcome = |out: Tensor<3>| {
            let value = values(out.clone());
            let mut gradients = (out * push.clone()).sum().backward();
            [
                value,
                values(y.grad_remove(&mut gradients).expect("y is tracked")),
                values(x.grad_remove(&mut gradients).expect("x is tracked")),
                values(a.grad_remove(&mut gradients).expect("a is tracked")),
                values(b.grad_remove(&mut gradients).expect("b is tracked")),
            ]
        };
        let found = outcome(low_rank(y.clone(), x.clone(), &a, &b, 0.7));
        let wanted = outcome(plain(y.clone(), x.clone(), &a, &b, 0.7));
        for ((found, wanted), what) in found.iter().zip(&wanted).zip(["value", "of y", "of x", "of a", "of b"]) {
            close(found, wanted, 2e-4, what);
        }
    }
}

#[test]
fn what_somebody_else_holds_is_not_written_over() {
    let device = Device::flex();
    let (y, x) = (tensor::<3>([2, 5, 6], 1, &device), tensor::<3>([2, 5, 4], 2, &device));
    let (a, b) = (tensor::<2>([3, 4], 3, &device), tensor::<2>([6, 3], 4, &device));
    let (held, before) = (y.clone(), values(y.clone()));
    // A view that starts in the middle of what is held.
    let half = low_rank(y.clone().narrow(0, 1, 1), x.clone().narrow(0, 1, 1), &a, &b, 1.0);
    let whole = low_rank(y.clone(), x.clone(), &a, &b, 1.0);
    // The second factor as a view: of its transpose, and of something else.
    let turned = Tensor::from_data(b.clone().transpose().into_data(), &device).transpose();
    close(&values(low_rank(y.clone(), x.clone(), &a, &turned, 1.0)), &values(whole.clone()), 1e-6, "turned");
    let wide = Tensor::cat(vec![b.clone(), b.clone()], 1).narrow(1, 3, 3);
    close(&values(low_rank(y, x, &a, &wide, 1.0)), &values(whole.clone()), 1e-6, "narrowed");
    assert_eq!(values(held), before);
    assert_ne!(values(whole.clone()), before);
    close(&values(half), &values(whole.narrow(0, 1, 1)), 1e-6, "half");
}
