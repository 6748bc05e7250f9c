//! Products of matrices that lie in unusual ways.
#![allow(clippy::unwrap_used)]

use windlass_ops::{Attributes, Context, library};
use windlass_tensor::storage::HostBuffer;
use windlass_tensor::{DType, Storage, Tensor, TypedTensor};

fn product(provider: &'static str, x: &Tensor, y: &Tensor) -> Vec<f32> {
    windlass_cpu::register();
    let result = Context::here(|cx| {
        let cx = Context::new(cx.session()).with_provider(provider);
        cx.one(&library::MATMUL, &[x, y], &Attributes::NONE).unwrap()
    });
    TypedTensor::<f32>::new(result).unwrap().to_vec().unwrap()
}

fn numbers(rows: usize, columns: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * columns).map(|i| (i % 17) as f32 - 8.0).collect();
    Tensor::from_slice(&values, [rows, columns]).unwrap()
}

#[test]
fn stretched_turned_and_odd_places_are_read_as_they_are() {
    let (x, y) = (numbers(13, 40), numbers(40, 35));
    let row = numbers(1, 40).broadcast_to([13, 40]).unwrap();
    let column = numbers(13, 1).broadcast_to([13, 40]).unwrap();
    let one = numbers(1, 1).broadcast_to([40, 35]).unwrap();
    let turned = numbers(35, 40).transpose(0, 1).unwrap();
    let mut bytes = HostBuffer::zeroed(x.shape().values() * 4 + 1).unwrap();
    x.read(&mut bytes.as_mut_slice()[1..]).unwrap();
    let whole = Storage::new(bytes);
    let odd = Tensor::new(whole.slice(1, x.shape().values() * 4).unwrap(), DType::F32, [13, 40]).unwrap();
    let across = numbers(40, 1).broadcast_to([40, 35]).unwrap().transpose(0, 1).unwrap();
    for (left, right) in [
        (&x, &y),
        (&row, &y),
        (&column, &y),
        (&x, &one),
        (&x, &turned),
        (&odd, &y),
        (&across, &turned.transpose(0, 1).unwrap().transpose(0, 1).unwrap()),
    ] {
        assert_eq!(product("reference", left, right), product("simd", left, right), "{left:?} {right:?}");
    }
}
