//! Convolutions and pools.

use windlass_ops::{Attributes, Op, library};

use super::layers::usual;
use super::{Builder, Init, Module, Run};
use crate::{Error, Var};

/// How windows slide, along all dimensions alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub dilation: usize,
    pub groups: usize,
    pub bias: bool,
}

impl ConvOptions {
    /// Windows of `kernel` values, one step apart, without padding, with a bias.
    pub fn new(kernel: usize) -> Self {
        Self { kernel, stride: 1, padding: 0, dilation: 1, groups: 1, bias: true }
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
            .int("stride", self.stride)
            .int("padding", self.padding)
            .int("dilation", self.dilation)
            .int("groups", self.groups)
    }
}

macro_rules! convolution {
    ($(#[$doc:meta])* $name:ident, $op:ident, $rank:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            pub weight: usize,
            pub bias: Option<usize>,
            options: ConvOptions,
        }

        impl $name {
            /// From so many channels to so many.
            pub fn new(
                mut builder: Builder,
                inputs: usize,
                outputs: usize,
                options: ConvOptions,
            ) -> Result<Self, Error> {
                if options.groups == 0 || inputs % options.groups != 0 || outputs % options.groups != 0 {
                    let groups = options.groups;
                    return Err(Error::Setting(format!("{inputs} and {outputs} channels are not in {groups} equal groups")));
                }
                let mut shape = vec![outputs, inputs / options.groups];
                shape.extend([options.kernel; $rank]);
                let bound = 1.0 / (shape[1..].iter().product::<usize>().max(1) as f64).sqrt();
                let weight = builder.parameter("weight", &shape, usual())?;
                let bias = options.bias.then(|| builder.parameter("bias", &[outputs], Init::Uniform(-bound, bound)));
                Ok(Self { weight, bias: bias.transpose()?, options })
            }
        }

        impl Module for $name {
            fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
                let mut inputs = vec![x, run.parameter(self.weight)?];
                if let Some(bias) = self.bias {
                    inputs.push(run.parameter(bias)?);
                }
                run.tape.one(&library::$op, &inputs, &self.options.attributes())
            }
        }
    };
}

convolution!(
    /// A convolution of sequences `[n, channels, length]`.
    Conv1d, CONV1D, 1
);
convolution!(
    /// A convolution of images `[n, channels, height, width]`.
    Conv2d, CONV2D, 2
);

/// The largest value, or the mean, of each window.
#[derive(Debug)]
pub struct Pool {
    op: &'static Op,
    how: Attributes,
}

impl Pool {
    /// The largest of windows of sequences.
    pub fn max1d(kernel: usize) -> Self {
        Self { op: &library::MAX_POOL1D, how: Attributes::new().int("kernel", kernel) }
    }

    /// The largest of windows of images.
    pub fn max2d(kernel: usize) -> Self {
        Self { op: &library::MAX_POOL2D, how: Attributes::new().int("kernel", kernel) }
    }

    /// The mean of windows of sequences.
    pub fn mean1d(kernel: usize) -> Self {
        Self { op: &library::AVG_POOL1D, how: Attributes::new().int("kernel", kernel) }
    }

    /// The mean of windows of images.
    pub fn mean2d(kernel: usize) -> Self {
        Self { op: &library::AVG_POOL2D, how: Attributes::new().int("kernel", kernel) }
    }

    /// The means of as many windows as make a sequence of `size`.
    pub fn adaptive1d(size: usize) -> Self {
        Self { op: &library::ADAPTIVE_AVG_POOL1D, how: Attributes::new().int("size", size) }
    }

    /// The means of as many windows as make an image of `size` by `size`.
    pub fn adaptive2d(size: usize) -> Self {
        Self { op: &library::ADAPTIVE_AVG_POOL2D, how: Attributes::new().int("size", size) }
    }
}

impl Module for Pool {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        run.tape.one(self.op, &[x], &self.how)
    }
}

/// All dimensions but the first as one.
#[derive(Debug)]
pub struct Flatten;

impl Module for Flatten {
    fn forward(&self, run: &Run, x: &Var) -> Result<Var, Error> {
        let [first, rest @ ..] = x.shape() else { return Ok(x.clone()) };
        run.tape.reshape(x, [*first, rest.iter().product()])
    }
}
