//! Typed access, where Rust code wants it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use crate::{DType, Error, Tensor};

/// A Rust type that is the value of an element type. Any bytes of its size are a value, which is what `Pod` promises.
///
/// A crate with an element type of its own registers it with [`DType::register`] and implements this for its Rust type;
/// a pair of different sizes is refused wherever it is used.
pub trait Scalar: Pod + Send + Sync {
    /// The element type.
    fn dtype() -> DType;
}

macro_rules! scalars {
    ($($type:ty => $dtype:ident),* $(,)?) => {$(
        impl Scalar for $type {
            fn dtype() -> DType {
                DType::$dtype
            }
        }
    )*};
}
scalars!(
    Bool => Bool, u8 => U8, u16 => U16, u32 => U32, u64 => U64, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    f16 => F16, bf16 => BF16, f32 => F32, f64 => F64,
    F8E4M3 => F8E4M3, F8E5M2 => F8E5M2, F8E8M0 => F8E8M0, C64 => C64,
);

/// A truth value as files hold it: one byte, of which a hostile file may choose any. Not zero is true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable, Pod)]
#[repr(transparent)]
pub struct Bool(pub u8);

impl Bool {
    /// Whether it is true.
    pub fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for Bool {
    fn from(value: bool) -> Self {
        Self(value.into())
    }
}

/// The bits of an OCP float with 4 exponent bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable, Pod)]
#[repr(transparent)]
pub struct F8E4M3(pub u8);

/// The bits of an OCP float with 5 exponent bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable, Pod)]
#[repr(transparent)]
pub struct F8E5M2(pub u8);

/// The bits of an OCP power-of-two scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable, Pod)]
#[repr(transparent)]
pub struct F8E8M0(pub u8);

/// A complex number of two `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Zeroable, Pod)]
#[repr(C)]
pub struct C64 {
    /// Real part.
    pub re: f32,
    /// Imaginary part.
    pub im: f32,
}

/// A tensor whose element type is known to the compiler. Cheap to clone, as the tensor is.
pub struct TypedTensor<T> {
    tensor: Tensor,
    scalar: PhantomData<T>,
}

impl<T: Scalar> TypedTensor<T> {
    /// The tensor seen as values of `T`; an error where its element is another.
    pub fn new(tensor: Tensor) -> Result<Self, Error> {
        let dtype = T::dtype();
        let mismatch = |expected: String| {
            Err(Error::Element { what: "typed access", expected, found: tensor.element().name().into() })
        };
        if dtype.size() != size_of::<T>() {
            return mismatch(format!("{dtype} of {} bytes, as its Rust type has", size_of::<T>()));
        }
        if tensor.element().dtype() != Some(dtype) {
            return mismatch(dtype.name().into());
        }
        Ok(Self { tensor, scalar: PhantomData })
    }

    /// A copy of `values` in host memory.
    pub fn from_slice(values: &[T], shape: impl Into<Vec<usize>>) -> Result<Self, Error> {
        Self::new(Tensor::from_slice(values, shape)?)
    }

    /// The tensor itself.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Gives the tensor back.
    pub fn into_tensor(self) -> Tensor {
        self.tensor
    }

    /// The values where they lie, in row-major order: without gaps, aligned for `T`, visible to the host; else `None`.
    /// Values of a mapped file: call [`Tensor::check`] after reading them.
    pub fn as_slice(&self) -> Option<&[T]> {
        bytemuck::try_cast_slice(self.tensor.bytes()?).ok()
    }

    /// The values for writing, under the conditions of [`TypedTensor::as_slice`], if no other tensor shares them.
    pub fn as_mut_slice(&mut self) -> Option<&mut [T]> {
        bytemuck::try_cast_slice_mut(self.tensor.bytes_mut()?).ok()
    }

    /// The values in row-major order: where they lie if [`TypedTensor::as_slice`] has them, else copied. Works for any
    /// layout, alignment and device that the host can read.
    pub fn values(&self) -> Result<Cow<'_, [T]>, Error> {
        match self.as_slice() {
            Some(values) => Ok(Cow::Borrowed(values)),
            None => Ok(Cow::Owned(self.to_vec()?)),
        }
    }

    /// A copy of the values in row-major order.
    pub fn to_vec(&self) -> Result<Vec<T>, Error> {
        let mut values = Vec::new();
        let n = self.tensor.shape().values();
        let bytes = self.tensor.shape().bytes(size_of::<T>())?;
        values.try_reserve_exact(n).map_err(|_| Error::OutOfMemory { requested: bytes as u64 })?;
        values.resize(n, T::zeroed());
        self.tensor.read(bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// The value at `index`.
    pub fn get(&self, index: &[usize]) -> Result<T, Error> {
        let outside = || Error::Argument(format!("{index:?} lies outside of {:?}", self.tensor.shape()));
        let at = self.tensor.layout().at(index).ok_or_else(outside)?;
        let mut value = T::zeroed();
        let storage = self.tensor.planes().first().ok_or_else(outside)?;
        storage.read(at * size_of::<T>(), bytemuck::bytes_of_mut(&mut value))?;
        Ok(value)
    }
}

impl<T: Scalar> TryFrom<Tensor> for TypedTensor<T> {
    type Error = Error;

    fn try_from(tensor: Tensor) -> Result<Self, Error> {
        Self::new(tensor)
    }
}

impl<T> Clone for TypedTensor<T> {
    fn clone(&self) -> Self {
        Self { tensor: self.tensor.clone(), scalar: PhantomData }
    }
}

impl<T> fmt::Debug for TypedTensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tensor.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MappedFile;
    use crate::{Layout, Shape, Storage};
    use std::io::Write;

    #[test]
    fn values_come_back_through_any_view() {
        let values: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let tensor = Tensor::from_slice(&values, [4, 6]).unwrap();
        let view = tensor.narrow(1, 2, 3).unwrap().transpose(0, 1).unwrap();
        let typed = TypedTensor::<f32>::new(view).unwrap();
        assert_eq!(typed.to_vec().unwrap(), [2., 8., 14., 20., 3., 9., 15., 21., 4., 10., 16., 22.]);
        assert_eq!(typed.get(&[1, 3]).unwrap(), 21.0);
        assert!(typed.get(&[3, 0]).is_err());
        assert!(typed.as_slice().is_none(), "a view with gaps has no slice");
        let whole = TypedTensor::<f32>::new(tensor).unwrap();
        assert_eq!(whole.as_slice().unwrap(), values);
        assert!(matches!(whole.values().unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn unaligned_mapped_values_are_read_without_being_referred_to() {
        let values = [1.5f64, -2.0, 3.25];
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"odd").unwrap();
        file.write_all(bytemuck::cast_slice(&values)).unwrap();
        let storage = Storage::new(MappedFile::open(file.path()).unwrap()).slice(3, 24).unwrap();
        let typed = TypedTensor::<f64>::new(Tensor::new(storage, DType::F64, [3]).unwrap()).unwrap();
        assert!(typed.as_slice().is_none());
        assert_eq!(*typed.values().unwrap(), values);
        assert_eq!(typed.get(&[2]).unwrap(), 3.25);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn values_of_a_file_that_was_cut_are_an_error() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[1; 4 * 4096]).unwrap();
        let storage = Storage::new(MappedFile::open(file.path()).unwrap());
        let typed = TypedTensor::<u8>::new(Tensor::new(storage, DType::U8, [4, 4096]).unwrap()).unwrap();
        file.as_file().set_len(4096).unwrap();
        assert_eq!(typed.get(&[0, 5]).unwrap(), 1);
        let error = typed.to_vec().unwrap_err().to_string();
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
        assert!(typed.get(&[0, 5]).is_err());
    }

    #[test]
    fn the_type_must_be_the_one_of_the_tensor() {
        let tensor = Tensor::from_slice(&[f16::ONE; 4], [4]).unwrap();
        assert!(TypedTensor::<f16>::new(tensor.clone()).is_ok());
        let error = TypedTensor::<bf16>::new(tensor).unwrap_err().to_string();
        assert_eq!(error, "typed access: expected BF16, found F16");
    }

    #[test]
    fn every_built_in_type_has_a_rust_type_of_its_size() {
        fn check<T: Scalar>(seen: &mut Vec<DType>) {
            assert_eq!(T::dtype().size(), size_of::<T>());
            seen.push(T::dtype());
        }
        let mut seen = Vec::new();
        macro_rules! check_all {
            ($($type:ty),*) => { $(check::<$type>(&mut seen);)* };
        }
        check_all!(Bool, u8, u16, u32, u64, i8, i16, i32, i64, f16, bf16, f32, f64, F8E4M3, F8E5M2, F8E8M0, C64);
        assert!(DType::built_in().all(|dtype| seen.contains(&dtype)));
        assert!(Bool(7).get() && Bool::from(true).get() && !Bool::default().get());
    }

    #[derive(Clone, Copy, Debug, PartialEq, Zeroable, Pod)]
    #[repr(transparent)]
    struct Posit32(u32);

    impl Scalar for Posit32 {
        fn dtype() -> DType {
            DType::register("POSIT32", 4).unwrap()
        }
    }

    #[derive(Clone, Copy, Zeroable, Pod)]
    #[repr(transparent)]
    struct Liar(u32);

    impl Scalar for Liar {
        fn dtype() -> DType {
            DType::F64
        }
    }

    #[test]
    fn a_type_of_ones_own_works_and_one_of_another_size_is_refused() {
        let typed = TypedTensor::from_slice(&[Posit32(7), Posit32(9)], [2]).unwrap();
        assert_eq!(typed.get(&[1]).unwrap(), Posit32(9));
        assert_eq!(typed.tensor().element().name(), "POSIT32");
        let tensor = Tensor::from_slice(&[1.0f64], [1]).unwrap();
        assert!(TypedTensor::<Liar>::new(tensor).is_err());
    }

    #[test]
    fn writing_needs_the_only_handle() {
        let mut typed = TypedTensor::from_slice(&[1i32, 2, 3], [3]).unwrap();
        let other = typed.clone();
        assert!(typed.as_mut_slice().is_none());
        drop(other);
        typed.as_mut_slice().unwrap()[0] = 5;
        assert_eq!(typed.to_vec().unwrap(), [5, 2, 3]);
    }

    #[test]
    fn repeated_values_are_read_again_and_again() {
        let layout = Layout::contiguous(Shape::new([3]).unwrap()).broadcast_to(Shape::new([2, 3]).unwrap()).unwrap();
        let storage = Storage::copy_of(&[1, 2, 3]).unwrap();
        let tensor = Tensor::with_layout(storage, DType::U8, layout).unwrap();
        assert_eq!(TypedTensor::<u8>::new(tensor).unwrap().to_vec().unwrap(), [1, 2, 3, 1, 2, 3]);
    }
}
