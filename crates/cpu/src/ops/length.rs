//! The length of all values as one vector.

use windlass_ops::{Args, Error, Inquiry, Kernel, Value};
use windlass_tensor::DType;

use super::norm::sum;
use crate::isa::{self, dispatch, level};
use crate::simd::Simd;

pub(super) const KERNEL: Kernel = Kernel { op: "norm", supports, run };

/// Values whose squares are summed in single precision.
const PART: usize = 4096;

fn supports(q: &Inquiry) -> Result<(), &'static str> {
    let all = matches!(q.attribute("dim"), Ok(Value::Text("all"))) && q.float("p").is_ok_and(|p| p == 2.0);
    let f32 = q.inputs[0].element().dtype() == Some(DType::F32);
    if all && f32 { Ok(()) } else { Err("takes the length of all of F32") }
}

fn run(args: &mut Args) -> Result<(), Error> {
    let x = args.f32s(0)?;
    let mut total = 0.0;
    // SAFETY: the level is this machine's; the kernel asks for nothing else.
    unsafe { dispatch(level(), Squares { x: &x, total: &mut total }) }
    args.write_numbers(0, &[total.sqrt()])
}

struct Squares<'a> {
    x: &'a [f32],
    total: &'a mut f64,
}

impl isa::Kernel for Squares<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        *self.total = self.x.chunks(PART).map(|part| f64::from(sum(part, |v| v * v))).sum();
    }
}
