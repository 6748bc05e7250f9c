//! `y = x W^T`: activations times weights of any scheme, read where they lie.
//!
//! A few rows of activations (decoding) read each weight once, straight from the planes, at the speed of memory. Many rows
//! (a prompt) unpack a panel of weights into the cache once and use it for all of them. Both add the same products in the
//! same order, so a row of activations gives the same result alone and among others, on any number of threads.

use windlass_quant::Packing;
use windlass_runtime::scheduler::Session;
use windlass_tensor::{DType, Element, PackedLayout};

use crate::Error;
use crate::gemm::{From, Left, Matrix, multiply};
use crate::simd::Simd;
use crate::span::Span;

mod activations;
mod ahead;
mod apart;
mod codes;
mod dense;
mod exact;
mod matrix;
mod planes;
mod vector;

pub use activations::{Activations, Form};
use codes::Entry;
pub(crate) use dense::decode;

/// Rows of weights that are worked on together at most: two vectors of the widest level.
const PANEL: usize = 32;

/// Rows of weights that are multiplied on the way back before the next ones: their activations stay near. A multiple of
/// [`CHUNK`](crate::gemm::CHUNK).
const TOGETHER: usize = 16 << 10;

/// A matrix of weights, `rows` output features by `columns` input features, borrowed from where it lies.
pub struct Linear<'a> {
    rows: usize,
    columns: usize,
    weights: Weights<'a>,
}

enum Weights<'a> {
    /// Codes that are multiplied as integers.
    Codes(&'static Entry, Rows<'a>),
    /// Codes that become floats.
    Exact(codes::Exact, Rows<'a>),
    /// Floats of this type.
    Dense(DType, Rows<'a>),
    /// Floats of eight bits with scales.
    Scaled(Rows<'a>),
    /// Any other scheme: decoded to floats, a panel at a time.
    Decoded(Packing, Vec<&'a [u8]>),
}

/// Rows of bytes. The last ones, where they do not fill a panel, are copied and filled up with zeros.
struct Rows<'a> {
    bytes: &'a [u8],
    stride: usize,
    /// Rows that fill panels.
    whole: usize,
    rest: Vec<u8>,
    /// Scales that do not lie in the rows.
    apart: Option<apart::Apart<'a>>,
}

impl<'a> Linear<'a> {
    /// Weights of type `element` in `planes`: one plane of floats, or those of the scheme. Checks all sizes.
    pub fn new(element: &Element, planes: &[&'a [u8]], rows: usize, columns: usize) -> Result<Self, Error> {
        if rows == 0 || columns == 0 || rows.checked_mul(columns).is_none_or(|n| n > isize::MAX as usize / 8) {
            return Err(Error::Shape(format!("weights of {rows} rows, {columns} columns")));
        }
        let weights = match element {
            Element::Plain(dtype @ (DType::F32 | DType::F16 | DType::BF16)) => {
                Weights::Dense(*dtype, Rows::new(planes, rows, columns * dtype.size())?)
            }
            Element::Plain(dtype) => return Err(Error::Element(dtype.to_string())),
            Element::Packed(layout) => {
                let packing: &Packing =
                    layout.as_any().downcast_ref().ok_or_else(|| Error::Element(layout.name().into()))?;
                Self::packed(*packing, planes, rows, columns)?
            }
        };
        Ok(Linear { rows, columns, weights })
    }

    fn packed(packing: Packing, planes: &[&'a [u8]], rows: usize, columns: usize) -> Result<Weights<'a>, Error> {
        let sizes = packing.plane_bytes(&[rows, columns]).map_err(Error::Shape)?;
        if planes.len() != sizes.len() {
            return Err(Error::Size { what: "number of planes", expected: sizes.len(), found: planes.len() });
        }
        for (plane, size) in planes.iter().zip(&sizes) {
            if plane.len() as u64 != *size {
                return Err(Error::Size { what: "bytes of a plane", expected: *size as usize, found: plane.len() });
            }
        }
        if let Some(entry) = codes::entry(packing.scheme.name()) {
            return Ok(Weights::Codes(entry, Rows::new(planes, rows, columns / entry.block * entry.bytes)?));
        }
        if let Some(apart) = planes::floats(&packing, planes, rows, columns) {
            return Ok(Weights::Scaled(Rows { apart: Some(apart), ..Rows::new(&planes[..1], rows, columns)? }));
        }
        let Some((entry, apart)) = planes::parts(&packing, planes, rows, columns) else {
            return Ok(Weights::Decoded(packing, planes.to_vec()));
        };
        let codes = Rows::new(&planes[..1], rows, columns / entry.block * entry.bytes)?;
        Ok(Weights::Codes(entry, Rows { apart: Some(apart), ..codes }))
    }

    /// The same weights for activations that are not rounded.
    pub fn exact(mut self) -> Self {
        self.weights = match self.weights {
            Weights::Codes(entry, mut rows) => {
                if let (Some(apart), Some(factor)) = (&mut rows.apart, entry.exact.factor) {
                    apart.factor = factor;
                }
                Weights::Exact(entry.exact, rows)
            }
            other => other,
        };
        self
    }

    /// Number of output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of input features.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The form that [`Linear::apply`] takes activations in.
    pub fn form(&self) -> Form {
        match &self.weights {
            Weights::Codes(entry, _) => entry.form,
            Weights::Exact(..) | Weights::Dense(..) | Weights::Scaled(_) | Weights::Decoded(..) => Form::Floats,
        }
    }

    /// `y = x W^T` for `m` rows of activations: `x` is `[m][columns]`, `y` is `[m][rows]`.
    pub fn forward(&self, x: &[f32], m: usize, y: &mut [f32], session: &Session<'_>) -> Result<(), Error> {
        self.apply(&Activations::new(self.form(), x, m, self.columns, session)?, y, session)
    }

    /// As [`Linear::forward`], for activations that several matrices share.
    pub fn apply(&self, x: &Activations, y: &mut [f32], session: &Session<'_>) -> Result<(), Error> {
        if x.form != self.form() {
            return Err(Error::Shape(format!("activations are {:?}, the weights want {:?}", x.form, self.form())));
        }
        if x.columns != self.columns {
            return Err(Error::Size { what: "columns of activations", expected: self.columns, found: x.columns });
        }
        let size = x.rows.saturating_mul(self.rows);
        if y.len() != size {
            return Err(Error::Size { what: "results", expected: size, found: y.len() });
        }
        let y = Output { y: Span::of(y), rows: self.rows };
        match &self.weights {
            Weights::Codes(entry, weights) => (entry.apply)(weights, x, &y, session),
            Weights::Exact(exact, weights) => (exact.forward)(weights, x.floats(), self.rows, &y.y, session),
            Weights::Dense(dtype, weights) => dense::apply(*dtype, weights, x, &y, session),
            Weights::Scaled(weights) => dense::apply_scaled(weights, x, &y, session),
            Weights::Decoded(packing, planes) => dense::apply_decoded(packing, planes, x, &y, session)?,
        }
        Ok(())
    }

    /// As [`Linear::apply`], added to what `y` holds: weights are F32.
    pub fn add(&self, x: &Activations, y: &mut [f32], session: &Session<'_>) -> Result<(), Error> {
        let Weights::Dense(DType::F32, weights) = &self.weights else {
            return Err(Error::Element("weights that are not F32".into()));
        };
        if x.form != Form::Floats || x.columns != self.columns || y.len() != x.rows * self.rows {
            return Err(Error::Size { what: "results", expected: x.rows * self.rows, found: y.len() });
        }
        dense::add(weights, x, self.rows, &Span::of(y), session);
        Ok(())
    }

    /// Whether [`Linear::back`] has kernels for the weights.
    pub fn goes_back(&self) -> bool {
        !matches!(self.weights, Weights::Scaled(_) | Weights::Decoded(..))
    }

    /// `y = x W`, added to what is there with `add`, for `m` rows: `x` is `[m][rows]`, `y` is `[m][columns]`. Activations
    /// are not rounded.
    pub fn back(&self, x: &[f32], m: usize, y: &mut [f32], add: bool, session: &Session<'_>) -> Result<(), Error> {
        for (what, expected, found) in [
            ("activations", m.saturating_mul(self.rows), x.len()),
            ("results", m.saturating_mul(self.columns), y.len()),
        ] {
            if expected != found || m == 0 {
                return Err(Error::Size { what, expected, found });
            }
        }
        let right = match &self.weights {
            Weights::Codes(Entry { exact, .. }, weights) | Weights::Exact(exact, weights) => (exact.standing)(weights),
            Weights::Dense(dtype, weights) => dense::standing(*dtype, weights, self.columns),
            Weights::Scaled(_) => return Err(Error::Element("a scheme of 8-bit floats".into())),
            Weights::Decoded(packing, _) => return Err(Error::Element(packing.scheme.name().into())),
        };
        let y = Span::of(y);
        for first in (0..self.rows).step_by(TOGETHER) {
            let count = TOGETHER.min(self.rows - first);
            let part = Matrix { values: &x[first..], row: self.rows, column: 1 };
            let left = Left::gather(&part, m, count, session);
            let right = From { right: &*right, first };
            multiply(left.tiles(), 0..count, &right, self.columns, &y, add || first > 0, session);
        }
        Ok(())
    }
}

impl<'a> Rows<'a> {
    fn new(planes: &[&'a [u8]], rows: usize, stride: usize) -> Result<Self, Error> {
        let [bytes] = *planes else {
            return Err(Error::Size { what: "number of planes", expected: 1, found: planes.len() });
        };
        if bytes.len() != rows * stride {
            return Err(Error::Size { what: "bytes of weights", expected: rows * stride, found: bytes.len() });
        }
        let whole = rows / PANEL * PANEL;
        let mut rest = Vec::new();
        if whole < rows {
            rest = vec![0; PANEL * stride];
            rest[..(rows - whole) * stride].copy_from_slice(&bytes[whole * stride..]);
        }
        Ok(Rows { bytes, stride, whole, rest, apart: None })
    }

    /// Panels of floats.
    fn of_floats(values: &'a [f32], columns: usize) -> Self {
        // SAFETY: the bytes of the same floats; bytes have no alignment and no invalid values.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        Rows { bytes, stride: columns * 4, whole: values.len() / columns, rest: Vec::new(), apart: None }
    }

    /// Where `count` rows from `first` on lie; `first` is a multiple of `count`, which divides [`PANEL`]. Rows beyond the
    /// last are zero.
    #[inline(always)]
    fn at(&self, first: usize, count: usize) -> *const u8 {
        let (bytes, first) =
            if first < self.whole { (self.bytes, first) } else { (&self.rest[..], first - self.whole) };
        bytes[first * self.stride..(first + count) * self.stride].as_ptr()
    }
}

/// Where results go: `[m][rows]`.
struct Output {
    y: Span<f32>,
    rows: usize,
}

impl Output {
    /// Where the results of activation row `m` for weight rows from `first` on go.
    #[inline(always)]
    fn at(&self, m: usize, first: usize) -> *mut f32 {
        self.y.at(m * self.rows + first)
    }

    /// Stores results of one tile of weight rows for activation row `m`; those of rows beyond the last are dropped.
    ///
    /// # Safety
    /// Row `m` exists, nobody else writes these results, and the processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, m: usize, first: usize, results: S::F) {
        // SAFETY: a vector that ends at or before the last row lies within the results; the rest is copied in part.
        unsafe {
            if first + S::ROWS <= self.rows {
                return S::store_float(self.at(m, first), results);
            }
            let mut all = [0.0; PANEL];
            S::store_float(all.as_mut_ptr(), results);
            for (i, result) in all.iter().enumerate().take(self.rows.saturating_sub(first)) {
                *self.at(m, first + i) = *result;
            }
        }
    }
}
